#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "core/text.hpp"
#include "run/bench/benches.hpp"
#include "run/bench/products.hpp"
#include "run/memory.hpp"
#include "run/micro_batch.hpp"
#include "run/setup.hpp"

namespace lockstep::run::bench {
namespace {

using Clock = std::chrono::steady_clock;

data::HostBatch random_samples(const job::JobConfig& job, std::int64_t micro, const data::DataShape& shape,
                               int outputs) {
  data::HostBatch samples;
  samples.batch = micro;
  samples.length = sample_length(job);
  const auto positions = static_cast<std::size_t>(micro * samples.length);
  const auto random_class = [&](std::uint32_t lane, std::size_t i) {
    const Philox r = random_at(1, RngStream::synthetic, lane, i);
    return static_cast<std::int32_t>(r.word[0] % static_cast<std::uint32_t>(shape.classes));
  };
  for (std::size_t i = 0; i < positions; ++i) {
    if (shape.features == 0) samples.tokens.push_back(random_class(0, i));
    samples.targets.push_back(random_class(1, i));
  }
  for (std::size_t i = 0; i < positions * static_cast<std::size_t>(shape.features); ++i)
    samples.features.push_back(static_cast<float>(normal_at(1, RngStream::synthetic, 2, i)));
  for (std::size_t i = 0; i < positions * static_cast<std::size_t>(outputs); ++i)
    samples.values.push_back(static_cast<float>(normal_at(1, RngStream::synthetic, 3, i)));
  samples.target_count = static_cast<double>(positions);
  return samples;
}

/// One step, without waiting for its result.
void take_step(engine::Engine& engine, const data::HostBatch& samples) {
  for (int i = 0; i < engine.options().grad_accum; ++i) {
    engine.forward(samples);
    engine.backward();
  }
  engine.step();
  (void)engine.results();
}

/// Pages that this process had to be given, so far.
std::int64_t page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

/// Of one step, once everything has been allocated: a mean over some.
double page_faults_a_step(engine::Engine& engine, const data::HostBatch& samples) {
  constexpr int steps = 4;
  const std::int64_t before = page_faults();
  for (int i = 0; i < steps; ++i) {
    take_step(engine, samples);
    engine.drain();
    (void)engine.results();
  }
  return static_cast<double>(page_faults() - before) / steps;
}

/// Times between steps that follow one another with results read late, as in training: nobody waits for a step, only
/// for the one that is several steps back.
Measured measure_running_steps(RankContext& rank, engine::Engine& engine, const data::HostBatch& samples, Task task,
                               const Sampling& sampling) {
  Measured step{.task = std::move(task), .calls = 1, .samples = {}, .kept = {}};
  for (std::int64_t i = 0; i < engine.result_delay() + 3; ++i) take_step(engine, samples);
  for (int i = 0; i < sampling.samples; ++i) {
    const Clock::time_point begin = Clock::now();
    take_step(engine, samples);
    double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    if (rank.comm.size() > 1) rank.comm.all_reduce({&seconds, 1, DType::f64, Memory::host}, comm::Reduce::max);
    step.samples.push_back({seconds, 0});
  }
  engine.drain();
  choose(step, sampling);
  return step;
}

}  // namespace

job::LoadedJob usual_step_job(bool immediate, const std::vector<std::string>& overrides) {
  const std::string sizes = immediate ? "train_micro_batch_size_per_gpu: 4\ngradient_accumulation_steps: 1\n"
                                      : "train_micro_batch_size_per_gpu: 64\ngradient_accumulation_steps: 8\n";
  // No token is read: the vocabulary is all that the data say.
  return job::load_job_text("bench step",
                            fmt::format("model: {{type: gpt2, preset: 124M, block_size: {}}}\n"
                                        "data: {{type: tokens, path: none}}\nrun: {{name: bench, steps: 1}}\n{}"
                                        "optimizer: {{type: AdamW, params: {{lr: 1.0e-5, weight_decay: 0.1}}}}\n"
                                        "bf16: {{enabled: true}}\n",
                                        immediate ? 256 : 1024, sizes),
                            "", overrides);
}

Report bench_step(RankContext& rank, const job::LoadedJob& asked, const StepShape& shape, const Sampling& sampling) {
  job::LoadedJob loaded = asked;
  const job::JobConfig& job = loaded.config;
  data::DataShape data{.classes = shape.classes};
  if (shape.classes == 0)
    data = data_shape(job);
  else if (job.data.type == "clusters")
    data.features = static_cast<int>(job.data.clusters.features);
  const auto model = make_model(job, data);
  (void)settle_micro_batch(loaded, *model, rank);
  const job::BatchSizes batch = batch_sizes(job, rank.comm.size(), rank.world_source);
  const bool immediate = rank.place.device->immediate();
  const MemoryQuestion question{.job = loaded,
                                .model = *model,
                                .kernels = *rank.place.kernels,
                                .device = *rank.place.device,
                                .batch = batch,
                                .host_ranks = rank.host_ranks,
                                .process_ranks = rank.process_ranks,
                                .device_ranks = rank.device_ranks,
                                .reachable = rank.comm.capabilities().shared_address_space};
  require_memory(question, rank.comm);
  engine::EngineOptions options =
      engine_options(loaded, *model, batch, rank.comm.rank(), immediate, rank.comm.capabilities().shared_address_space);
  options.captured = choose_capture(job, *rank.place.device).captured;
  const MemoryNeed need =
      memory_need(*model, *rank.place.kernels, immediate, rank.comm.rank(), rank.comm.size(), options);
  Workbench bench(rank);
  std::vector<Task> tasks = peak_products(bench, options.compute, shape.peak);
  const std::size_t free_before = rank.place.device->memory_info().free;
  std::optional<engine::Engine> made;
  with_memory_advice(question, [&] { made.emplace(*model, rank.comm, rank.place, options); });
  engine::Engine& engine = *made;
  const data::HostBatch samples = random_samples(job, batch.micro, data, model->outputs());

  Task task{.name = "step",
            .shape = batch.text,
            .flops = need.flops * options.grad_accum,
            .items = static_cast<double>(batch.train * samples.length),
            .item = data.features == 0 ? "tokens" : "samples",
            .ceiling = peak_group(options.compute),
            .run = {}};
  task.run = [&] {
    take_step(engine, samples);
    engine.drain();
    (void)engine.results();
  };
  Report report{.bench = "step", .lines = {}};
  if (immediate) {
    tasks.push_back(std::move(task));
    report.lines = measure(rank, bench.stream(), std::move(tasks), sampling);
    report.figures["page_faults_a_step"] = page_faults_a_step(engine, samples);
  } else {
    report.lines = measure(rank, bench.stream(), std::move(tasks), sampling);
    report.lines.push_back(measure_running_steps(rank, engine, samples, std::move(task), sampling));
    const std::size_t free_after = rank.place.device->memory_info().free;
    report.figures["device_bytes"] = static_cast<double>(free_before) - static_cast<double>(free_after);
  }
  report.figures["planned_bytes"] = static_cast<double>(need.total());
  report.figures["engine_bytes"] = static_cast<double>(engine.bytes());
  report.notes = {fmt::format("{}; {}; {} compute{}; {} by its own account, {} planned", model->describe(), batch.text,
                              to_string(options.compute), options.captured ? ", replayed as a graph" : "",
                              human_bytes(report.figures["engine_bytes"]),
                              human_bytes(report.figures["planned_bytes"]))};
  return report;
}

}  // namespace lockstep::run::bench
