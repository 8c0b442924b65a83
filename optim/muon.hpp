#pragma once

#include "optim/optimizer.hpp"

namespace lockstep::optim {

/// Muon for the matrices among `tensors`, AdamW for the rest. Matrices keep their momentum in exp_avg.
[[nodiscard]] std::unique_ptr<Optimizer> make_muon(const OptimizerOptions& options, const std::vector<Tensor>& tensors);

}  // namespace lockstep::optim
