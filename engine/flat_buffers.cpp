#include "engine/flat_buffers.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace lockstep::engine {

FlatBuffers::FlatBuffers(comm::Communicator& comm, DeviceApi& device, const FlatLayout& layout, DType compute,
                         const optim::Optimizer& optimizer)
    : elements_(layout.size()), compute_(compute), names_{"master"} {
  const auto elements = static_cast<std::size_t>(elements_);
  master_ = comm.make_arena(device, elements * sizeof(float));
  grad_ = comm.make_arena(device, elements * sizeof(float));
  if (compute != DType::f32) param16_ = comm.make_arena(device, elements * size_of(compute));
  for (const std::string& moment : optimizer.moments()) {
    names_.push_back(moment);
    moments_.push_back(comm.make_arena(device, elements * sizeof(float)));
  }
}

std::vector<float*> FlatBuffers::moments() const {
  std::vector<float*> result;
  for (const auto& arena : moments_) result.push_back(as_float(*arena));
  return result;
}

float* FlatBuffers::range(const std::string& name, std::int64_t begin, std::int64_t count) const {
  const auto found = std::ranges::find(names_, name);
  require(found != names_.end(), "engine: a range of an unknown buffer");
  require(begin >= 0 && count >= 0 && count <= elements_ - begin, "engine: a range outside the flat space");
  const auto index = static_cast<std::size_t>(found - names_.begin());
  return (index == 0 ? master() : as_float(*moments_[index - 1])) + begin;
}

std::size_t FlatBuffers::bytes() const {
  std::size_t total = master_->bytes() + grad_->bytes();
  if (param16_ != nullptr) total += param16_->bytes();
  for (const auto& arena : moments_) total += arena->bytes();
  return total;
}

}  // namespace lockstep::engine
