#include "engine/unit_values.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"

namespace lockstep::engine {
namespace {

/// By unit, the buckets that it consists of: [first, last).
std::vector<std::pair<std::size_t, std::size_t>> buckets_of_units(const ShardMap& map, std::size_t units) {
  std::vector<std::pair<std::size_t, std::size_t>> result(units, {0, 0});
  for (std::size_t b = 0; b < map.buckets().size(); ++b) {
    auto& [first, last] = result[static_cast<std::size_t>(map.buckets()[b].unit)];
    if (last == 0) first = b;
    last = b + 1;
  }
  return result;
}

std::size_t elements_of(const FlatLayout::Bucket& bucket) {
  return static_cast<std::size_t>(bucket.end - bucket.begin);
}

/// All parameters are where a rank reads them, all the time.
class WholeValues : public UnitValues {
 public:
  WholeValues(const FlatLayout& layout, Buffer values) : units_(layout.units()), values_(values) {}
  void begin_pass(const std::vector<nn::UnitEvent>& /*events*/, StreamRef /*stream*/) override {}
  void release(int /*unit*/, nn::Phase /*phase*/) override {}
  [[nodiscard]] std::byte* begin_of(int unit) const override {
    return static_cast<std::byte*>(values_.data) +
           static_cast<std::size_t>(units_[static_cast<std::size_t>(unit)].begin) * size_of(values_.dtype);
  }

 protected:
  std::vector<FlatRange> units_;
  Buffer values_;
};

class RefreshedValues final : public WholeValues {
 public:
  RefreshedValues(comm::Communicator& comm, StepGraphs& graphs, const FlatLayout& layout, const ShardMap& map,
                  Buffer values, const std::vector<nn::UnitEvent>& events)
      : WholeValues(layout, values),
        comm_(comm),
        graphs_(graphs),
        map_(map),
        buckets_(buckets_of_units(map, units_.size())),
        pending_(map.buckets().size()) {
    // In the order in which the next forward pass wants them.
    for (const nn::UnitEvent& event : events)
      if (event.acquire && std::ranges::find(order_, event.unit) == order_.end()) order_.push_back(event.unit);
  }

  void acquire(int unit, nn::Phase phase, StreamRef stream) override {
    if (phase == nn::Phase::forward) graphs_.outside([this, unit, stream] { wait(unit, stream); });
  }
  void updated(StreamRef stream) override {
    graphs_.outside([this, stream] {
      for (const int unit : order_) {
        const auto [first, last] = buckets_[static_cast<std::size_t>(unit)];
        for (std::size_t b = first; b < last; ++b) {
          const FlatLayout::Bucket& bucket = map_.buckets()[b];
          pending_[b] = comm_.start_all_gather(
              values_.part(static_cast<std::size_t>(bucket.begin), elements_of(bucket)), map_.offsets(b), stream);
        }
      }
    });
  }
  void settle(StreamRef stream) override {
    for (const int unit : order_) wait(unit, stream);
  }
  [[nodiscard]] std::size_t bytes() const override { return 0; }
  [[nodiscard]] std::size_t bytes_per_step(int /*micro_batches*/) const override {
    std::size_t elements = 0;
    for (const ShardMap::Own& run : map_.own()) elements += static_cast<std::size_t>(run.size());
    return elements * size_of(values_.dtype);
  }

 private:
  void wait(int unit, StreamRef stream) {
    const auto [first, last] = buckets_[static_cast<std::size_t>(unit)];
    for (std::size_t b = first; b < last; ++b) comm_.wait(std::exchange(pending_[b], {}), stream);
  }

  comm::Communicator& comm_;
  StepGraphs& graphs_;
  const ShardMap& map_;
  std::vector<std::pair<std::size_t, std::size_t>> buckets_;
  std::vector<comm::Pending> pending_;  ///< by bucket
  std::vector<int> order_;
};

/// Nobody writes while others still read either: a rank updates after it has all ranks' reports of the step, which they
/// make after their last pass.
class CommonValues final : public WholeValues {
 public:
  CommonValues(comm::Communicator& comm, DeviceApi& device, StepGraphs& graphs, const FlatLayout& layout, Buffer values)
      : WholeValues(layout, values),
        comm_(comm),
        graphs_(graphs),
        word_(comm.make_arena(device, one_copy_bytes)),
        device_(device) {}

