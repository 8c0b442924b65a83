#include "apps/config_command.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <sstream>

#include "config/schema_text.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
#include "job/job.hpp"
#include "job/schema.hpp"
#include "run/errors.hpp"
#include "run/launch.hpp"
#include "run/memory.hpp"
#include "run/micro_batch.hpp"
#include "run/place.hpp"
#include "run/setup.hpp"

namespace lockstep {
namespace {

/// Ranks as the launcher or the job says, 1 if neither does.
struct Ranks {
  std::int64_t number;
  const char* source;  ///< as `lockstep train` names it
  bool said;
};
Ranks ranks_of(const job::JobConfig& job, std::int64_t asked) {
  if (asked > 0) return {asked, "from MPI", true};
  if (job.comm.ranks > 1) return {job.comm.ranks, "comm.ranks", true};
  return {1, "no launcher", false};
}

std::unique_ptr<nn::Model> model_of(const job::JobConfig& job) {
  // Generated points are as the job says: they need not be made to know it.
  if (job.data.type == "clusters")
    return run::make_model(job, static_cast<int>(job.data.clusters.classes),
                           static_cast<int>(job.data.clusters.features));
  const auto dataset = run::make_dataset(job);
  return run::make_model(job, dataset->shape());
}

/// Goes as far as `lockstep train` does before it allocates anything. Returns remarks.
std::vector<std::string> check_as_train_does(const job::LoadedJob& loaded, std::int64_t asked) {
  job::LoadedJob settled = loaded;
  const job::JobConfig& job = settled.config;
  const Ranks ranks = ranks_of(job, asked);
  if (job.comm.backend == "local" && asked > 1) run::refuse_nested_ranks();
  const run::SelectedPlace place = run::select_place(job, {});
  const bool custom = job.model.type == "custom";
  const auto model = custom ? nullptr : model_of(job);
  std::vector<std::string> remarks;
  if (custom) remarks.emplace_back("model.type custom: its parameters are known to the program that brings it");
  try {
    std::string why_micro;
    if (model != nullptr)
      why_micro = run::settle_micro_batch(settled, *model, *place.kernels, *place.device,
                                          static_cast<int>(ranks.number), ranks.source);
    job::BatchSizes batch;
    if (!job.micro_batch_is_auto()) batch = run::batch_sizes(job, ranks.number, ranks.source);
    run::explain_micro_batch(batch, why_micro);
    if ((ranks.said || !why_micro.empty()) && !batch.text.empty()) remarks.push_back("batch: " + batch.text);
  } catch (const Error& error) {
    if (ranks.said) throw;
    remarks.push_back(
        fmt::format("one rank alone cannot train it: {}; lockstep config -n N asks for N ranks", error.what()));
  }
  if (model != nullptr) (void)run::assign_groups(job, *model);
  return remarks;
}

std::string as_comments(const std::vector<std::string>& lines, const char* indent) {
  std::string text;
  for (const std::string& line : lines)
    text += fmt::format("# {}{}\n", &line == &lines.front() ? "" : indent, printable(line));
  return text;
}

/// What the job will need, as comments.
std::string memory(const job::LoadedJob& job, std::int64_t asked) {
  std::istringstream lines(run::memory_forecast(job, static_cast<int>(ranks_of(job.config, asked).number)));
  std::string text;
  for (std::string line; std::getline(lines, line);) text += fmt::format("# {}\n", line);
  return text;
}

std::string body(const job::JobConfig& config, ConfigOptions::Show show) {
  using Show = ConfigOptions::Show;
  switch (show) {
    case Show::effective:
      return job::effective_yaml(config);
    case Show::full:
      return job::full_yaml(config);
    case Show::minimal:
      return job::minimal_yaml(config);
    case Show::diff:
      return job::diff_from_defaults(config);
    case Show::reference:
    case Show::schema:
      break;
  }
  fail(ErrorKind::internal, "config: the reference page and the schema have no job");
}

}  // namespace

std::string config_text(const ConfigOptions& options) {
  if (options.show == ConfigOptions::Show::reference) return config::reference_markdown(job::job_section());
  if (options.show == ConfigOptions::Show::schema) return config::json_schema(job::job_section());
  const job::LoadedJob job = job::load_job(options.job, options.overrides);
  const std::vector<std::string> remarks = check_as_train_does(job, options.ranks);
  return as_comments(job::deepspeed_lines(job), "  ") + as_comments(job.warnings, "") + as_comments(remarks, "") +
         memory(job, options.ranks) + body(job.config, options.show);
}

int config_command(const ConfigOptions& options) {
  std::string text;
  try {
    text = config_text(options);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::config) throw;
    run::print_failure({error.kind(), error.what()});
    return exit_code(error.kind());
  }
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace lockstep
