#pragma once

namespace lockstep {

/// What one update uses for one parameter group: what a schedule gives, what the step's record carries to every rank,
/// what the update kernels read on the device and what comes back to be logged are these five numbers, and nowhere is
/// one of them worked out a second time. Doubles, the schedule's exact values; kernels round them once.
struct StepValues {
  double lr = 0;
  double beta1 = 0;     ///< Adam
  double beta2 = 0;     ///< Adam
  double momentum = 0;  ///< SGD
  double weight_decay = 0;
  bool operator==(const StepValues&) const = default;
};

}  // namespace lockstep
