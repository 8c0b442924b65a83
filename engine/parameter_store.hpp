#pragma once

#include <functional>
#include <vector>

#include "core/device.hpp"
#include "engine/flat_buffers.hpp"
#include "engine/flat_layout.hpp"
#include "nn/parameter.hpp"

namespace lockstep::engine {

/// ZeRO stage 0: every rank holds everything, so acquire and release have nothing to do.
class FlatStore final : public nn::ParameterStore {
 public:
  /// `on_contribution(slice)` is called when a contribution to a slice's gradient was enqueued.
  FlatStore(const FlatLayout& layout, const FlatBuffers& buffers, std::function<void(int)> on_contribution);

  void acquire(int /*unit*/, nn::Phase /*phase*/) override {}
  void release(int /*unit*/, nn::Phase /*phase*/) override {}
  [[nodiscard]] const void* value(nn::ParamId id) override;
  [[nodiscard]] std::uint64_t version(nn::ParamId /*id*/) override { return version_; }
  [[nodiscard]] nn::GradView grad(nn::ParamId id) override;
  void grad_contributed(nn::ParamId id) override;

  /// The next contribution to each gradient is the first one of a sum that is kept at `grads`, laid out as the flat
  /// space.
  void begin_sum(float* grads) {
    grads_ = grads;
    begun_.assign(begun_.size(), false);
  }
  void values_changed() { ++version_; }

 private:
  const FlatLayout& layout_;
  const FlatBuffers& buffers_;
  std::function<void(int)> on_contribution_;
  float* grads_;
  std::vector<bool> begun_;  ///< by slice: something has been contributed to its gradient in this sum
  std::uint64_t version_ = 1;
};

}  // namespace lockstep::engine
