#pragma once

#include <cstddef>
#include <cstdint>

#include "core/host_device.hpp"
#include "core/step_values.hpp"

namespace lockstep {

/// Head of a StepRecord, followed in memory by rows[count][groups].
///
/// Rank 0 evaluates the schedule and broadcasts this every step. The table covers every schedule index that the
/// steps still in flight leave possible; the device picks row `applied - first_index` by its own count, so a skipped
/// step does not advance the schedule and nobody waits for the host.
struct alignas(64) StepRecord {
  std::int64_t step = 0;         ///< attempted steps before this one
  std::int64_t first_index = 0;  ///< update index of row 0
  std::int32_t count = 0;        ///< indices in the table, 1..max_step_rows
  std::int32_t groups = 0;
  std::uint64_t digest = 0;  ///< of everything else in the record, by record_digest

  [[nodiscard]] LOCKSTEP_HOST_DEVICE const StepValues* rows() const {
    return reinterpret_cast<const StepValues*>(this + 1);
  }
  [[nodiscard]] LOCKSTEP_HOST_DEVICE StepValues* rows() { return reinterpret_cast<StepValues*>(this + 1); }
};

inline constexpr std::int32_t max_step_rows = 64;

[[nodiscard]] constexpr std::size_t record_bytes(std::int32_t count, std::int32_t groups) {
  return sizeof(StepRecord) + sizeof(StepValues) * static_cast<std::size_t>(count) * static_cast<std::size_t>(groups);
}

/// FNV-1a over the header (without the digest) and the rows. Any differing bit of any value changes it.
[[nodiscard]] std::uint64_t record_digest(const StepRecord& record);

/// What a step needs from the host, besides its batches: one block, always at the same place in the device's memory and
/// filled by one copy before the step, so that a step that was recorded once can be replayed. Followed in memory by a
/// StepRecord: this rank's, then, once it was broadcast, rank 0's.
struct alignas(64) StepInputs {
  std::uint64_t own_digest = 0;  ///< of the record that this rank evaluated
  std::int64_t stop = 0;         ///< what this rank wishes (Engine::wish_to_save and its like), as bits

  [[nodiscard]] LOCKSTEP_HOST_DEVICE const StepRecord& record() const {
    return *reinterpret_cast<const StepRecord*>(this + 1);
  }
  [[nodiscard]] LOCKSTEP_HOST_DEVICE StepRecord& record() { return *reinterpret_cast<StepRecord*>(this + 1); }
};

/// Why nothing changes any more. Sticky; the host sees it a few steps late and reports the exact step.
enum class Halt : std::int32_t { none = 0, scale_floor = 1, desync = 2, non_finite = 3 };

/// The training state that advances with each step, on the device: one POD, equal on every rank.
struct StepState {
  std::int64_t applied = 0;     ///< updates applied; the schedule's clock
  std::int64_t attempted = 0;   ///< steps taken, skipped ones included
  double scale = 1.0;           ///< loss scale of the next backward pass
  std::int64_t hysteresis = 0;  ///< overflows still forgiven
  std::int64_t iteration = 0;   ///< of the loss scaler
  std::int64_t last_overflow = -1;
  std::int64_t first_bad = -1;  ///< flat index of the first non-finite gradient of the last bad step
  Halt halt = Halt::none;
  std::int32_t skip = 0;     ///< this step's update must change nothing
  double grad_factor = 1.0;  ///< gradient sum -> clipped mean: 1 / (scale * divisor * max(1, norm / clip))
};

/// One group's numbers for this step's update kernels; written by decide.
struct GroupStep : StepValues {
  double correction1 = 1;  ///< 1 - beta1^t, t = applied updates + 1; 1 without bias correction
  double correction2 = 1;

