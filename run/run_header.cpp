#include "run/run_header.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "core/isa.hpp"
#include "core/log.hpp"
#include "core/text.hpp"
#include "run/run_folder.hpp"

namespace lockstep::run {
namespace {

void print_changes(const RunState& from, const job::JobConfig& job) {
  for (const std::string& line : differing_lines(from.job, job::effective_yaml(job)))
    log::print("          changed since: {}\n", printable(line));
}

void print_resume(const RunParts& parts) {
  const RunState& from = parts.beginning.manifest->state;
  const engine::Engine& engine = parts.engine;
  log::print("resume    from {}: step {}, {} updates, lr {}, loss scale {}\n", printable(parts.beginning.checkpoint),
             from.step.attempted, from.step.applied, engine.lr().front(), from.step.scale);
  print_changes(from, parts.job.config);
  const std::string isa(to_string(current_isa()));
  const int ranks = parts.rank.comm.size(), threads = parts.rank.place.threads;
  if (from.world == ranks && from.threads == threads && from.isa == isa) return;
  const bool invariant = parts.job.config.run.determinism == "invariant" && from.isa == isa &&
                         from.job.find("determinism: invariant") != std::string::npos;
  log::print(
      "          written by {} ranks x {} threads, {}; now {} x {}, {}: {}\n", from.world, from.threads,
      printable(from.isa), ranks, threads, isa,
      invariant ? "determinism invariant goes on with the same bits" : "the same up to rounding, not to the bit");
}

}  // namespace

void print_run_header(const RunParts& parts) {
  const engine::Engine& engine = parts.engine;
  const nn::Plan& plan = engine.plan();
  const sched::Schedule& schedule = *engine.options().schedule;
  const std::int64_t first = parts.beginning.first_step();
  const std::size_t packed = engine.packed_weight_bytes();
  const std::vector<std::string> keys = job::deepspeed_lines(parts.job);
  for (const std::string& line : keys) log::print("{}{}\n", &line == &keys.front() ? "deepspeed " : "          ", line);
  log::print("model     {}\n", parts.engine.model().describe());
  log::print("data      {}\n", parts.dataset.describe());
  log::print("ranks     {}\n", parts.rank.summary);
  log::print("batch     {}\n", parts.batch.text);
  log::print("numbers   {} compute, fp32 master weights and moments; {}, gradient_clipping {}\n",
             to_string(engine.options().compute), engine.optimizer().name(), parts.job.config.gradient_clipping);
  log::print("schedule  {}; first update uses lr {}\n", schedule.type(), engine.lr().front());
  log::print(
      "memory    {} a rank, of it activations {}{}; {:.2f} GFLOP a micro-batch; gradient exchange {} a step in {} "
      "buckets\n",
      human_bytes(static_cast<double>(engine.bytes())), human_bytes(static_cast<double>(plan.train_bytes)),
      packed == 0 ? "" : fmt::format(" and packed weights {}", human_bytes(static_cast<double>(packed))),
      (plan.forward.flops + plan.backward.flops) * 1e-9,
      human_bytes(static_cast<double>(engine.gradient_sync().bytes_per_step())), engine.gradient_sync().bucket_count());
  log::print("run       {}, steps {} to {}, determinism {}\n", run_folder(parts.job.config), first + 1,
             parts.job.config.run.steps, parts.job.config.run.determinism);
  for (const std::string& warning : schedule.warnings()) log::print("warning   {}\n", warning);
  if (parts.batch.train > parts.dataset.train_samples())
    log::print("warning   train_batch_size {} is more than the {}: one step takes some of them more than once\n",
               parts.batch.train, counted(parts.dataset.train_samples(), "training sample"));
  for (const std::string& remark : parts.beginning.remarks) log::print("note      {}\n", remark);
  if (parts.beginning.manifest) print_resume(parts);
}

void print_complete(const Beginning& beginning, const job::JobConfig& job) {
  log::print("complete at step {}: {} (run.resume: never starts anew and keeps this run aside)\n",
             beginning.first_step(), run_folder(job));
  for (const std::string& remark : beginning.remarks) log::print("note      {}\n", remark);
  print_changes(beginning.manifest->state, job);
}

}  // namespace lockstep::run
