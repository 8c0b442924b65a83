#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "kernels/table.hpp"
#include "nn/context.hpp"
#include "nn/model.hpp"
#include "tests/support/memory_store.hpp"
#include "tests/support/places.hpp"
#include "tests/support/shared_memory.hpp"

namespace lockstep::testing {

/// "reference", or the name of a TestPlace.
[[nodiscard]] inline const KernelTable& table_named(const std::string& name) {
  if (name == "reference") return kernels::reference_table();
  return (name == "cpu" ? cpu_place : name == "emulated" ? emulated_place : cuda_place).kernels();
}
[[nodiscard]] inline std::unique_ptr<DeviceApi> device_for(const std::string& table) {
  if (table == "reference") return make_cpu_device();
  return (table == "cpu" ? cpu_place : table == "emulated" ? emulated_place : cuda_place).make_device();
}

/// An implementation to run on, with its device and context.
class Rig {
 public:
  explicit Rig(const std::string& table) : Rig(table_named(table), device_for(table)) {}
  explicit Rig(const KernelTable& table, std::unique_ptr<DeviceApi> device = make_cpu_device())
      : device_(std::move(device)), context_(table, *device_) {
    exec_ = {.table = &table, .device = device_.get(), .stream = {}, .threads = 1, .context = context_.get()};
  }
  [[nodiscard]] const Exec& exec() const { return exec_; }
  [[nodiscard]] DeviceApi& device() const { return *device_; }
  void synchronize() const { device_->synchronize(exec_.stream); }
  /// `values` where the device can read them, as long as the rig lives.
  template <class T>
  [[nodiscard]] const T* keep(const std::vector<T>& values) const {
    kept_.emplace_back(*device_, values.size() * sizeof(T));
    std::copy(values.begin(), values.end(), kept_.back().as<T>().data());
    return kept_.back().as<T>().data();
  }

 private:
  std::unique_ptr<DeviceApi> device_;
  kernels::Context context_;
  Exec exec_;
  mutable std::vector<SharedMemory> kept_;
};

/// Cases of `table` skip, visibly, where the machine cannot run it.
inline void skip_unless_available(const std::string& table) {
  if (table == "cuda" && !why_no_cuda().empty()) GTEST_SKIP() << why_no_cuda();
}

/// Every implementation; and those that are done at once.
[[nodiscard]] inline auto all_tables() { return ::testing::Values("reference", "cpu", "emulated", "cuda"); }
[[nodiscard]] inline auto immediate_tables() { return ::testing::Values("reference", "cpu"); }

/// By table.
class TableTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { skip_unless_available(GetParam()); }
  [[nodiscard]] static const std::string& table() { return GetParam(); }
};

/// A batch in memory of device and host.
class TestBatch {
 public:
  TestBatch(DeviceApi& device, nn::BatchShape shape, std::int64_t features = 0)
      : tokens_(device, static_cast<std::size_t>(shape.batch * shape.length) * sizeof(std::int32_t)),
        targets_(device, tokens_.bytes()),
        features_(device, static_cast<std::size_t>(shape.batch * features) * sizeof(float)),
        grad_factor_(device, sizeof(double)) {
    batch_ = {.shape = shape,
              .tokens = tokens_.as<std::int32_t>().data(),
              .features = features_.as<float>().data(),
              .targets = targets_.as<std::int32_t>().data(),
              .grad_factor = grad_factor_.as<double>().data()};
  }
  [[nodiscard]] View<std::int32_t> tokens() const { return tokens_.as<std::int32_t>(); }
  [[nodiscard]] View<std::int32_t> targets() const { return targets_.as<std::int32_t>(); }
  [[nodiscard]] View<float> features() const { return features_.as<float>(); }
  /// As one of so many micro-batches of a step.
  [[nodiscard]] nn::Batch get(int micro_batches = 1) const {
    grad_factor_.as<double>()[0] = 1 / (counted_targets(batch_) * micro_batches);
    return batch_;
  }
  [[nodiscard]] static double counted_targets(const nn::Batch& batch) {
    const std::int32_t* const end = batch.targets + batch.shape.batch * batch.shape.length;
    return static_cast<double>(std::count_if(batch.targets, end, [](std::int32_t target) { return target >= 0; }));
  }

 private:
  SharedMemory tokens_;
  SharedMemory targets_;
  SharedMemory features_;
  SharedMemory grad_factor_;
  nn::Batch batch_;
};

/// The tokens and targets of record_gpt2_oracle.py; one target is not counted.
inline void fill_tokens(const TestBatch& batch, std::int32_t vocabulary) {
  for (std::size_t i = 0; i < batch.tokens().size(); ++i) {
    const auto position = static_cast<std::int32_t>(i);
    batch.tokens()[i] = (7 * position + 3) % vocabulary;
    batch.targets()[i] = i == 3 ? -1 : (5 * position + 1) % vocabulary;
  }
}

struct PassOptions {
  DType compute = DType::f32;
  nn::Mode mode = nn::Mode::train;
  const StepState* state = nullptr;
};

/// One micro-batch in exactly the memory that was planned; backward too if it trains. Returns the mean loss.
inline double run_pass(const Rig& rig, nn::Model& model, const nn::Plan& plan, nn::ParameterStore& store,
                       const nn::Batch& batch, const PassOptions& options = {}) {
  const SharedMemory memory(rig.device(), plan.train_bytes);
  const SharedMemory loss(rig.device(), sizeof(LossSum));
  nn::Workspace workspace(memory.data(), memory.bytes());
  {
    nn::Context context({.exec = rig.exec(),
                         .compute = options.compute,
                         .store = &store,
                         .workspace = &workspace,
                         .mode = options.mode,
                         .expected = &plan.ops,
                         .loss = loss.as<LossSum>().data(),
                         .state = options.state});
    model.loss(context, batch);
    if (options.mode == nn::Mode::train) context.backward();
  }
  rig.synchronize();
  EXPECT_EQ(workspace.in_use(), 0U);
  EXPECT_EQ(workspace.peak(), plan.train_bytes);
  const LossSum sum = loss.as<LossSum>()[0];
  EXPECT_EQ(sum.weight, TestBatch::counted_targets(batch));
  return sum.loss / sum.weight;
}

}  // namespace lockstep::testing
