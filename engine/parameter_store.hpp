#pragma once

#include <functional>
#include <vector>

#include "core/device.hpp"
#include "engine/flat_layout.hpp"
#include "nn/parameter.hpp"

namespace lockstep::engine {

/// The flat buffers of one rank, by pointer; all share the layout of the flat space.
struct FlatBuffers {
  float* master = nullptr;  ///< fp32 parameters
  void* param16 = nullptr;  ///< 16-bit copy that the passes read; null in fp32 training
  float* grad = nullptr;    ///< fp32 gradient sum of the micro-batches
  DType compute = DType::f32;
};

/// ZeRO stage 0: every rank holds everything, so acquire and release have nothing to do.
class FlatStore final : public nn::ParameterStore {
 public:
  /// `on_complete(slice)` is called when the last contribution of a micro-batch to a slice's gradient was enqueued.
  FlatStore(const FlatLayout& layout, const nn::Plan& plan, FlatBuffers buffers, std::function<void(int)> on_complete);

  void acquire(int /*unit*/, nn::Phase /*phase*/) override {}
  void release(int /*unit*/, nn::Phase /*phase*/) override {}
  [[nodiscard]] const void* value(nn::ParamId id) override;
  [[nodiscard]] std::uint64_t version(nn::ParamId /*id*/) override { return version_; }
  [[nodiscard]] float* grad(nn::ParamId id) override { return buffers_.grad + layout_.of(id).begin; }
  void grad_contributed(nn::ParamId id) override;

  void begin_micro_batch();
  void values_changed() { ++version_; }

 private:
  const FlatLayout& layout_;
  std::vector<int> uses_;  ///< by parameter, per micro-batch
  std::vector<int> remaining_;
  FlatBuffers buffers_;
  std::function<void(int)> on_complete_;
  std::uint64_t version_ = 1;
};

}  // namespace lockstep::engine
