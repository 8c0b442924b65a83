#include "apps/config_command.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <sstream>

#include "config/schema_text.hpp"
#include "core/error.hpp"
#include "job/job.hpp"
#include "job/schema.hpp"
#include "run/memory.hpp"

namespace lockstep {
namespace {

std::string comment_lines(const std::string& title, const std::vector<std::string>& lines) {
  if (lines.empty()) return {};
  std::string text = fmt::format("# {}\n", title);
  for (const std::string& line : lines) text += fmt::format("#   {}\n", line);
  return text;
}

std::string remarks(const job::LoadedJob& job) {
  std::string text;
  if (job.deepspeed) {
    const job::DeepSpeedReport& report = *job.deepspeed;
    text += comment_lines(fmt::format("{}: acted on", report.path), report.acted_on);
    text += comment_lines("known and without effect here", report.without_effect);
    text += comment_lines("\"auto\", taken as absent", report.taken_as_absent);
    text += "# known and refused: none (a refused key is an error)\n";
  }
  for (const std::string& warning : job.warnings) text += fmt::format("# {}\n", warning);
  return text;
}

/// What the job will need, as comments.
std::string memory(const job::LoadedJob& job) {
  std::istringstream lines(run::memory_forecast(job, static_cast<int>(job.config.comm.ranks)));
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
  return remarks(job) + memory(job) + body(job.config, options.show);
}

int config_command(const ConfigOptions& options) {
  const std::string text = config_text(options);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace lockstep
