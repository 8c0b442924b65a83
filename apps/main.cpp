#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <utility>

#include "apps/arguments.hpp"
#include "apps/bench_command.hpp"
#include "apps/command_pages.hpp"
#include "apps/config_command.hpp"
#include "apps/data_command.hpp"
#include "apps/explain_command.hpp"
#include "apps/import_command.hpp"
#include "apps/init_command.hpp"
#include "apps/lr_command.hpp"
#include "apps/lr_curve.hpp"
#include "apps/lr_find_command.hpp"
#include "apps/preview_command.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "core/utf8.hpp"
#include "job/job.hpp"
#include "run/checkpoint_tools.hpp"
#include "run/compare.hpp"
#include "run/doctor.hpp"
#include "run/generate.hpp"
#include "run/hf_import.hpp"
#include "run/hf_model.hpp"
#include "run/launch.hpp"
#include "run/launcher.hpp"
#include "run/rehearsal.hpp"
#include "run/report.hpp"
#include "run/thread_waits.hpp"
#include "run/trainer.hpp"

namespace {

using namespace lockstep;

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
  const std::int64_t most = most_updates(job.parameter_groups.size() + 1);
  request.updates = updates > 0 ? updates : std::min(job.run.steps, most);
  request.format = parse_lr_format(format);
  if (!plot.empty()) request.plot = plot;
  for (std::size_t g = 0; g <= job.parameter_groups.size(); ++g)
    request.group_names.push_back(
        g == 0 ? "group 0 (the rest)"
               : fmt::format("group {} ({})", g, fmt::join(job.parameter_groups[g - 1].match, ", ")));
  const std::string report = lr_report(*loaded.schedule, request);
  std::fwrite(report.data(), 1, report.size(), stdout);
  if (updates == 0 && job.run.steps > most)
    log::warning("only the first {} of run.steps {} are shown", with_separators(most), with_separators(job.run.steps));
  return 0;
}

int lr_find_command(const JobOptions& options, const run::LrFindOptions& sweep, const std::string& plot) {
  if (!plot.empty()) require_svg(plot);
  if (sweep.to <= sweep.from) fail(ErrorKind::config, "lr-find: --to {} is not above --from {}", sweep.to, sweep.from);
  LrFindRequest request{.job = options.path, .overrides = options.overrides};
  if (!plot.empty()) request.plot = plot;
  const run::Start start = run::start_with([&] { return options.load(); },
                                           {fmt::format("lr-find: {} to {} in {}, divergence {}, resume {}", sweep.from,
                                                        sweep.to, sweep.steps, sweep.divergence, sweep.resume)});
  return run::run_on_ranks(start, [&](run::RankContext& rank) {
    const run::LrFound found = run::find_lr(*start.job, sweep, rank);
    if (rank.comm.rank() != 0) return;
    const std::string report = lr_find_report(found, sweep, request);
    std::fwrite(report.data(), 1, report.size(), stdout);
  });
}

int generate_command(const std::string& run, const run::GenerateOptions& options) {
  const run::Start place = run::start_with([] { return job::LoadedJob(); });  // one rank, all CPUs
  return run::run_on_ranks(place, [&](run::RankContext& rank) {
    if (rank.comm.rank() != 0) return;  // one text is enough
    Utf8Stream shown;                   // a model of bytes is free to write what no terminal can show
    const auto show = [](const std::string& text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    };
    bool begun = false;  // the prompt comes with the first new piece: by then nothing is left to be refused
    run::generate(run, options, rank, [&](const std::string& piece) {
      if (!std::exchange(begun, true)) show(shown.push(options.prompt));
      show(shown.push(piece));
    });
    show(shown.finish() + "\n");
  });
}

int drill_command(const JobOptions& job, run::RehearsalOptions options, const std::optional<std::uint64_t>& seed) {
  options.job = job.path;
  options.overrides = job.overrides;
  options.seed = seed ? *seed : std::random_device()();
  options.say = [](const std::string& line) {
    fmt::print("{}\n", line);
    std::fflush(stdout);
  };
  const run::Rehearsal rehearsal = run::rehearse(options);
  fmt::print("{}", run::to_text(rehearsal));
  return rehearsal.passed() ? 0 : 1;
}

