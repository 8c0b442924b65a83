#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <sstream>

#include "apps/config_command.hpp"
#include "apps/explain_command.hpp"
#include "apps/lr_command.hpp"
#include "config/words.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "job/job.hpp"
#include "run/bench_step.hpp"
#include "run/generate.hpp"
#include "run/launch.hpp"
#include "run/launcher.hpp"
#include "run/thread_waits.hpp"
#include "run/trainer.hpp"

namespace {

using namespace lockstep;

/// A number within [low, high]; NaN is not.
template <class Number>
CLI::Validator between(Number low, Number high) {
  const auto check = [=](const std::string& text) -> std::string {
    Number value{};
    if (CLI::detail::lexical_cast(text, value) && value >= low && value <= high) return {};
    return fmt::format("'{}' is not a {} from {} to {}", text, std::is_integral_v<Number> ? "whole number" : "number",
                       low, high);
  };
  return {check, fmt::format("in [{}, {}]", low, high)};
}

/// Options that several commands share.
struct JobOptions {
  std::string path;
  std::vector<std::string> overrides;

  void add_to(CLI::App* command, bool required = true) {
    command->add_option("job", path, "job file (YAML)")->required(required);
    command->add_option("--set", overrides, "override a field: --set run.steps=100 (repeatable)")
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
  [[nodiscard]] job::LoadedJob load() const {
    job::LoadedJob job = job::load_job(path, overrides);
    if (run::launcher_rank() == 0)
      for (const std::string& warning : job.warnings)
        fmt::print(stderr, "{}\n", warning);  // has its place: file:line:col: warning: ...
    return job;
  }
};

int train_command(const JobOptions& options, const std::string& resume) {
  const run::Start start = run::start_with([&] { return options.load(); },
                                           {"--resume: " + (resume.empty() ? std::string("not given") : resume)});
  return run::run_on_ranks(start, [&](run::RankContext& rank) {
    (void)run::train(*start.job, resume.empty() ? start.job->config.run.resume : resume, rank);
  });
}

int lr_command(const JobOptions& options, std::int64_t updates, const std::string& format, const std::string& plot) {
  const job::LoadedJob loaded = options.load();
  const job::JobConfig& job = loaded.config;
  LrRequest request;
  request.updates = updates > 0 ? updates : job.run.steps;
  request.format = parse_lr_format(format);
  if (!plot.empty()) request.plot = plot;
  for (std::size_t g = 0; g <= job.parameter_groups.size(); ++g)
    request.group_names.push_back(
        g == 0 ? "group 0 (the rest)"
               : fmt::format("group {} ({})", g, fmt::join(job.parameter_groups[g - 1].match, ", ")));
  std::fputs(lr_report(*loaded.schedule, request).c_str(), stdout);
  return 0;
}

int generate_command(const std::string& run, const run::GenerateOptions& options) {
  const run::Start place = run::start_with([] { return job::LoadedJob(); });  // one rank, all CPUs
  return run::run_on_ranks(place, [&](run::RankContext& rank) {
    if (rank.comm.rank() != 0) return;  // one text is enough
    std::fputs(options.prompt.c_str(), stdout);
    run::generate(run, options, rank, [](const std::string& piece) {
      std::fputs(piece.c_str(), stdout);
      std::fflush(stdout);
    });
    std::fputs("\n", stdout);
  });
}

int bench_step_command(const JobOptions& options, const run::BenchStepOptions& bench) {
  const run::Start start = run::start_with([&] { return options.load(); });
  return run::run_on_ranks(start, [&](run::RankContext& rank) { run::bench_step(*start.job, bench, rank); });
}

int run_program(int argc, char** argv) {
  CLI::App app(
      "Lockstep trains small and mid-size models data-parallel from one YAML file:\n"
      "  mpirun -n 8 lockstep train job.yaml");
  app.require_subcommand(1);
  app.set_version_flag("--version", "lockstep " LOCKSTEP_VERSION);
  int code = 0;
  JobOptions job;

  auto* train = app.add_subcommand("train", "train a job; under mpirun on all its ranks");
  std::string resume;
  job.add_to(train);
  train->add_option("--resume", resume,
                    "auto, never, the folder of a checkpoint, or of a run: its newest (default: run.resume)");
  train->callback([&] { code = train_command(job, resume); });

  auto* lr = app.add_subcommand("lr", "print the learning-rate schedule, update by update");
  std::int64_t updates = 0;
  std::string format = "text", plot;
  job.add_to(lr);
  lr->add_option("--updates", updates, "rows (default: run.steps)")->check(between<std::int64_t>(1, 100'000'000));
  lr->add_option("--format", format, "text, csv or json");
  lr->add_option("--plot", plot, "also write a picture: FILE.svg");
  lr->callback([&] { code = lr_command(job, updates, format, plot); });

  auto* config = app.add_subcommand("config", "check a job file and print what it means");
  ConfigOptions config_options;
  bool full = false, minimal = false, diff = false, reference = false, schema = false;
  job.add_to(config, false);
  config->add_flag("--full", full, "with the keys that have no value, as comments");
  config->add_flag("--minimal", minimal, "only what differs from the defaults");
  config->add_flag("--diff", diff, "one line for each difference from the defaults");
  config->add_flag("--reference", reference, "the reference page of all keys (no job file needed)");
  config->add_flag("--schema", schema, "the JSON Schema, for editors (no job file needed)");
  config->callback([&] {
    using Show = ConfigOptions::Show;
    config_options.job = job.path;
    config_options.overrides = job.overrides;
    config_options.show = reference ? Show::reference
                          : schema  ? Show::schema
                          : full    ? Show::full
                          : minimal ? Show::minimal
                          : diff    ? Show::diff
                                    : Show::effective;
    if (job.path.empty() && !reference && !schema)
      fail(ErrorKind::config, "config: give a job file, or --reference or --schema");
    code = config_command(config_options);
  });

  auto* explain = app.add_subcommand("explain", "say what a key of the job file means");
  std::string key;
  explain->add_option("key", key, "run.steps, scheduler, WarmupLR, ...")->required();
  explain->callback([&] { code = explain_command(key); });

  auto* generate = app.add_subcommand("generate", "continue a text with a trained run");
  std::string run_path;
  run::GenerateOptions generate_options;
  generate->add_option("run", run_path, "the run's folder")->required();
  generate->add_option("--prompt", generate_options.prompt, "text to continue");
  generate->add_option("--tokens", generate_options.tokens, "symbols to add")
      ->check(between<std::int64_t>(1, 1'000'000'000));
  generate->add_option("--temperature", generate_options.temperature, "0: always the likeliest")
      ->check(between(0.0, 1e6));
  generate->add_option("--top-k", generate_options.top_k, "choose among the k likeliest; 0: all")
      ->check(between<std::int64_t>(0, 1'000'000'000));
  generate->add_option("--seed", generate_options.seed, "of the drawing")
      ->check(between<std::int64_t>(0, std::numeric_limits<std::int64_t>::max()));
  generate->callback([&] { code = generate_command(run_path, generate_options); });

  auto* bench = app.add_subcommand("bench", "measure speed on this machine");
  bench->require_subcommand(1);
  auto* step = bench->add_subcommand("step", "whole training steps of a job, on random samples");
  run::BenchStepOptions bench_options;
  job.add_to(step);
  step->add_option("--steps", bench_options.steps, "timed steps")->check(between<std::int64_t>(1, 1'000'000));
  step->add_option("--warmup", bench_options.warmup, "steps before them")->check(between<std::int64_t>(0, 1'000'000));
  step->add_option("--classes", bench_options.classes,
                   "symbols of the random data; the job's data file is then not read")
      ->check(between(2, 10'000'000));
  step->callback([&] { code = bench_step_command(job, bench_options); });

  std::vector<std::string> commands;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(command->get_name());
  if (argc > 1 && argv[1][0] != '-' && std::find(commands.begin(), commands.end(), argv[1]) == commands.end()) {
    const std::string meant = config::nearest(argv[1], commands);
    fail(ErrorKind::config, "lockstep: unknown command '{}'{}; commands: {}", argv[1],
         meant.empty() ? "" : fmt::format(", did you mean '{}'?", meant), fmt::join(commands, ", "));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Help and version print to stdout and are no errors.
    if (error.get_exit_code() == 0) {
      if (run::launcher_rank() == 0) (void)app.exit(error);
      return 0;
    }
    std::ostringstream text;
    (void)app.exit(error, text, text);
    std::string message = text.str();
    while (message.ends_with('\n')) message.pop_back();
    throw Error(ErrorKind::config, message);
  }
  return code;
}

/// Tells of a command that cannot start. Ranks of one job tell it together: once, if all of them meet it.
int tell(int argc, char** argv, const Error& error) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  const bool on_ranks = command == "train" || command == "bench";
  if (on_ranks && run::under_launcher())
    return run::run_on_ranks({.job = {}, .options = {}, .failure = Failure{error.kind(), error.what()}}, {});
  log::write(log::Level::error, error.what(), log::Form::bare);
  return exit_code(error.kind());
}

bool computes(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  return command == "train" || command == "bench" || command == "generate";
}

/// A command whose result is what it prints has failed if that could not be written. Training goes on without a reader,
/// and one that has seen enough (`| head`) is no failure.
int flush_result(int argc, char** argv, int code) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (code != 0 || command == "train") return code;
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  const int reason = errno;
  pollfd output{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
  if (poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0) return code;
  log::error("the result could not be written to standard output{}{}", reason != 0 ? ": " : "",
             reason != 0 ? std::strerror(reason) : "");
  return exit_code(ErrorKind::environment);
}

}  // namespace

int main(int argc, char** argv) {
  if (computes(argc, argv)) run::bound_thread_waits(argv);
  run::secure_standard_streams();
  try {
    return flush_result(argc, argv, run_program(argc, argv));
  } catch (const Error& error) {
    return tell(argc, argv, error);
  } catch (const std::exception& error) {
    log::error("internal error: {}", error.what());
    return exit_code(ErrorKind::internal);
  }
}
