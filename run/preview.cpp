#include "run/preview.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "files/durable_folder.hpp"
#include "run/affinity.hpp"
#include "run/host_speed.hpp"
#include "run/micro_batch.hpp"
#include "run/place.hpp"
#include "run/report_data.hpp"
#include "run/run_folder.hpp"
#include "run/setup.hpp"

namespace lockstep::run {
namespace {

/// The job's own run, if it was one of the same model, batch and number of ranks.
std::optional<StepEstimate> recorded_steps(const job::JobConfig& job, const Preview& preview) {
  const std::string folder = run_folder(job);
  if (!files::path_exists(folder + "/metrics.jsonl")) return std::nullopt;
  try {
    const RunRecord record = read_run(folder);
    if (record.starts.empty() || record.rows.empty()) return std::nullopt;
    const RunStart& start = record.starts.back();
    if (start.model != preview.model || start.batch != preview.batch.text) return std::nullopt;
    std::vector<double> times;
    for (const MetricsRow& row : record.rows)
      if (row.step > start.step) times.push_back(row.step_ms * 1e-3);
    constexpr std::size_t latest = 100;
    if (times.size() < 5) return std::nullopt;
    if (times.size() > latest) times.erase(times.begin(), times.end() - latest);
    StepEstimate step;
    step.recorded = true;
    step.steps = static_cast<std::int64_t>(times.size());
    step.seconds = median(times);
    return step;
  } catch (const Error&) {
    return std::nullopt;  // `lockstep report` says why
  }
}

StepEstimate estimate(const job::JobConfig& job, const Preview& preview, const SelectedPlace& place) {
  if (const auto recorded = recorded_steps(job, preview)) return *recorded;
  StepEstimate step;
  if (!place.device->immediate()) return step;  // what a GPU does is not measured in a moment
  const int threads = allowed_cpus();
  step.flops_per_s = product_speed(place.with_threads(threads), preview.compute);
  step.bytes_per_s = memory_speed(place.with_threads(threads));
  const auto ranks = static_cast<double>(preview.batch.world);
  const MemoryNeed& need = preview.job.need;
  const double micro_batches = static_cast<double>(preview.batch.train / preview.batch.micro);
  step.products_s = need.flops * micro_batches / step.flops_per_s;
  // Master read and written, gradient read, moments read and written, the 16-bit copy written.
  const double touched = 12 + 8 * static_cast<double>(need.moments) + (preview.compute == DType::f32 ? 0 : 2);
  step.update_s = static_cast<double>(need.owned) * touched * ranks / step.bytes_per_s;
  // Every byte that is handed over is read and written, on its way to its sum and on its way back.
  step.exchange_s = 4 * static_cast<double>(need.exchange) * ranks / step.bytes_per_s;
  step.seconds = step.products_s + step.update_s + step.exchange_s;
  return step;
}

}  // namespace

Preview preview(const job::LoadedJob& asked, int ranks, const std::string& ranks_source) {
  job::LoadedJob loaded = asked;
  const job::JobConfig& job = loaded.config;
  const SelectedPlace place = select_place(job, {});
  const bool immediate = place.device->immediate();
  const data::DataShape shape = data_shape(job);
  Preview preview;
  preview.device = place.text;
  const std::string why_micro =
      settle_micro_batch(loaded, *make_model(job, shape), *place.kernels, *place.device, ranks, ranks_source);
  preview.batch = batch_sizes(job, ranks, ranks_source);
  explain_micro_batch(preview.batch, why_micro);
  preview.compute = compute_dtype(job);
  preview.stage = static_cast<int>(job.zero_optimization.stage);
  preview.recompute = job.model.gpt2.recompute;
  const auto row = [&](int stage, const std::string& recompute) {
    job::LoadedJob variant = loaded;
    variant.config.zero_optimization.stage = stage;
    variant.config.model.gpt2.recompute = recompute;
    const auto model = make_model(variant.config, shape);
    if (preview.model.empty()) preview.model = model->describe();
    Preview::Row result{.stage = stage, .recompute = recompute, .need = {}, .process = {}};
    result.need = memory_need(
        *model, *place.kernels, immediate, 0, ranks,
        engine_options(variant, *model, preview.batch, 0, immediate, variant.config.comm.intra_host != "mpi"));
    if (place.device->memory() == Memory::host) result.process = process_need(variant.config, result.need, ranks);
    return result;
  };
  preview.job = row(preview.stage, preview.recompute);
  for (int stage = 0; stage <= 3; ++stage) {
    preview.rows.push_back(row(stage, "none"));
    if (job.model.type == "gpt2") preview.rows.push_back(row(stage, "block"));
  }
  preview.free = place.device->memory() == Memory::host ? free_memory() : free_memory_of(*place.device);
  preview.free_for_a_rank = preview.free.of_rank(place.device->memory() == Memory::host ? ranks : 1, 1);
  preview.step = estimate(job, preview, place);
  return preview;
}

}  // namespace lockstep::run
