#pragma once

// Parameter stores for tests, both on a device whose work is done at once or that the caller synchronises.

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <vector>

#include "core/device.hpp"
#include "core/error.hpp"
#include "nn/parameter.hpp"
#include "nn/plan.hpp"
#include "tests/support/shared_memory.hpp"

namespace lockstep::testing {

/// Value of element `element` of parameter `id` before training.
using InitialValue = std::function<double(nn::ParamId id, std::int64_t element)>;

/// 0.25 sin(0.017 i^2 + 0.61 i + 1.7 id), plus 1 for a norm's weight: what record_gpt2_oracle.py uses too.
inline InitialValue sine_values(const std::vector<nn::ParameterSpec>& specs) {
  return [&specs](nn::ParamId id, std::int64_t element) {
    const nn::ParameterSpec& spec = specs[static_cast<std::size_t>(id)];
    const auto i = static_cast<double>(element);
    return (spec.init == nn::Init::ones ? 1.0 : 0.0) + 0.25 * std::sin(0.017 * i * i + 0.61 * i + 1.7 * id);
  };
}

/// Everything whole and always there: fp32 masters, values in the compute dtype, fp32 gradients, in one flat space with
/// each parameter on a 256-byte boundary.
class MemoryStore : public nn::ParameterStore {
 public:
  MemoryStore(DeviceApi& device, const std::vector<nn::ParameterSpec>& specs, DType compute,
              const InitialValue& initial)
      : specs_(specs), compute_(compute), contributions_(specs.size(), 0), begun_(specs.size(), false) {
    std::size_t total = 0;
    for (const nn::ParameterSpec& spec : specs_) {
      offsets_.push_back(total);
      total += (static_cast<std::size_t>(spec.stored_elements()) + 63) / 64 * 64;
    }
    elements_ = total;
    masters_ = SharedMemory(device, total * sizeof(float));
    grads_ = SharedMemory(device, total * sizeof(float));
    if (compute != DType::f32) values_ = SharedMemory(device, total * size_of(compute));
    for (std::size_t id = 0; id < specs_.size(); ++id)
      for (std::int64_t i = 0; i < specs_[id].elements(); ++i)
        master(static_cast<nn::ParamId>(id))[i] = static_cast<float>(initial(static_cast<nn::ParamId>(id), i));
    changed();
    begin_step();
  }

  void acquire(int unit, nn::Phase phase) override {
    require(!open_.contains(unit), "MemoryStore: unit acquired twice");
    open_[unit] = phase;
  }
  void release(int unit, nn::Phase phase) override {
    require(open_.contains(unit) && open_.at(unit) == phase, "MemoryStore: released a unit that is not acquired");
    open_.erase(unit);
  }
  [[nodiscard]] const void* value(nn::ParamId id) override {
    require_open(id);
    return whole_value(id);
  }
  [[nodiscard]] std::uint64_t version(nn::ParamId) override { return version_; }
  [[nodiscard]] nn::GradView grad(nn::ParamId id) override {
    require_open(id);
    return {.data = flat_grads() + offset(id), .first = !begun_[static_cast<std::size_t>(id)]};
  }
  void grad_contributed(nn::ParamId id) override {
    count_contribution(id);
    begun_[static_cast<std::size_t>(id)] = true;
  }

  /// To be called after masters were written.
  void changed() {
    ++version_;
    for (std::size_t i = 0; compute_ != DType::f32 && i < elements_; ++i) {
      const float from = flat_masters()[i];
      if (compute_ == DType::bf16) reinterpret_cast<bf16*>(values_.data())[i] = bf16(from);
      if (compute_ == DType::f16) reinterpret_cast<f16*>(values_.data())[i] = f16(from);
    }
  }
  /// The next contribution to each gradient is the first one. Until then it is NaN, so that a kernel that adds where it
  /// should write, or leaves an element out, shows.
  void begin_step() {
    begun_.assign(begun_.size(), false);
    for (std::size_t p = 0; p < specs_.size(); ++p)
      std::fill_n(flat_grads() + offsets_[p], specs_[p].stored_elements(), std::numeric_limits<float>::quiet_NaN());
  }