  /// The same in float, derived in double and rounded once: what updates in float read, so that the threads of a device
  /// neither divide nor round doubles.
  struct Rounded {
    float lr = 0;
    float beta1 = 0;
    float rest1 = 1;  ///< 1 - beta1
    float beta2 = 0;
    float rest2 = 1;  ///< 1 - beta2
    float momentum = 0;
    float weight_decay = 0;
    float uncorrected1 = 1;  ///< 1 / correction1
    float uncorrected2 = 1;  ///< 1 / correction2
  } rounded;

  GroupStep() = default;
  LOCKSTEP_HOST_DEVICE constexpr GroupStep(const StepValues& values, double c1 = 1, double c2 = 1)
      : StepValues(values), correction1(c1), correction2(c2) {
    round();
  }
  /// In the order of StepValues.
  constexpr GroupStep(double lr_, double beta1_, double beta2_, double momentum_, double decay, double c1, double c2)
      : GroupStep(StepValues{lr_, beta1_, beta2_, momentum_, decay}, c1, c2) {}

  /// Sets `rounded`: for who changes one of the doubles.
  LOCKSTEP_HOST_DEVICE constexpr void round() {
    rounded = {static_cast<float>(lr),
               static_cast<float>(beta1),
               static_cast<float>(1.0 - beta1),
               static_cast<float>(beta2),
               static_cast<float>(1.0 - beta2),
               static_cast<float>(momentum),
               static_cast<float>(weight_decay),
               static_cast<float>(1.0 / correction1),
               static_cast<float>(1.0 / correction2)};
  }
};

/// What each rank tells the others once a step; all-gathered, reduced in rank order.
struct alignas(64) StepReport {
  double norm2 = 0;             ///< sum of squares of this rank's part of the scaled gradient sum
  std::int64_t first_bad = -1;  ///< flat index of its first non-finite element, or -1
  double loss_sum = 0;          ///< summed over targets, unscaled
  double weight_sum = 0;        ///< number of targets
  std::int64_t stop = 0;        ///< what this rank wishes, as bits
};
static_assert(sizeof(StepReport) == 64);

/// What the host reads back, up to three steps late; followed in memory by values[groups], those that the update
/// kernels of this step read (of a skipped step: would have read).
struct alignas(64) StepResult {
  std::int64_t step = 0;     ///< attempted steps before this one
  std::int64_t applied = 0;  ///< updates applied after it
  double loss = 0;           ///< mean over the global batch
  double grad_norm = 0;      ///< of the mean gradient, before clipping
  double scale = 1;          ///< that this step's loss was multiplied with
  double next_scale = 1;
  std::int64_t first_bad = -1;
  std::int64_t stop = 0;  ///< what ranks wish: the bits of all of them
  Halt halt = Halt::none;
  std::int32_t skipped = 0;

  [[nodiscard]] LOCKSTEP_HOST_DEVICE const StepValues* values() const {
    return reinterpret_cast<const StepValues*>(this + 1);
  }
  [[nodiscard]] LOCKSTEP_HOST_DEVICE StepValues* values() { return reinterpret_cast<StepValues*>(this + 1); }
};

[[nodiscard]] constexpr std::size_t result_bytes(std::int32_t groups) {
  return sizeof(StepResult) + sizeof(StepValues) * static_cast<std::size_t>(groups);
}

/// Loss scaling (fp16) and what a non-finite gradient means. Variant A of DeepSpeed's two state machines.
struct ScalerConfig {
  /// scaled: fp16. skip: leave the update out and say so (bf16). halt: stop the run (fp32).
  enum class OnOverflow : std::int32_t { scaled = 0, skip = 1, halt = 2 };
  OnOverflow on_overflow = OnOverflow::halt;
  std::int32_t dynamic = 0;  ///< 0: the scale never moves
  double initial_scale = 1.0;
  double min_scale = 1.0;
  std::int64_t window = 1000;  ///< clean steps between doublings
  std::int64_t hysteresis = 2;
  std::int32_t consecutive_hysteresis = 0;
};

}  // namespace lockstep
