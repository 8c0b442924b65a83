#include "engine/flat_buffers.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace lockstep::engine {
namespace {

/// Rank 0's memory, on every rank.
class OneCopy final : public comm::FlatArena {
 public:
  OneCopy(comm::Communicator& comm, DeviceApi& device, std::size_t bytes)
      : arena_(comm.make_arena(device, comm.rank() == 0 ? bytes : 0)), bytes_(bytes) {
    require(data() != nullptr, "engine: one copy of the parameters needs ranks that reach each other's memory");
  }
  [[nodiscard]] std::byte* data() const noexcept override { return arena_->peer(0); }
  [[nodiscard]] std::size_t bytes() const noexcept override { return bytes_; }
  [[nodiscard]] std::byte* peer(int /*rank*/) const noexcept override { return data(); }

 private:
  std::unique_ptr<comm::FlatArena> arena_;
  std::size_t bytes_;
};

}  // namespace

BufferExtents BufferExtents::of(int stage, DType compute, bool leaves, bool one_copy) {
  const auto from = [stage](int first) { return stage >= first ? Extent::shard : Extent::full; };
  return {.master = from(compute == DType::f32 ? 3 : 1),
          .param16 = from(3),
          .grad = leaves ? Extent::full : from(2),
          .moments = from(1),
          .one_copy = one_copy};
}

FlatBuffers::FlatBuffers(comm::Communicator& comm, DeviceApi& device, const FlatLayout& layout, const ShardMap& map,
                         DType compute, const optim::Optimizer& optimizer, BufferExtents extents)
    : compute_(compute), extents_(extents), ranks_(static_cast<std::size_t>(comm.size())), names_{"master"} {
  const auto make = [&](Extent extent, std::size_t element, bool exchanged) {
    const std::int64_t elements = extent == Extent::full ? layout.size() : map.largest_shard();
    const auto bytes = static_cast<std::size_t>(elements) * element;
    return exchanged ? comm.make_arena(device, bytes) : comm.make_own_arena(device, bytes);
  };
  // What ranks exchange each step: whole gradients, and whole parameters of which each rank updates its shard.
  const auto gathered = [&](Extent extent) { return map.sharded() && extent == Extent::full; };
  const auto make_values = [&](Extent extent, std::size_t element) -> std::unique_ptr<comm::FlatArena> {
    if (!extents.one_copy) return make(extent, element, gathered(extent));
    return std::make_unique<OneCopy>(comm, device, static_cast<std::size_t>(layout.size()) * element);
  };
  master_ =
      compute == DType::f32 ? make_values(extents.master, sizeof(float)) : make(extents.master, sizeof(float), false);
  grad_ = make(extents.grad, sizeof(float), extents.grad == Extent::full);
  if (compute != DType::f32) param16_ = make_values(extents.param16, size_of(compute));
  for (const std::string& moment : optimizer.moments()) {
    names_.push_back(moment);
    moments_.push_back(make(extents.moments, sizeof(float), false));
  }
}

std::vector<float*> FlatBuffers::moments() const {
  std::vector<float*> result;
  for (const auto& arena : moments_) result.push_back(as_float(*arena));
  return result;
}

Buffer FlatBuffers::values(Memory memory) const {
  const comm::FlatArena& arena = compute_ == DType::f32 ? *master_ : *param16_;
  return {arena.data(), arena.bytes() / size_of(compute_), compute_, memory};
}

std::size_t FlatBuffers::index_of(const std::string& name) const {
  const auto found = std::ranges::find(names_, name);
  require(found != names_.end(), "engine: a range of an unknown buffer");
  return static_cast<std::size_t>(found - names_.begin());
}

Extent FlatBuffers::extent(const std::string& name) const {
  return index_of(name) == 0 ? extents_.master : extents_.moments;
}

float* FlatBuffers::at(const std::string& name, const ShardMap::Own& run) const {
  const std::size_t index = index_of(name);
  float* const base = index == 0 ? master() : as_float(*moments_[index - 1]);
  return base + (extent(name) == Extent::full ? run.begin : run.shard_begin);
}

std::size_t FlatBuffers::bytes() const {
  const comm::FlatArena* const values = compute_ == DType::f32 ? master_.get() : param16_.get();
  std::size_t total = grad_->bytes();
  total += extents_.one_copy ? (values->bytes() + ranks_ - 1) / ranks_ : values->bytes();
  if (values != master_.get()) total += master_->bytes();
  for (const auto& arena : moments_) total += arena->bytes();
  return total;
}

}  // namespace lockstep::engine