  void acquire(int /*unit*/, nn::Phase phase, StreamRef stream) override {
    if (phase == nn::Phase::forward && all_updated_.id != 0) graphs_.outside([this, stream] { settle(stream); });
  }
  /// A sum that is complete when every rank has begun it.
  void updated(StreamRef stream) override {
    graphs_.outside([this, stream] {
      all_updated_ =
          comm_.start_all_reduce({word_->data(), 1, DType::i32, device_.memory()}, comm::Reduce::max, stream);
    });
  }
  void settle(StreamRef stream) override { comm_.wait(std::exchange(all_updated_, {}), stream); }
  [[nodiscard]] std::size_t bytes() const override { return word_->bytes(); }
  [[nodiscard]] std::size_t bytes_per_step(int /*micro_batches*/) const override { return word_->bytes(); }

 private:
  comm::Communicator& comm_;
  StepGraphs& graphs_;
  std::unique_ptr<comm::FlatArena> word_;
  DeviceApi& device_;
  comm::Pending all_updated_;
};

class GatheredValues final : public UnitValues {
 public:
  GatheredValues(comm::Communicator& comm, DeviceApi& device, StepGraphs& graphs, const FlatLayout& layout,
                 const ShardMap& map, Buffer shard, const std::vector<const std::vector<nn::UnitEvent>*>& passes)
      : comm_(comm),
        device_(device),
        graphs_(graphs),
        map_(map),
        units_(layout.units()),
        buckets_(buckets_of_units(map, units_.size())),
        shard_(shard),
        schedule_(unit_elements(layout)),
        pending_(units_.size()) {
    const std::int64_t elements = UnitSchedule::needed(unit_elements(layout), passes);
    pool_ = comm.make_arena(device, static_cast<std::size_t>(elements) * size_of(shard.dtype));
    for (const int unit : UnitSchedule::brought(unit_elements(layout), *passes.front()))
      gathered_elements_ += own_elements(unit);
  }

  void begin_pass(const std::vector<nn::UnitEvent>& events, StreamRef stream) override {
    // What the last pass looked ahead for and did not use.
    for (std::size_t unit = 0; unit < units_.size(); ++unit)
      if (schedule_.present(static_cast<int>(unit)))
        graphs_.outside([this, unit, stream] { wait(static_cast<int>(unit), stream); });
    schedule_.begin(events);
  }
  void acquire(int unit, nn::Phase phase, StreamRef stream) override {
    const UnitSchedule::Acquired acquired = schedule_.acquire(unit, phase);
    if (acquired.now) start(*acquired.now, stream);
    if (acquired.next) start(*acquired.next, stream);
    graphs_.outside([this, unit, stream] { wait(unit, stream); });
  }
  void release(int unit, nn::Phase phase) override { schedule_.release(unit, phase); }
  [[nodiscard]] std::byte* begin_of(int unit) const override {
    require(schedule_.present(unit), "engine: a parameter is used outside of its unit's scope");
    return pool_->data() + static_cast<std::size_t>(schedule_.begin_of(unit)) * size_of(shard_.dtype);
  }
  void updated(StreamRef /*stream*/) override {}
  void settle(StreamRef stream) override {
    for (std::size_t unit = 0; unit < units_.size(); ++unit) wait(static_cast<int>(unit), stream);
  }
  [[nodiscard]] std::size_t bytes() const override { return pool_->bytes(); }
  [[nodiscard]] std::size_t bytes_per_step(int micro_batches) const override {
    return gathered_elements_ * static_cast<std::size_t>(micro_batches) * size_of(shard_.dtype);
  }

