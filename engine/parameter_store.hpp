#pragma once

#include <functional>
#include <vector>

#include "core/device.hpp"
#include "engine/flat_buffers.hpp"
#include "engine/flat_layout.hpp"
#include "engine/unit_schedule.hpp"
#include "engine/unit_values.hpp"
#include "nn/parameter.hpp"

namespace lockstep::engine {

/// Where the passes find parameters and leave gradients, in every ZeRO stage: parameters in the flat buffers or where
/// UnitValues puts them, gradients in a whole buffer or in the windows of GradientSync.
class FlatStore final : public nn::ParameterStore {
 public:
  /// `on_contribution(slice)` is called when a contribution to a slice's gradient was enqueued, `on_acquire(unit)` and
  /// `on_release(unit)` when backward comes to a unit and has left it. `values` null: the buffers are whole and no rank
  /// updates parts of them. `windows` null: begin_sum says where gradients are.
  FlatStore(const FlatLayout& layout, const FlatBuffers& buffers, StreamRef stream, UnitValues* values,
            const GradientWindows* windows, std::function<void(int)> on_contribution,
            std::function<void(int)> on_acquire, std::function<void(int)> on_release);

  void acquire(int unit, nn::Phase phase) override {
    if (values_ != nullptr) values_->acquire(unit, phase, stream_);
    if (phase == nn::Phase::backward) on_acquire_(unit);
  }
  void release(int unit, nn::Phase phase) override {
    if (phase == nn::Phase::backward) on_release_(unit);
    if (values_ != nullptr) values_->release(unit, phase);
  }
  [[nodiscard]] const void* value(nn::ParamId id) override;
  [[nodiscard]] std::uint64_t version(nn::ParamId /*id*/) override { return version_; }
  [[nodiscard]] nn::GradView grad(nn::ParamId id) override;
  void grad_contributed(nn::ParamId id) override;

  /// The next contribution to each gradient is the first one of a sum that is kept at `grads`: laid out as the flat
  /// space, or the windows' memory.
  void begin_sum(float* grads) {
    grads_ = grads;
    begun_.assign(begun_.size(), false);
  }
  void values_changed() { ++version_; }

 private:
  const FlatLayout& layout_;
  const FlatBuffers& buffers_;
  StreamRef stream_;
  UnitValues* values_;
  const GradientWindows* windows_;
  std::vector<FlatRange> units_;  ///< where something is laid out by unit
  std::function<void(int)> on_contribution_;
  std::function<void(int)> on_acquire_;
  std::function<void(int)> on_release_;
  float* grads_;
  std::vector<bool> begun_;  ///< by slice: something has been contributed to its gradient in this sum
  std::uint64_t version_ = 1;
};

}  // namespace lockstep::engine