int report_command(const std::string& run, const std::string& output) {
  const std::string text = run::write_report(run, output);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

/// Like cmp: 0 for the same losses, 1 for others.
int compare_command(const std::string& a, const std::string& b) {
  const run::Comparison comparison = run::compare_runs(a, b);
  std::fwrite(comparison.text.data(), 1, comparison.text.size(), stdout);
  return comparison.same ? 0 : 1;
}

/// Prints what is said of checkpoints; `otherwise` is the exit code where not all is as it should be.
int report_command(const run::CheckpointReport& report, int otherwise) {
  std::fwrite(report.text.data(), 1, report.text.size(), stdout);
  return report.good ? 0 : otherwise;
}

int export_hf_command(const std::string& source, const std::string& folder) {
  const std::string report = run::export_hf(source, folder);
  std::fwrite(report.data(), 1, report.size(), stdout);
  return 0;
}

int import_hf_command(const std::string& folder, const JobOptions& options, std::int64_t ranks) {
  const run::Start place = run::start_with([] { return job::LoadedJob(); });  // one rank, all CPUs
  return run::run_on_ranks(place, [&](run::RankContext& rank) {
    if (rank.comm.rank() != 0) return;
    const std::string report = run::import_hf(folder, options.path, options.overrides, ranks, rank);
    std::fwrite(report.data(), 1, report.size(), stdout);
  });
}

/// The program's commands, bound to what they do. One of them runs while `app` parses.
class Commands {
 public:
  explicit Commands(CLI::App& app) {
    app.require_subcommand(1);
    app.set_version_flag("--version", "lockstep " LOCKSTEP_VERSION);
    add_examples(app, "mpirun -n 2 lockstep train job.yaml", "lockstep train --help");
    add_init(app);
    add_train(app);
    add_drill(app);
    add_lr(app);
    add_lr_find(app);
    add_preview(app);
    add_config(app);
    add_explain(app);
    add_import(app);
    add_generate(app);
    add_data(app);
    add_ckpt(app);
    add_report(app);
    add_compare(app);
    bench_.emplace(app, [this](int code) { code_ = code; });
    add_doctor(app);
    add_pages(app);
  }
  [[nodiscard]] int code() const { return code_; }

 private:
  void add_init(CLI::App& app) {
    auto* init = app.add_subcommand("init", "write a commented job file to start from");
    init->add_option("name", name_, "which one (without: lists them)");
    init->add_option("folder", folder_, "where job.yaml goes")->capture_default_str();
    init->callback([&] { code_ = init_command(name_, folder_); });
    add_examples(*init, "lockstep init gpt-char my_gpt", "lockstep init classifier first_try");
  }

  void add_doctor(CLI::App& app) {
    auto* doctor =
        app.add_subcommand("doctor", "look at this machine: what training needs, and how to mend what is missing");
    doctor->callback([&] {
      const std::vector<run::Finding> findings = run::examine();
      show(run::to_text(findings));
      code_ = run::exit_code_of(findings);
    });
    add_examples(*doctor, "lockstep doctor", "lockstep doctor > machine.txt");
  }

  void add_pages(CLI::App& app) {
    auto* completion = app.add_subcommand(
        "completion", "print a script that completes lockstep's words in a shell: source <(lockstep completion bash)");
    completion->add_option("shell", shell_, "bash, zsh or fish")->required();
    completion->callback([&] { show(completion_script(app, shell_)); });
    add_examples(*completion, "lockstep completion bash > lockstep.bash", "lockstep completion fish > lockstep.fish");
    auto* manual = app.add_subcommand("man", "print the manual page, as roff: lockstep man | man -l -");
    manual->callback([&] { show(manual_page(app, LOCKSTEP_VERSION)); });
    add_examples(*manual, "lockstep man > lockstep.1", "lockstep man");
  }

  static void show(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

  void add_train(CLI::App& app) {
    auto* train = app.add_subcommand("train", "train a job; under mpirun on all its ranks");
    job_.add_to(train);
    train->add_option("--resume", resume_,
                      "auto, never, the folder of a checkpoint, or of a run: its newest (default: run.resume)");
    train->callback([&] { code_ = train_command(job_, resume_); });
    add_examples(*train, "lockstep train job.yaml",
                 "mpirun -n 2 lockstep train job.yaml --set run.steps=100 --resume never");
  }

  void add_drill(CLI::App& app) {
    auto* drill =
        app.add_subcommand("drill",
                           "rehearse crashes of a job on this file system: kill it, go on, compare; exit code "
                           "0: as if nothing had happened, 1: not");
    job_.add_to(drill);
    drill->add_option("--kills", rehearsal_.kills, "SIGKILLs of a rank or of mpirun")
        ->capture_default_str()
        ->check(between<std::int64_t>(1, 1'000'000));
    drill->add_option("-n,--ranks", rehearsal_.ranks, "ranks, on this host")
        ->capture_default_str()
        ->check(between(1, 10'000));
    drill->add_option("--seed", seed_, "of the moments (default: another each time; it is printed)")
        ->check(between<std::uint64_t>(0, std::numeric_limits<std::uint64_t>::max()));
    drill->add_option("--dir", rehearsal_.folder,
                      "a folder that does not exist yet, for both runs; removed if all is well (default: the run's "
                      "folder with .drill behind it)");
    drill->callback([&] { code_ = drill_command(job_, rehearsal_, seed_); });
    add_examples(*drill, "lockstep drill job.yaml --kills 4", "lockstep drill job.yaml -n 4 --kills 4 --dir rehearsal");
  }

  void add_lr(CLI::App& app) {
    auto* lr = app.add_subcommand("lr", "print the learning-rate schedule, update by update");
    job_.add_to(lr);
    lr->add_option("--updates", updates_, "rows (default: run.steps)")
        ->check(between<std::int64_t>(1, most_updates(1)));
    lr->add_option("--format", format_, "text, csv or json")->capture_default_str();
    lr->add_option("--plot", plot_, "also write a picture, as SVG: NAME.svg");
    lr->callback([&] { code_ = lr_command(job_, updates_, format_, plot_); });
    add_examples(*lr, "lockstep lr job.yaml --plot lr.svg", "lockstep lr job.yaml --updates 50 --format csv");
  }

  void add_lr_find(CLI::App& app) {
    auto* find = app.add_subcommand("lr-find", "try rising learning rates on a job, and suggest one; changes nothing");
    job_.add_to(find);
    find->add_option("--from", sweep_.from, "the first rate (default: 1e-7)")->check(between(1e-30, 1e30));
    find->add_option("--to", sweep_.to, "the last rate (default: 10)")->check(between(1e-30, 1e30));
    find->add_option("--steps", sweep_.steps, "updates between them (default: 100)")
        ->check(between<std::int64_t>(10, 10'000));
    find->add_option("--divergence", sweep_.divergence,
                     "stop at this many times the smallest loss, smoothed (default: 4)")
        ->check(between(1.1, 1e6));
    find->add_option(
        "--resume", sweep_.resume,
        "begin with the parameters of a checkpoint: its folder, or a run's (default: the job's own start)");
    find->add_option("--plot", plot_, "also write a picture, as SVG: NAME.svg");
    find->callback([&] { code_ = lr_find_command(job_, sweep_, plot_); });
    add_examples(*find, "lockstep lr-find job.yaml --plot find.svg",
                 "mpirun -n 2 lockstep lr-find job.yaml --from 1e-5 --steps 60");
  }

  void add_preview(CLI::App& app) {
    auto* preview =
        app.add_subcommand("preview", "say what a job will take on so many ranks: memory, bytes, time, rates");
    job_.add_to(preview);
    preview->add_option("-n,--ranks", ranks_, "for N ranks on this machine, as mpirun -n N starts them")
        ->check(between<std::int64_t>(1, 100'000));
    preview->add_flag("--json", json_, "the numbers as one JSON object");
    preview->callback([&] { code_ = preview_command(job_.load(), ranks_, json_); });
    add_examples(*preview, "lockstep preview job.yaml -n 4", "lockstep preview job.yaml --json");
  }

  void add_config(CLI::App& app) {
    auto* config = app.add_subcommand("config", "check a job file and print what it means");
    job_.add_to(config, false);
    using Show = ConfigOptions::Show;
    const auto add = [&](Show show, const char* flag, const char* doc) {
      config->add_flag_callback(
          flag, [this, show, flag] { shown_.emplace_back(show, flag); }, doc);
    };
    add(Show::full, "--full", "with the keys that have no value, as comments");
    add(Show::minimal, "--minimal", "only what differs from the defaults");
    add(Show::diff, "--diff", "one line for each difference from the defaults");
    add(Show::reference, "--reference", "the reference page of all keys (no job file needed)");
    add(Show::schema, "--schema", "the JSON Schema, for editors (no job file needed)");
    config
        ->add_option("-n,--ranks", ranks_,
                     "check the job for N ranks, as mpirun -n N starts them (default: comm.ranks)")
        ->check(between<std::int64_t>(1, 1'000'000));
    config->callback([&] { code_ = config_command(config_options()); });
    add_examples(*config, "lockstep config job.yaml --diff", "lockstep config job.yaml -n 8 --set run.steps=50");
  }

  [[nodiscard]] ConfigOptions config_options() const {
    using Show = ConfigOptions::Show;
    for (const auto& [show, flag] : shown_)
      if (show != shown_[0].first)
        fail(ErrorKind::config, "config: {} and {} are two ways to show a job; give one of them", shown_[0].second,
             flag);
    const Show show = shown_.empty() ? Show::effective : shown_[0].first;
    if (job_.path.empty() && show != Show::reference && show != Show::schema)
      fail(ErrorKind::config, "config: give a job file, or --reference or --schema");
    return {.job = job_.path, .overrides = job_.overrides, .show = show, .ranks = ranks_};
  }

  void add_explain(CLI::App& app) {
    auto* explain = app.add_subcommand("explain", "say what a key of the job file means");
    explain->add_option("key", key_, "run.steps, scheduler, WarmupLR, ...")->required();
    explain->callback([&] { code_ = explain_command(key_); });
    add_examples(*explain, "lockstep explain train_batch_size", "lockstep explain WarmupCosineLR");
  }

  void add_generate(CLI::App& app) {
    auto* generate = app.add_subcommand("generate", "continue a text with a trained run");
    generate->add_option("run", run_, "the run's folder")->required();
    generate->add_option("--prompt", generate_.prompt, "text to continue");
    generate->add_option("--tokens", generate_.tokens, "symbols to add")
        ->capture_default_str()
        ->check(between<std::int64_t>(1, 1'000'000'000));
    generate->add_option("--temperature", generate_.temperature, "0: always the likeliest")
        ->capture_default_str()
        ->check(between(0.0, 1e6));
    generate->add_option("--top-k", generate_.top_k, "choose among the k likeliest; 0: all")
        ->capture_default_str()
        ->check(between<std::int64_t>(0, 1'000'000'000));
    generate->add_option("--seed", generate_.seed, "of the drawing")
        ->capture_default_str()
        ->check(between<std::int64_t>(0, std::numeric_limits<std::int64_t>::max()));
    generate->callback([&] { code_ = generate_command(run_, generate_); });
    add_examples(*generate, "lockstep generate runs/job --prompt 'And God said'",
                 "lockstep generate runs/job --tokens 100 --temperature 0.5 --seed 7");
  }

  void add_import(CLI::App& app) {
    auto* imported =
        app.add_subcommand("import", "print a DeepSpeed configuration as a job file, with what became of each key");
    imported->add_option("file", import_, "DeepSpeed configuration (JSON or Hjson)")->required();
    imported->add_option("--set", job_.overrides, "override a field: --set train_batch_size=32 (repeatable)")
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    imported->callback([&] { code_ = import_command(import_, job_.overrides); });
    add_examples(*imported, "lockstep import ds_config.json > imported.yaml",
                 "lockstep import ds_config.json --set train_batch_size=32 --set run.steps=500");
  }

  void add_report(CLI::App& app) {
    auto* report = app.add_subcommand("report", "write a run's losses, rates and settings as one HTML page");
    report->add_option("run", run_, "the run's folder")->required();
    report->add_option("--output", output_, "where to write (default: RUN/report.html)");
    report->callback([&] { code_ = report_command(run_, output_); });
    add_examples(*report, "lockstep report runs/job", "lockstep report runs/job --output job.html");
  }

  void add_compare(CLI::App& app) {
    auto* compare = app.add_subcommand("compare",
                                       "two runs side by side: settings, ends, the first step with another loss; exit "
                                       "code 0: the same bits, 1: others");
    compare->add_option("a", run_, "a run's folder")->required();
    compare->add_option("b", other_run_, "another's")->required();
    compare->callback([&] { code_ = compare_command(run_, other_run_); });
    add_examples(*compare, "lockstep compare runs/job runs/other",
                 "lockstep compare runs/job runs/other > differences.txt");
  }

  void add_ckpt(CLI::App& app) {
    auto* ckpt = app.add_subcommand("ckpt", "work with checkpoints");
    ckpt->require_subcommand(1);
    auto* hf =
        ckpt->add_subcommand("export-hf", "write a GPT-2's weights in Hugging Face's form (model.init_from reads it)");
    hf->add_option("source", run_, "a run's folder (its newest checkpoint), or a checkpoint")->required();
    hf->add_option("folder", folder_, "a folder that does not exist yet")->required();
    hf->callback([this] { code_ = export_hf_command(run_, folder_); });
    auto* import_hf = ckpt->add_subcommand(
        "import-hf", "make a run of a job that begins with the weights of a GPT-2 in Hugging Face's form");
    import_hf->add_option("folder", folder_, "a folder with config.json and model.safetensors")->required();
    job_.add_to(import_hf);
    import_hf
        ->add_option("-n,--ranks", ranks_,
                     "the micro-batch is that of N ranks, where the job leaves it to their number")
        ->check(between<std::int64_t>(1, 100'000));
    import_hf->callback([this] { code_ = import_hf_command(folder_, job_, ranks_); });
    add_examples(*import_hf, "lockstep ckpt import-hf gpt2 job.yaml",
                 "lockstep ckpt import-hf gpt2 job.yaml -n 4 --set run.name=fine");
    auto* prune = ckpt->add_subcommand("prune", "remove a run's older checkpoints");
    prune->add_option("run", run_, "a run's folder")->required();
    prune->add_option("--keep-last", keep_.last, "the newest N that are whole stay")
        ->required()
        ->check(between<std::int64_t>(1, 1'000'000));
    prune->add_option("--keep-every", keep_.every, "steps that are multiples of K stay too")
        ->check(between<std::int64_t>(1, 1'000'000'000));
    prune->add_flag("--dry-run", keep_.only_tell, "say what would be removed, and remove nothing");
    prune->callback(
        [this] { code_ = report_command(run::prune_checkpoints(run_, keep_), exit_code(ErrorKind::checkpoint)); });
    add_examples(*prune, "lockstep ckpt prune runs/job --keep-last 2 --dry-run",
                 "lockstep ckpt prune runs/job --keep-last 1 --keep-every 1000");
    const auto look = [&](const char* name, const char* what, auto report) {
      auto* command = ckpt->add_subcommand(name, what);
      command->add_option("source", run_, "a run's folder (all its checkpoints), or a checkpoint")->required();
      command->callback([this, report] { code_ = report_command(report(run_), exit_code(ErrorKind::checkpoint)); });
      add_examples(*command, "lockstep ckpt " + std::string(name) + " runs/job",
                   "lockstep ckpt " + std::string(name) + " runs/job/checkpoints/step-200");
    };
    look("ls", "a run's checkpoints, by their manifests", run::list_checkpoints);
    look("verify", "read every byte of a run's checkpoints; exit code 0: all are whole, 4: not all",
         run::verify_checkpoints);
    auto* diff =
        ckpt->add_subcommand("diff", "two checkpoints tensor by tensor; exit code 0: the same bits, 1: others");
    diff->add_option("a", run_, "a checkpoint")->required();
    diff->add_option("b", other_run_, "another")->required();
    diff->callback([this] { code_ = report_command(run::diff_checkpoints(run_, other_run_), 1); });
    add_examples(*diff, "lockstep ckpt diff runs/a/checkpoints/step-200 runs/b/checkpoints/step-200",
                 "lockstep ckpt diff runs/a/checkpoints/step-200 runs/b/checkpoints/step-200 > differences.txt");
    for (CLI::App* command : {ckpt, hf})
      add_examples(*command, "lockstep ckpt export-hf runs/job gpt2-mine",
                   "lockstep ckpt export-hf runs/job/checkpoints/step-200 gpt2-mine");
  }

  void add_data(CLI::App& app) {
    auto* data = app.add_subcommand("data", "look at data, check a job's, write token shards");
    data->require_subcommand(1);
    const auto print = [this](const std::string& text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      code_ = 0;
    };
    auto* ls = data->add_subcommand("ls", "say what files hold");
    ls->add_option("paths", paths_, "files or folders")->required();
    ls->callback([=, this] { print(data_ls(paths_)); });
    auto* check = data->add_subcommand("check", "read a job's data in full, as training would");
    job_.add_to(check);
    check->callback([=, this] { print(data_check(job_.load())); });
    auto* tokenize = data->add_subcommand("tokenize", "write a text as token shards, with GPT-2's tokenizer");
    tokenize->add_option("text", tokenize_.input, "a text file, UTF-8")->required();
    tokenize->add_option("output", tokenize_.output, "a folder; train/ and val/ are made in it")->required();
    tokenize->add_option("--vocab", tokenize_.vocab, "vocab.json")->required();
    tokenize->add_option("--merges", tokenize_.merges, "merges.txt")->required();
    tokenize->add_option("--validation-fraction", tokenize_.validation_fraction, "the last part of the text")
        ->check(between(0.0, 0.999999));
    tokenize->add_option("--shard-tokens", tokenize_.shard_tokens, "tokens a file at most")
        ->check(between<std::int64_t>(1, 2'000'000'000));
    tokenize->add_flag("--end-of-text", tokenize_.end_of_text, "begin each part with <|endoftext|>");
    tokenize->callback([=, this] { print(data_tokenize(tokenize_)); });
    add_examples(*data, "lockstep data ls /usr/share/datasets/fashion-mnist", "lockstep data check job.yaml");
    add_examples(*ls, "lockstep data ls /usr/share/datasets/fashion-mnist", "lockstep data ls corpus.txt");
    add_examples(*check, "lockstep data check job.yaml", "lockstep data check job.yaml --set data.path=other.txt");
    add_examples(
        *tokenize, "lockstep data tokenize corpus.txt shards --vocab vocab.json --merges merges.txt",
        "lockstep data tokenize corpus.txt shards --vocab vocab.json --merges merges.txt --validation-fraction 0");
  }

  int code_ = 0;
  JobOptions job_;
  std::string resume_, format_ = "text", plot_, key_, run_, name_, folder_ = ".", shell_, other_run_, import_, output_;
  std::int64_t updates_ = 0, ranks_ = 0;
  bool json_ = false;
  std::vector<std::pair<ConfigOptions::Show, std::string>> shown_;
  run::GenerateOptions generate_;
  run::RehearsalOptions rehearsal_;
  std::optional<std::uint64_t> seed_;
  std::optional<BenchCommand> bench_;
  run::Keep keep_;
  run::LrFindOptions sweep_;
  std::vector<std::string> paths_;
  TokenizeOptions tokenize_;
};

struct Ending {
  int code;
  bool has_result;  ///< what was printed is what was asked for
};

/// For somebody who types the program's name to see what it is.
constexpr const char* welcome =
    "Lockstep trains small and mid-size models data-parallel from one YAML file. To start with:\n"
    "  lockstep init gpt-char               writes a commented job.yaml\n"
    "  mpirun -n 2 lockstep train job.yaml  trains it on two ranks\n"
    "  lockstep doctor                      looks at this machine\n"
    "All commands: lockstep --help\n";

Ending run_program(int argc, char** argv) {
  if (argc == 1) {
    if (run::launcher_rank() == 0) fmt::print("{}", welcome);
    return {0, true};
  }
  CLI::App app("Lockstep trains small and mid-size models data-parallel from one YAML file.");
  Commands commands(app);
  const std::vector<std::string> words(argv + 1, argv + argc);
  require_known_command(app, words);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Help and version print to stdout and are no errors.
    if (error.get_exit_code() == 0) {
      if (run::launcher_rank() == 0) (void)app.exit(error);
      return {0, true};
    }
    throw Error(ErrorKind::config, complaint(app, error, words));
  }
  return {commands.code(), !app.got_subcommand("train")};
}

/// Tells of a command that cannot start. Ranks of one job tell it together: once, if all of them meet it.
int tell(int argc, char** argv, const Error& error) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  const bool on_ranks = command == "train" || command == "bench" || command == "lr-find";
  if (on_ranks && run::under_launcher())
    return run::run_on_ranks({.job = {}, .options = {}, .failure = Failure{error.kind(), error.what()}}, {});
  log::write(log::Level::error, error.what(), log::Form::bare);
  return exit_code(error.kind());
}

bool computes(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  return command == "train" || command == "bench" || command == "lr-find" || command == "generate";
}

/// A command whose result is what it prints has failed if that could not be written. Training goes on without a reader,
/// and one that has seen enough (`| head`) is no failure.
int flush_result(const Ending& ending) {
  if (ending.code != 0 || !ending.has_result) return ending.code;
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return ending.code;
  const int reason = errno;
  pollfd output{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
  if (poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0) return ending.code;
  log::error("the result could not be written to standard output{}{}", reason != 0 ? ": " : "",
             reason != 0 ? std::strerror(reason) : "");
  return exit_code(ErrorKind::environment);
}

}  // namespace

int main(int argc, char** argv) {
  if (computes(argc, argv)) run::bound_thread_waits(argv);
  run::secure_standard_streams();
  try {
    return flush_result(run_program(argc, argv));
  } catch (const Error& error) {
    return tell(argc, argv, error);
  } catch (const std::exception& error) {
    log::error("internal error: {}", error.what());
    return exit_code(ErrorKind::internal);
  }
}
