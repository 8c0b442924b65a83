#include "engine/flat_buffers.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace lockstep::engine {

BufferExtents BufferExtents::of(int stage, DType compute, bool leaves) {
  const auto from = [stage](int first) { return stage >= first ? Extent::shard : Extent::full; };
  return {.master = from(compute == DType::f32 ? 3 : 1),
          .param16 = from(3),
          .grad = leaves ? Extent::full : from(2),
          .moments = from(1)};
}

FlatBuffers::FlatBuffers(comm::Communicator& comm, DeviceApi& device, const FlatLayout& layout, const ShardMap& map,
                         DType compute, const optim::Optimizer& optimizer, BufferExtents extents)
    : compute_(compute), extents_(extents), names_{"master"} {
  const auto make = [&](Extent extent, std::size_t element, bool exchanged) {
    const std::int64_t elements = extent == Extent::full ? layout.size() : map.largest_shard();
    const auto bytes = static_cast<std::size_t>(elements) * element;
    return exchanged ? comm.make_arena(device, bytes) : comm.make_own_arena(device, bytes);
  };
  // What ranks exchange each step: whole gradients, and whole parameters of which each rank updates its shard.
  const auto gathered = [&](Extent extent) { return map.sharded() && extent == Extent::full; };
  master_ = make(extents.master, sizeof(float), compute == DType::f32 && gathered(extents.master));
  grad_ = make(extents.grad, sizeof(float), extents.grad == Extent::full);
  if (compute != DType::f32) param16_ = make(extents.param16, size_of(compute), gathered(extents.param16));
  for (const std::string& moment : optimizer.moments()) {
    names_.push_back(moment);
    moments_.push_back(make(extents.moments, sizeof(float), false));
  }
}

std::size_t FlatBuffers::bytes_of(std::int64_t elements, std::int64_t shard, DType compute, std::size_t moments,
                                  BufferExtents extents) {
  const auto bytes = [&](Extent extent, std::size_t element) {
    return static_cast<std::size_t>(extent == Extent::full ? elements : shard) * element;
  };
  return bytes(extents.master, sizeof(float)) + bytes(extents.grad, sizeof(float)) +
         (compute == DType::f32 ? 0 : bytes(extents.param16, size_of(compute))) +
         moments * bytes(extents.moments, sizeof(float));
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
  std::size_t total = master_->bytes() + grad_->bytes();
  if (param16_ != nullptr) total += param16_->bytes();
  for (const auto& arena : moments_) total += arena->bytes();
  return total;
}

}  // namespace lockstep::engine
