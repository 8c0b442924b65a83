#pragma once

// decide's rule, once for host, emulator and device.

#include <cmath>

#include "kernels/decide/decide.hpp"
#include "kernels/tree_sum.hpp"

namespace lockstep {

/// The loss scaler alone, for one step. Returns false when an overflow met the minimum scale (the run must stop);
/// the state is then unchanged.
LOCKSTEP_HOST_DEVICE inline bool advance_scaler(const ScalerConfig& config, bool overflow, StepState& state) {
  if (config.on_overflow != ScalerConfig::OnOverflow::scaled || config.dynamic == 0) return true;
  if (overflow) {
    if (config.hysteresis == 1 || state.hysteresis == 1) {
      if (state.scale == config.min_scale) return false;
      const double halved = state.scale / 2;
      state.scale = halved > config.min_scale ? halved : config.min_scale;
    } else {
      --state.hysteresis;
    }
    state.last_overflow = state.iteration;
  } else {
    if (config.consecutive_hysteresis != 0) state.hysteresis = config.hysteresis;
    const std::int64_t clean = state.iteration - state.last_overflow - 1;
    if (clean > 0 && clean % config.window == 0) {
      if (config.consecutive_hysteresis == 0) state.hysteresis = config.hysteresis;
      state.scale *= 2;
    }
  }
  ++state.iteration;
  return true;
}

/// Everything kernels::decide does.
LOCKSTEP_HOST_DEVICE inline void decide_step(const DecideArgs& args) {
  StepState& state = *args.state;
  StepResult& result = *args.result;
  const StepRecord& record = args.inputs->record();

  double norm2 = 0, loss_sum = 0, weight_sum = 0;
  std::int64_t first_bad = -1, stop = 0;
  for (std::int32_t r = 0; r < args.world; ++r) {
    const StepReport& report = args.reports[r];
    if (args.replicated == 0 || r == 0) norm2 += report.norm2;
    loss_sum += report.loss_sum;
    weight_sum += report.weight_sum;
    if (report.first_bad >= 0 && (first_bad < 0 || report.first_bad < first_bad)) first_bad = report.first_bad;
    stop |= report.stop;
  }
  if (args.leaf_losses != nullptr) {
    const LossSum* const leaf = args.leaf_losses;
    const auto leaves = static_cast<std::uint64_t>(args.leaves);
    loss_sum = tree_sum(leaves, [leaf](std::uint64_t i) { return leaf[i].loss; });
    weight_sum = tree_sum(leaves, [leaf](std::uint64_t i) { return leaf[i].weight; });
  }
  const bool overflow = first_bad >= 0 || !std::isfinite(norm2);
  const double divisor = state.scale * args.grad_divisor;
  const double norm = std::sqrt(norm2) / divisor;

  result.step = state.attempted;
  result.loss = weight_sum > 0 ? loss_sum / weight_sum : 0;
  result.grad_norm = norm;
  result.scale = state.scale;
  result.stop = stop;

  const std::int64_t row = state.applied - record.first_index;
  if (state.halt == Halt::none) {
    const bool same = args.inputs->own_digest == record.digest;
    if (!same || record.step != state.attempted || row < 0 || row >= record.count || record.groups != args.groups) {
      state.halt = Halt::desync;
    } else if (overflow) {
      state.first_bad = first_bad;
      if (args.scaler.on_overflow == ScalerConfig::OnOverflow::halt)
        state.halt = Halt::non_finite;
      else if (!advance_scaler(args.scaler, true, state))
        state.halt = Halt::scale_floor;
    }
  }
  const StepValues* rows = record.rows() + row * args.groups;
  if (row >= 0 && row < record.count && record.groups == args.groups)
    for (std::int32_t g = 0; g < args.groups; ++g) result.values()[g] = rows[g];
  state.skip = (overflow || state.halt != Halt::none) ? 1 : 0;
  if (state.halt == Halt::none) ++state.attempted;
  if (state.skip == 0) {
    const double over = args.clip > 0 ? (norm + 1e-6) / args.clip : 0;
    state.grad_factor = 1.0 / (divisor * (over > 1 ? over : 1.0));
    const auto t = static_cast<double>(state.applied + 1);
    for (std::int32_t g = 0; g < args.groups; ++g) {
      const bool corrects = args.bias_correction != 0;
      args.group_steps[g] = GroupStep(rows[g], corrects ? 1.0 - std::pow(rows[g].beta1, t) : 1.0,
                                      corrects ? 1.0 - std::pow(rows[g].beta2, t) : 1.0);
    }
    ++state.applied;
    (void)advance_scaler(args.scaler, false, state);
  } else {
    state.grad_factor = 0;
  }
  result.applied = state.applied;
  result.next_scale = state.scale;
  result.first_bad = state.first_bad;
  result.halt = state.halt;
  result.skipped = state.skip;
}

}  // namespace lockstep
