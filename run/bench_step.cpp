#include "run/bench_step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/log.hpp"
#include "core/rng.hpp"
#include "run/memory.hpp"
#include "run/setup.hpp"

namespace lockstep::run {

void bench_step(const job::LoadedJob& loaded, const BenchStepOptions& options, RankContext& rank) {
  const job::JobConfig& job = loaded.config;
  data::DataShape shape{.classes = options.classes};
  if (shape.classes == 0)
    shape = make_dataset(job)->shape();
  else if (job.data.type == "clusters")
    shape.features = static_cast<int>(job.data.clusters.features);
  const auto model = make_model(job, shape);
  const job::BatchSizes batch = batch_sizes(job, rank.comm.size(), rank.world_source);
  require_memory({.job = loaded,
                  .model = *model,
                  .kernels = *rank.place.kernels,
                  .immediate = rank.place.device->immediate(),
                  .batch = batch,
                  .host_ranks = rank.host_ranks,
                  .process_ranks = rank.process_ranks},
                 rank.comm);
  engine::Engine engine(*model, rank.comm, rank.place, engine_options(loaded, *model, batch, rank.comm.rank()));

  data::HostBatch samples;
  samples.batch = batch.micro;
  samples.length = sample_length(job);
  const auto positions = static_cast<std::size_t>(batch.micro * samples.length);
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
  for (std::size_t i = 0; i < positions * static_cast<std::size_t>(model->outputs()); ++i)
    samples.values.push_back(static_cast<float>(normal_at(1, RngStream::synthetic, 3, i)));
  samples.target_count = static_cast<double>(positions);

  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  for (std::int64_t step = 0; step < options.warmup + options.steps; ++step) {
    rank.comm.barrier();
    const auto begin = Clock::now();
    for (int i = 0; i < engine.options().grad_accum; ++i) {
      engine.forward(samples);
      engine.backward();
    }
    engine.step();
    engine.drain();
    (void)engine.results();
    rank.comm.barrier();
    if (step >= options.warmup) seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  if (rank.comm.rank() != 0) return;
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const auto items = static_cast<double>(batch.train * samples.length);
  const nn::Plan& plan = engine.plan();
  const double flops = (plan.forward.flops + plan.backward.flops) * static_cast<double>(batch.train / batch.micro);
  log::print("{}\n{}; {}; {} compute\n", model->describe(), rank.summary, batch.text,
             to_string(engine.options().compute));
  log::print(
      "step {:.1f} ms median of {} ({:.1f} to {:.1f}); {:.0f} {}/s; {:.1f} GFLOP/s of the plan's {:.2f} GFLOP a step\n",
      median * 1e3, seconds.size(), seconds.front() * 1e3, seconds.back() * 1e3, items / median,
      shape.features == 0 ? "tokens" : "samples", flops / median * 1e-9, flops * 1e-9);
}

}  // namespace lockstep::run
