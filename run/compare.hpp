#pragma once

#include <string>

namespace lockstep::run {

struct Comparison {
  /// Every step that both runs have has the same loss_bits in both, and there is such a step.
  bool same = false;
  std::string text;  ///< for people, complete with its last newline
};

/// Two runs side by side: where their jobs differ, who computed them, their ends, and the first step whose loss has
/// other bits. Only losses decide `same`: a job that differs in run.name, or one run that is shorter, may still have
/// the same bits. Throws as read_run.
[[nodiscard]] Comparison compare_runs(const std::string& a, const std::string& b);

}  // namespace lockstep::run