 private:
  /// Own parts into place on `stream`, the others' behind it.
  void start(const UnitSchedule::Start& start, StreamRef stream) {
    const auto unit = static_cast<std::size_t>(start.unit);
    const std::int64_t end = start.begin + units_[unit].size();
    require(static_cast<std::size_t>(end) * size_of(shard_.dtype) <= pool_->bytes(),
            "engine: a pass uses more units at once than any that was planned");
    const std::size_t width = size_of(shard_.dtype);
    const auto [first, last] = buckets_[unit];
    const auto place = [this, start, unit](std::size_t b) {
      const FlatLayout::Bucket& bucket = map_.buckets()[b];
      return Buffer{pool_->data(), pool_->bytes() / size_of(shard_.dtype), shard_.dtype, shard_.memory}.part(
          static_cast<std::size_t>(start.begin + bucket.begin - units_[unit].begin), elements_of(bucket));
    };
    for (std::size_t b = first; b < last; ++b) {
      const FlatRange own = map_.own_part(b);
      if (own.size() == 0) continue;
      const Buffer to = place(b).part(static_cast<std::size_t>(own.begin), static_cast<std::size_t>(own.size()));
      device_.copy(to.data,
                   static_cast<std::byte*>(shard_.data) + static_cast<std::size_t>(map_.shard_begin(b)) * width,
                   to.bytes(), stream);
    }
    graphs_.outside([this, unit, first = first, last = last, place, stream] {
      for (std::size_t b = first; b < last; ++b)
        pending_[unit].push_back(comm_.start_all_gather(place(b), map_.offsets(b), stream));
    });
  }
  void wait(int unit, StreamRef stream) {
    for (const comm::Pending pending : std::exchange(pending_[static_cast<std::size_t>(unit)], {}))
      comm_.wait(pending, stream);
  }
  [[nodiscard]] std::size_t own_elements(int unit) const {
    std::size_t elements = 0;
    const auto [first, last] = buckets_[static_cast<std::size_t>(unit)];
    for (std::size_t b = first; b < last; ++b) elements += static_cast<std::size_t>(map_.own_part(b).size());
    return elements;
  }

  comm::Communicator& comm_;
  DeviceApi& device_;
  StepGraphs& graphs_;
  const ShardMap& map_;
  std::vector<FlatRange> units_;
  std::vector<std::pair<std::size_t, std::size_t>> buckets_;
  Buffer shard_;
  UnitSchedule schedule_;
  std::unique_ptr<comm::FlatArena> pool_;
  std::vector<std::vector<comm::Pending>> pending_;  ///< by unit
  std::size_t gathered_elements_ = 0;                ///< of this rank's own, in a micro-batch
};

}  // namespace

std::unique_ptr<UnitValues> make_refreshed_values(comm::Communicator& comm, StepGraphs& graphs,
                                                  const FlatLayout& layout, const ShardMap& map, Buffer values,
                                                  const std::vector<nn::UnitEvent>& events) {
  return std::make_unique<RefreshedValues>(comm, graphs, layout, map, values, events);
}

std::unique_ptr<UnitValues> make_common_values(comm::Communicator& comm, DeviceApi& device, StepGraphs& graphs,
                                               const FlatLayout& layout, Buffer values) {
  return std::make_unique<CommonValues>(comm, device, graphs, layout, values);
}

std::unique_ptr<UnitValues> make_gathered_values(comm::Communicator& comm, DeviceApi& device, StepGraphs& graphs,
                                                 const FlatLayout& layout, const ShardMap& map, Buffer shard,
                                                 const std::vector<const std::vector<nn::UnitEvent>*>& passes) {
  return std::make_unique<GatheredValues>(comm, device, graphs, layout, map, shard, passes);
}

std::vector<std::int64_t> unit_elements(const FlatLayout& layout) {
  std::vector<std::int64_t> result;
  for (const FlatRange& unit : layout.units()) result.push_back(unit.size());
  return result;
}

}  // namespace lockstep::engine
