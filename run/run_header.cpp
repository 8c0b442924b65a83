#include "run/run_header.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <string_view>

#include "core/isa.hpp"
#include "core/log.hpp"
#include "core/text.hpp"
#include "kernels/cuda_loader.hpp"
#include "run/job_changes.hpp"
#include "run/run_folder.hpp"

namespace lockstep::run {
namespace {

double validation_fraction(const job::DataConfig& data) {
  if (data.type == "tokens") return data.tokens.validation_fraction;
  if (data.type == "images") return data.images.validation_fraction;
  if (data.type == "csv") return data.csv.validation_fraction;
  return data.type == "text" ? data.text.validation_fraction : data.clusters.validation_fraction;
}

void print_changes(const Beginning& beginning, const job::JobConfig& job) {
  if (!beginning.job_of_then) {
    log::print("          the job that wrote it cannot be read by this version, so changes are not listed\n");
    return;
  }
  for (const JobChange& change : changes_between(*beginning.job_of_then, job))
    log::print("          changed since: {}\n", to_text(change));
}

void print_resume(const RunParts& parts) {
  const RunState& from = parts.beginning.manifest->state;
  const engine::Engine& engine = parts.engine;
  log::print("resume    from {}: step {}, {}, lr {}, loss scale {}\n", printable(parts.beginning.checkpoint),
             from.step.attempted, counted(from.step.applied, "update"), engine.lr().front(), from.step.scale);
  print_changes(parts.beginning, parts.job.config);
  if (const auto change = new_scaler(parts.beginning, parts.job.config))
    log::print("          {}: the checkpoint's loss scale {} is dropped, this job's {} holds; all else goes on\n",
               *change, from.step.scale, engine.options().scaler.initial_scale);
  const std::string isa = isa_for_bits(engine.multiplies_bf16());
  const int ranks = parts.rank.comm.size(), threads = parts.rank.place.threads;
  if (from.world == ranks && from.threads == threads && from.isa == isa) return;
  const bool invariant = parts.job.config.run.determinism == "invariant" && from.isa == isa &&
                         from.job.find("determinism: invariant") != std::string::npos;
  log::print(
      "          written by {} x {}, {}; now {} x {}, {}: {}\n", counted(from.world, "rank"),
      counted(from.threads, "thread"), printable(from.isa), ranks, threads, isa,
      invariant ? "determinism invariant goes on with the same bits" : "the same up to rounding, not to the bit");
}

/// What ZeRO divides here; nothing in stage 0.
std::string zero_line(const job::JobConfig& job, const engine::Engine& engine) {
  const std::int64_t stage = job.zero_optimization.stage;
  if (stage == 0) return {};
  if (engine.zero_stage() == 0) return fmt::format("stage {} has nothing to divide on one rank", stage);
  std::string what = engine.optimizer().moments().empty() ? "" : "moments";
  const auto add = [&](const char* more) { what += (what.empty() ? "" : ", ") + std::string(more); };
  if (!engine.replicated("master") && !(engine.one_copy() && engine.options().compute == DType::f32))
    add(engine.options().compute == DType::f32 ? "parameters" : "masters");
  if (stage >= 2 && engine.options().leaves == 0) add("gradients");
  if (stage == 3 && engine.options().compute != DType::f32) add("parameters");
  return fmt::format("stage {}: {} divided over {} ranks", stage, what.empty() ? "updates" : what,
                     engine.shard_map().loads().size());
}

}  // namespace

void print_run_header(const RunParts& parts) {
  const engine::Engine& engine = parts.engine;
  const sched::Schedule& schedule = *engine.options().schedule;
  const std::int64_t first = parts.beginning.first_step();
  const std::vector<std::string> keys = job::deepspeed_lines(parts.job);
  for (const std::string& line : keys) log::print("{}{}\n", &line == &keys.front() ? "deepspeed " : "          ", line);
  log::print("model     {}\n", parts.engine.model().describe());
  log::print("data      {}\n", parts.dataset.describe());
  log::print("ranks     {}\n", parts.rank.summary);
  if (parts.rank.place.kernels->name == std::string_view("cuda"))
    log::print("libraries {}\n", load_cuda_module().describe(engine.kernel_context()));
  log::print("batch     {}\n", parts.batch.text);
  log::print("numbers   {} compute, fp32 master weights and moments; {}, gradient_clipping {}\n",
             to_string(engine.options().compute), engine.optimizer().name(), parts.job.config.gradient_clipping);
  if (engine.options().compute == DType::bf16 && std::string_view(parts.rank.place.kernels->name).starts_with("cpu"))
    log::print("          bf16 products {}\n",
               parts.job.config.run.determinism == "invariant"
                   ? "in fp32 instructions (determinism: invariant): bf16 saves memory here, not time"
                   : expectation(current_bf16_products()));
  if (const nn::Cost& again = engine.plan().again; again.flops > 0)
    log::print("recompute {}: {:.0f} % more work\n", parts.job.config.model.gpt2.recompute,
               100 * again.flops / (engine.plan().forward.flops + engine.plan().backward.flops));
  if (const std::string zero = zero_line(parts.job.config, engine); !zero.empty()) log::print("zero      {}\n", zero);
  if (engine.one_copy())
    log::print(
        "shared    the ranks keep one copy of the parameters, and each updates its part (comm.one_copy: auto)\n");
  if (parts.capture.captured)
    log::print("graphs    steps are captured and launched as a whole (run.cuda_graph: auto)\n");
  else if (!parts.capture.why_not.empty())
    log::print("graphs    none, steps are enqueued anew each time: {}\n", parts.capture.why_not);
  log::print("schedule  {}; first update uses lr {}\n", schedule.type(), engine.lr().front());
  const job::JobConfig& job = parts.job.config;
  const std::int64_t last = job.run.steps;
  log::print("run       {}, {}, determinism {}\n", run_folder(job),
             first + 1 == last ? fmt::format("step {}", last) : fmt::format("steps {} to {}", first + 1, last),
             job.run.determinism);
  if (parts.batch.train > parts.dataset.train_samples())
    log::print("warning   train_batch_size {} is more than the {}: one step takes some of them more than once\n",
               parts.batch.train, counted(parts.dataset.train_samples(), "training sample"));
  if (job.run.eval_every > 0 && parts.dataset.eval_samples() == 0)
    log::print("note      no validation samples (data.validation_fraction {}), so there will be no val_loss\n",
               validation_fraction(job.data));
  if (job.wire() != "fp32" && parts.rank.comm.capabilities().wire == DType::f32)
    log::print("note      gradients do not travel as {}: {}\n", job.wire(),
               parts.rank.comm.size() == 1 ? "there is one rank"
               : parts.rank.place.kernels->name == std::string_view("cuda")
                   ? "NCCL adds them in fp32"
                   : "the ranks of one host add them in memory, in fp32");
  for (const std::string& remark : parts.beginning.remarks) log::print("note      {}\n", remark);
  if (parts.beginning.manifest)
    print_resume(parts);
  else if (job.model.type == "gpt2" && job.model.gpt2.init_from)
    log::print("weights   from {}\n", printable(*job.model.gpt2.init_from));
}

void print_complete(const Beginning& beginning, const job::JobConfig& job) {
  log::print("complete at step {}: {} (run.resume: never starts anew and keeps this run aside)\n",
             beginning.first_step(), run_folder(job));
  for (const std::string& remark : beginning.remarks) log::print("note      {}\n", remark);
  print_changes(beginning, job);
}

}  // namespace lockstep::run
