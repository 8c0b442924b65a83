#include "run/scaling.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <functional>
#include <map>
#include <optional>

#include "core/error.hpp"
#include "core/text.hpp"
#include "run/affinity.hpp"
#include "run/bench/benches.hpp"
#include "run/launch.hpp"
#include "run/place.hpp"
#include "run/report_data.hpp"
#include "run/setup.hpp"

namespace lockstep::run {
namespace {

using Clock = std::chrono::steady_clock;

/// Runs `body` on so many threads as ranks, one thread each, of the job with the micro-batch that one rank alone has.
void on_threads(const job::LoadedJob& job, int ranks, const std::function<void(RankContext&)>& body) {
  Start start{.job = job, .options = {}, .failure = {}};
  start.job->config.comm.backend = "local";
  start.job->config.comm.ranks = ranks;
  start.job->config.run.threads = 1;
  const int code = run_on_ranks(start, body);
  if (code != 0) fail(ErrorKind::environment, "bench scaling: {} could not be measured", counted(ranks, "rank"));
}

/// Seconds of an all-reduce of so many bytes, the middle of some.
double all_reduce_time(RankContext& rank, std::size_t bytes) {
  std::vector<float> data(bytes / sizeof(float), 1.0F);
  std::vector<double> times;
  for (int i = 0; i < 25; ++i) {
    rank.comm.barrier();
    const auto begin = Clock::now();
    rank.comm.all_reduce({data.data(), data.size(), DType::f32, Memory::host}, comm::Reduce::sum);
    if (i >= 5) times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return median(times);
}

std::string milliseconds(double seconds) { return fmt::format("{:.3f}", seconds * 1e3); }

}  // namespace

std::int64_t messages_of(int ranks) {
  require(ranks >= 1, "messages_of: at least one rank");
  const auto n = static_cast<unsigned>(ranks);
  if (std::has_single_bit(n)) return 2 * std::countr_zero(n);
  return 2 * (static_cast<std::int64_t>(ranks) - 1);
}

double bytes_of(int ranks, double bytes) { return 2 * bytes * (ranks - 1) / ranks; }

ScalingPoint predict(const ScalingModel& model, int ranks) {
  ScalingPoint point{.ranks = ranks};
  const double crowd = model.slots > 0 ? std::max(1.0, static_cast<double>(ranks) / model.slots) : 1.0;
  point.compute_s = model.compute_s * crowd;
  const double backward = point.compute_s * model.backward_share;
  double elements = 0, done = 0;
  for (const double bucket : model.buckets) elements += bucket;
  // Backward ends when the last bucket is ready; what is left of the step, the update, comes after both.
  double channel = 0;
  for (const double bucket : model.buckets) {
    const double bytes = bytes_of(ranks, bucket);
    const double took = static_cast<double>(messages_of(ranks)) * model.latency_s +
                        (model.bytes_per_s > 0 ? bytes / model.bytes_per_s : 0);
    done += bucket;
    channel = std::max(channel, backward * done / elements) + took;
    point.exchange_s += took;
    point.messages += messages_of(ranks);
    point.bytes += bytes;
  }
  point.serial_s = point.compute_s + point.exchange_s;
  point.overlapped_s = point.compute_s + std::max(0.0, channel - backward);
  return point;
}

std::string scaling_report(const job::LoadedJob& asked, const ScalingOptions& options) {
  job::LoadedJob job = asked;
  const SelectedPlace place = select_place(job.config, {});
  const data::DataShape shape = data_shape(job.config);
  const auto model = make_model(job.config, shape);
  const job::BatchSizes one = batch_sizes(job.config, 1, "bench scaling");
  // The same for every number of ranks.
  job.config.train_batch_size.reset();
  job.config.train_micro_batch_size_per_gpu = one.micro;
  job.config.gradient_accumulation_steps = one.accumulation;

  const engine::EngineOptions engine = engine_options(job, *model, one, 0, place.device->immediate());
  const nn::Plan plan = nn::plan(*model, *place.kernels, engine.micro_batch, engine.compute);
  const engine::FlatLayout layout(model->parameters(), plan, engine.group_of);
  ScalingModel known{.compute_s = options.compute_ms * 1e-3,
                     .buckets = {},
                     .latency_s = options.latency_us * 1e-6,
                     .bytes_per_s = options.gigabytes_per_s * 1e9};
  // Under the last micro-batch alone.
  known.backward_share = (plan.backward.flops + plan.again.flops) /
                         (plan.forward.flops + plan.backward.flops + plan.again.flops) /
                         static_cast<double>(one.accumulation);
  double largest = 0;
  for (const engine::FlatLayout::Bucket& bucket : layout.buckets(engine.bucket_elements)) {
    known.buckets.push_back(static_cast<double>(bucket.end - bucket.begin) * sizeof(float));
    largest = std::max(largest, known.buckets.back());
  }

  std::string basis;
  std::map<int, double> measured;
  if (known.latency_s == 0 || known.bytes_per_s == 0) {
    double small = 0, large = 0;
    constexpr std::size_t few = 4096;
    on_threads(job, 2, [&](RankContext& rank) {
      const double a = all_reduce_time(rank, few), b = all_reduce_time(rank, static_cast<std::size_t>(largest));
      if (rank.comm.rank() != 0) return;
      small = a;
      large = b;
    });
    if (known.latency_s == 0) known.latency_s = small / static_cast<double>(messages_of(2));
    if (known.bytes_per_s == 0) known.bytes_per_s = bytes_of(2, largest) / std::max(1e-9, large - small);
    basis += fmt::format("; exchange of 2 threads as ranks, 4 KiB in {} us, {} in {} ms",
                         fmt::format("{:.1f}", small * 1e6), human_bytes(largest), milliseconds(large));
  }
  if (known.compute_s == 0) {
    known.slots = allowed_cpus();
    for (const int ranks : {1, 2, 4})
      on_threads(job, ranks, [&](RankContext& rank) {
        const bench::Report report =
            bench::bench_step(rank, job, {.classes = shape.features == 0 ? shape.classes : 0, .peak = 64},
                              {.samples = options.samples, .seconds = 10});
        for (const bench::Measured& line : report.lines)
          if (rank.comm.rank() == 0 && line.task.name == "step") measured[ranks] = line.median();
      });
    known.compute_s = measured.at(1);
    basis += fmt::format("; compute and measured points: threads as ranks, one thread each, {} CPUs", known.slots);
  }
  std::string text = fmt::format(
      "\nscaling   {}, micro-batch {} x {} on each rank, {} buckets of {} in all\n"
      "          a rank: {} ms a step alone; a message: {:.2f} us and {:.3g} GB/s{}\n\n"
      "  {:>6}{:>10}{:>11}{:>12}{:>12}{:>12}{:>12}{:>9}{:>12}\n",
      model->describe(), one.micro, one.accumulation, known.buckets.size(),
      human_bytes(static_cast<double>(layout.size()) * sizeof(float)), milliseconds(known.compute_s),
      known.latency_s * 1e6, known.bytes_per_s * 1e-9, basis, "ranks", "messages", "sent", "compute ms", "exchange ms",
      "serial ms", "overlap ms", "weak", "measured ms");
  for (const int ranks : options.ranks) {
    const auto found = measured.find(ranks);
    ScalingModel here = known;
    if (found == measured.end()) here.slots = 0;  // more ranks than that are on more hosts
    const ScalingPoint point = predict(here, ranks);
    text += fmt::format("  {:>6}{:>10}{:>11}{:>12}{:>12}{:>12}{:>12}{:>8.0f}%{:>12}\n", ranks, point.messages,
                        point.bytes > 0 ? human_bytes(point.bytes) : "0", milliseconds(point.compute_s),
                        milliseconds(point.exchange_s), milliseconds(point.serial_s), milliseconds(point.overlapped_s),
                        100 * known.compute_s / point.overlapped_s,
                        found == measured.end() ? "" : milliseconds(found->second));
  }
  return text +
         "  serial: the exchange after backward; overlap: under it, on hardware of its own. weak: one rank's step "
         "over the overlapped one\n";
}

}  // namespace lockstep::run