  // What a test reads; no bracket needed.
  [[nodiscard]] float* master(nn::ParamId id) { return flat_masters() + offset(id); }
  [[nodiscard]] const float* final_grad(nn::ParamId id) const { return flat_grads() + offset(id); }
  [[nodiscard]] float* flat_masters() const { return reinterpret_cast<float*>(masters_.data()); }
  [[nodiscard]] float* flat_grads() const { return reinterpret_cast<float*>(grads_.data()); }
  [[nodiscard]] std::size_t offset(nn::ParamId id) const { return offsets_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] std::size_t flat_elements() const { return elements_; }
  [[nodiscard]] const std::vector<int>& contributions() const { return contributions_; }
  [[nodiscard]] const std::vector<nn::ParameterSpec>& specs() const { return specs_; }

 protected:
  [[nodiscard]] DType compute() const { return compute_; }
  [[nodiscard]] const std::byte* whole_value(nn::ParamId id) const {
    return (compute_ == DType::f32 ? masters_ : values_).data() + offset(id) * size_of(compute_);
  }
  void require_open(nn::ParamId id) const {
    require(open_.contains(specs_[static_cast<std::size_t>(id)].unit), "MemoryStore: used outside acquire and release");
  }
  [[nodiscard]] const std::map<int, nn::Phase>& open() const { return open_; }
  /// Adds a finished sum of one micro-batch to the step's.
  void add_to_step(nn::ParamId id, const std::vector<float>& sum) {
    float* const to = flat_grads() + offset(id);
    const bool first = !begun_[static_cast<std::size_t>(id)];
    for (std::size_t i = 0; i < sum.size(); ++i) to[i] = first ? sum[i] : to[i] + sum[i];
    begun_[static_cast<std::size_t>(id)] = true;
  }
  void count_contribution(nn::ParamId id) { ++contributions_[static_cast<std::size_t>(id)]; }

 private:
  std::vector<nn::ParameterSpec> specs_;
  DType compute_;
  std::vector<std::size_t> offsets_;
  std::size_t elements_ = 0;
  SharedMemory masters_;
  SharedMemory values_;
  SharedMemory grads_;
  std::map<int, nn::Phase> open_;
  std::vector<int> contributions_;
  std::vector<bool> begun_;  ///< by parameter: the step has contributed to its gradient
  std::uint64_t version_ = 0;
};

/// As ZeRO stage 3 has it, without ranks: between uses values exist only in uneven shards. acquire gathers a unit into
/// one of three places that take turns, so a weight lies elsewhere at each use and others lie where it was; release
/// poisons the place. Gradients too exist only from the unit's first backward use until its last contribution has come;
/// then they are cut into shards. On a device whose work is done at once.
class GatheringStore final : public MemoryStore {
 public:
  GatheringStore(DeviceApi& device, const std::vector<nn::ParameterSpec>& specs, DType compute,
                 const InitialValue& initial, std::vector<int> grad_uses)
      : MemoryStore(device, specs, compute, initial), uses_(std::move(grad_uses)), left_(uses_) {
    std::map<int, std::size_t> bytes;
    for (const nn::ParameterSpec& spec : specs) bytes[spec.unit] += aligned_bytes(spec);
    std::size_t largest = 0;
    for (const auto& [unit, of_unit] : bytes) largest = std::max(largest, of_unit);
    for (SharedMemory& place : places_) place = SharedMemory(device, largest);
    scatter();
  }

