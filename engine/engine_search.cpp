// A step run again, to see where its numbers went bad.
#include <span>
#include <tuple>

#include "core/error.hpp"
#include "engine/engine.hpp"
#include "engine/engine_device.hpp"

namespace lockstep::engine {

NonFinite Engine::find_non_finite(const StepResult& step,
                                  const std::function<const data::HostBatch&(int micro)>& micro_batch) {
  require_no_pass("find_non_finite");
  require(micro_ == 0, "engine: find_non_finite in the middle of a step");
  const StepState now = read_state();
  // Noise and loss scale are functions of the state.
  StepState then = now;
  then.attempted = step.step;
  then.scale = step.scale;
  Device& d = *device_;
  const auto put = [&d](const StepState& state) {
    d.api.copy(d.state.data(), &state, sizeof state, d.stream.ref);
    d.api.synchronize(d.stream.ref);
  };
  put(then);
  NonFinite found = search_again(micro_batch);
  put(now);

  found.rank = comm_.rank();
  std::vector<NonFinite> all(static_cast<std::size_t>(comm_.size()));
  all[static_cast<std::size_t>(comm_.rank())] = found;
  comm_.all_gather_values(std::span(all));
  for (const NonFinite& other : all) {
    if (other.what == NonFinite::What::nothing) continue;
    const auto when = [](const NonFinite& f) {
      return std::tuple(f.what == NonFinite::What::sum, f.micro, f.order, f.rank);
    };
    if (found.what == NonFinite::What::nothing || when(other) < when(found)) found = other;
  }
  // All ranks say the same.
  if (found.what == NonFinite::What::nothing) return {};
  return found;
}

NonFinite Engine::search_again(const std::function<const data::HostBatch&(int micro)>& micro_batch) {
  Device& d = *device_;
  NonFiniteSearch search(d.api, d.stream.ref, model_, plan_, options_.compute);
  watch_ = &search;
  for (int micro = 0; micro < options_.grad_accum; ++micro) {
    const data::HostBatch& samples = micro_batch(micro);
    search.begin_micro_batch(micro, samples);
    batch_ = d.batches.upload(samples);
    forward_pass(micro);
    backward_pass();
  }
  watch_ = nullptr;
  search.end();
  sync_.finish(d.stream.ref);
  NonFinite found = search.found();
  // Where a rank has found something the sum has it too.
  if (found.what != NonFinite::What::nothing || comm_.size() == 1) return found;
  const bool whole = buffers_.extents().grad == Extent::full;
  const auto look = [&](std::int64_t at, std::int64_t begin, std::int64_t count) {
    if (search.found().what != NonFinite::What::nothing) return;
    const std::optional<std::int64_t> first = search.look_at_sum(buffers_.grad() + at, count);
    if (!first) return;
    found = search.found();
    const FlatLayout::Slice* const slice = layout_.find(begin + *first);
    if (slice == nullptr) return;
    found.param = slice->param;
    found.first = begin + *first - slice->begin;
  };
  // Of a gradient that is divided only the parts that a rank owns are sums.
  if (!map_.sharded()) look(0, 0, layout_.size());
  if (map_.sharded())
    map_.for_own(0, layout_.size(),
                 [&](const ShardMap::Own& run) { look(whole ? run.begin : run.shard_begin, run.begin, run.size()); });
  return found;
}

}  // namespace lockstep::engine
