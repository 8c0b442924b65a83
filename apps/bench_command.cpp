#include "apps/bench_command.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "apps/arguments.hpp"
#include "run/launch.hpp"
#include "run/launcher.hpp"

namespace lockstep {

namespace {

constexpr std::int64_t most = std::int64_t{1} << 40;

auto number(std::int64_t low) { return between<std::int64_t>(low, most); }

}  // namespace

BenchCommand::BenchCommand(CLI::App& app, std::function<void(int)> done) : done_(std::move(done)) {
  auto* bench = app.add_subcommand("bench", "measure speed on this machine, beside the machine's own limits");
  bench->require_subcommand(1);
  auto* optimizer = add(*bench, "optimizer", "Adam, SGD and the gradient norm, against memory bandwidth",
                        "--elements 10000000", {"optimizer"});
  auto* reduce = add(*bench, "allreduce", "sums over the ranks, against a copy of the same buffer",
                     "--ranks 2 --bytes 1048576", {"allreduce"});
  auto* update = add(*bench, "update", "ranks of one host: gradients summed, their norm, AdamW",
                     "--ranks 2 --elements 10000000", {"update"});
  auto* gemm =
      add(*bench, "gemm", "the matrix products of a GPT-2 step, against a large one", "--tokens 512", {"gemm"});
  auto* attention = add(*bench, "attention", "causal attention, against a large product",
                        "--batch 8 --length 256 --heads 6", {"attention"});
  auto* step = add(*bench, "step", "whole training steps of a job, on random samples", "job.yaml", {"step"});
  step->add_option("job", job_, "job file (default: GPT-2 124M in bf16)");
  auto* all = add(*bench, "all", "all of them in turn", "--json all.json", run::bench::bench_names());
  for (CLI::App* command : {optimizer, update, all}) add_optimizer_sizes(*command);
  for (CLI::App* command : {reduce, all}) add_all_reduce_sizes(*command);
  for (CLI::App* command : {gemm, all}) add_gemm_sizes(*command);
  for (CLI::App* command : {attention, all}) add_attention_sizes(*command);
  for (CLI::App* command : {step, all}) add_step_sizes(*command);
  for (CLI::App* command : {gemm, attention, step, all})
    command
        ->add_option("--peak", peak_, "edge of the large products that are the ceiling (default: 2048, on a GPU 8192)")
        ->check(between<std::int64_t>(1, 100'000));
  add_scaling(*bench);
  add_examples(*bench, "lockstep bench step job.yaml --samples 5",
               "mpirun -n 2 lockstep bench allreduce --bytes 1048576");
}

void BenchCommand::add_optimizer_sizes(CLI::App& command) {
  command.add_option("--elements", options_.optimizer.elements, "parameters (default: GPT-2 124M's)")->check(number(1));
  command
      .add_option("--copy-bytes", options_.optimizer.copy_bytes, "of the copy that is a GPU's ceiling (default: 4 GiB)")
      ->check(number(4));
}

void BenchCommand::add_all_reduce_sizes(CLI::App& command) {
  command.add_option("--bytes", options_.all_reduce.bytes, "of the buffer (repeatable; default: 64 KiB to 475 MiB)")
      ->check(number(4));
}

void BenchCommand::add_gemm_sizes(CLI::App& command) {
  command.add_option("--tokens", options_.gemm.tokens, "rows (default: 1024, on a GPU 65536)")->check(number(1));
  command.add_option("--width", options_.gemm.width, "n_embd")->check(number(1));
  command.add_option("--vocabulary", options_.gemm.vocabulary, "columns of the head")->check(number(1));
}

void BenchCommand::add_attention_sizes(CLI::App& command) {
  command.add_option("--batch", options_.attention.batch, "samples (default: 4, on a GPU 64)")->check(number(1));
  command.add_option("--length", options_.attention.length, "positions of a sample")->check(number(1));
  command.add_option("--heads", options_.attention.heads, "attention heads")->check(number(1));
  command.add_option("--head-size", options_.attention.head_size, "columns of a head")->check(number(1));
}

void BenchCommand::add_step_sizes(CLI::App& command) {
  command
      .add_option("--classes", options_.step.classes,
                  "symbols of the step's random data; the job's data file is then not read")
      ->check(between(2, 10'000'000));
}

void BenchCommand::add_scaling(CLI::App& bench) {
  auto* scaling = bench.add_subcommand(
      "scaling", "predict a job's step on more ranks than there are, from what one and two of them take");
  scaling->add_option("job", job_, "job file")->required();
  scaling->add_flag("--simulate", simulate_, "no rank is started elsewhere: steps are worked out")->required();
  scaling->add_option("--at", at_, "numbers of ranks (repeatable; default: 1, 2, 4, 8, 64 and 1024)")
      ->check(between(1, 1'000'000));
  scaling->add_option("--compute-ms", scaling_.compute_ms, "a step of one rank alone (default: measured here)")
      ->check(between(1e-6, 1e9));
  scaling->add_option("--latency-us", scaling_.latency_us, "of a message (default: measured here)")
      ->check(between(1e-6, 1e9));
  scaling->add_option("--gigabytes-per-s", scaling_.gigabytes_per_s, "that a rank sends (default: measured here)")
      ->check(between(1e-6, 1e9));
  scaling->add_option("--samples", scaling_.samples, "steps measured at each number of ranks")
      ->check(between(3, 1'000'000));
  scaling->add_option("--set", set_, "override a field of the job (repeatable)")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  scaling->callback([this] {
    if (!at_.empty()) scaling_.ranks = at_;
    const std::string text = run::scaling_report(load(), scaling_);
    std::fwrite(text.data(), 1, text.size(), stdout);
    done_(0);
  });
  add_examples(
      *scaling, "lockstep bench scaling job.yaml --simulate --samples 3",
      "lockstep bench scaling job.yaml --simulate --compute-ms 100 --latency-us 10 --gigabytes-per-s 50 --at 64");
}

CLI::App* BenchCommand::add(CLI::App& bench, const std::string& name, const std::string& doc,
                            const std::string& example, std::vector<std::string> what) {
  auto* command = bench.add_subcommand(name, doc);
  run::bench::Sampling& sampling = options_.sampling;
  command->add_option("--json", options_.json_path, "also write everything, samples included: NAME.json");
  command->add_option("--device", device_, "auto, cpu or cuda")->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command->add_option("--threads", threads_, "of each rank (default: the host's CPUs divided by its ranks)")
      ->check(between<std::int64_t>(1, 4096));
  command->add_option("--ranks", ranks_, "threads as ranks; with mpirun, its -n says it")
      ->check(between<std::int64_t>(1, 1024));
  command
      ->add_option(
          "--set", set_,
          "override a field of the job: --set comm.backend=nccl; of the step's model and batch too (repeatable)")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--samples", sampling.samples, "undisturbed samples of each line")->check(between(1, 1'000'000));
  command->add_option("--seconds", sampling.seconds, "after so long disturbed samples are no longer replaced")
      ->check(between(0.0, 1e6));
  command
      ->add_option("--most-waited", sampling.most_waited,
                   "share of a sample's time that others may take before it counts as disturbed")
      ->check(between(0.0, 1e9));
  command->callback([this, what = std::move(what)] { done_(run(what)); });
  add_examples(*command, fmt::format("lockstep bench {} {}", name, example),
               fmt::format("mpirun -n 2 lockstep bench {} {}", name, example));
  return command;
}

std::vector<std::string> BenchCommand::overrides() const {
  std::vector<std::string> overrides = set_;
  if (!device_.empty()) overrides.push_back("run.device=" + device_);
  if (threads_ > 0) overrides.push_back(fmt::format("run.threads={}", threads_));
  if (ranks_ > 0) overrides.push_back(fmt::format("comm.ranks={}", ranks_));
  return overrides;
}

job::LoadedJob BenchCommand::load() const {
  if (job_.empty()) return run::bench::usual_step_job(true, overrides());
  job::LoadedJob job = job::load_job(job_, overrides());
  if (run::launcher_rank() == 0)
    for (const std::string& warning : job.warnings) fmt::print(stderr, "{}\n", warning);
  return job;
}

int BenchCommand::run(const std::vector<std::string>& what) {
  const run::Start start = run::start_with([&] { return load(); });
  options_.what = what;
  options_.gemm.peak = options_.attention.peak = options_.step.peak = peak_;
  options_.overrides = overrides();
  options_.job = job_.empty() || !start.job ? nullptr : &*start.job;
  return run::run_on_ranks(start, [&](run::RankContext& rank) { run::bench::run_benches(rank, options_); });
}

}  // namespace lockstep