  void acquire(int unit, nn::Phase phase) override {
    require(open().empty(), "GatheringStore: units are used one after another");
    MemoryStore::acquire(unit, phase);
    ++acquired_;
    std::byte* at = place().data();
    for_each_of(unit, [&](nn::ParamId id, std::size_t count) {
      gathered_[id] = at;
      std::byte* end = at;
      for (const std::vector<std::byte>& shard : shards_[id]) end = std::copy(shard.begin(), shard.end(), end);
      require(end == at + count * size_of(compute()), "GatheringStore: shards do not make up the parameter");
      at += aligned_bytes(specs()[static_cast<std::size_t>(id)]);
      if (phase == nn::Phase::backward && !unit_grads_.contains(id))
        unit_grads_[id].assign(count, std::numeric_limits<float>::quiet_NaN());
    });
  }
  void release(int unit, nn::Phase phase) override {
    MemoryStore::release(unit, phase);
    for_each_of(unit, [&](nn::ParamId id, std::size_t) {
      gathered_.erase(id);
      if (phase == nn::Phase::forward || left_[static_cast<std::size_t>(id)] > 0) return;
      std::vector<float>& grad = unit_grads_.at(id);
      add_to_step(id, grad);
      grad.assign(grad.size(), std::numeric_limits<float>::quiet_NaN());
      unit_grads_.erase(id);
      left_[static_cast<std::size_t>(id)] = uses_[static_cast<std::size_t>(id)];
    });
    // All bits set are a NaN in every type.
    std::fill_n(place().data(), place().bytes(), std::byte{0xFF});
  }
  [[nodiscard]] const void* value(nn::ParamId id) override {
    require_open(id);
    return gathered_.at(id);
  }
  [[nodiscard]] nn::GradView grad(nn::ParamId id) override {
    require_open(id);
    const auto index = static_cast<std::size_t>(id);
    return {.data = unit_grads_.at(id).data(), .first = left_[index] == uses_[index]};
  }
  void grad_contributed(nn::ParamId id) override {
    count_contribution(id);
    require(--left_[static_cast<std::size_t>(id)] >= 0, "GatheringStore: more contributions than planned");
  }

  /// Cuts the values into shards: to be called after masters were written.
  void scatter() {
    changed();
    for (std::size_t p = 0; p < specs().size(); ++p) {
      const auto id = static_cast<nn::ParamId>(p);
      const auto count = static_cast<std::size_t>(specs()[p].stored_elements());
      const std::byte* from = whole_value(id);
      const std::size_t cuts[] = {0, count / 5, count / 2, count};
      shards_[id].clear();
      for (int s = 0; s < 3; ++s)
        shards_[id].emplace_back(from + cuts[s] * size_of(compute()), from + cuts[s + 1] * size_of(compute()));
    }
  }
  /// Nothing is gathered any more and no gradient waits for a contribution.
  [[nodiscard]] bool idle() const { return gathered_.empty() && unit_grads_.empty() && open().empty(); }

 private:
  template <class F>
  void for_each_of(int unit, F f) {
    for (std::size_t p = 0; p < specs().size(); ++p)
      if (specs()[p].unit == unit)
        f(static_cast<nn::ParamId>(p), static_cast<std::size_t>(specs()[p].stored_elements()));
  }
  /// Of the unit that was acquired last. Each place serves two units, one after the other: neighbouring blocks lie at
  /// the same address within one pass.
  [[nodiscard]] const SharedMemory& place() const { return places_[acquired_ / 2 % 3]; }
  /// What a parameter takes of a place: whole pieces of 256 bytes.
  [[nodiscard]] std::size_t aligned_bytes(const nn::ParameterSpec& spec) const {
    return (static_cast<std::size_t>(spec.stored_elements()) * size_of(compute()) + 255) / 256 * 256;
  }

  std::map<nn::ParamId, std::vector<std::vector<std::byte>>> shards_;
  std::array<SharedMemory, 3> places_;
  std::size_t acquired_ = 0;  ///< units so far
  std::map<nn::ParamId, const std::byte*> gathered_;
  std::map<nn::ParamId, std::vector<float>> unit_grads_;
  std::vector<int> uses_;
  std::vector<int> left_;  ///< contributions still to come in this micro-batch
};

}  // namespace lockstep::testing
