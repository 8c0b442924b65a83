#pragma once

#include "run/bench/measure.hpp"
#include "run/bench/workbench.hpp"

namespace lockstep::run::bench {

/// A product of the given sizes on memory of the bench; `args` has everything but pointers and leading dimensions,
/// which are the stored widths. `name` names the task. A weight (args.b_param >= 0) keeps its packed copy, as within a
/// step.
[[nodiscard]] Task product(Workbench& bench, const std::string& name, MatmulArgs args);

/// The ceiling for everything that is made of products: large ones, a square one and one with a wide result, in the
/// group peak_group(dtype). Edge 0 is chosen for the device.
[[nodiscard]] std::vector<Task> peak_products(Workbench& bench, DType dtype, std::int64_t edge);
[[nodiscard]] std::string peak_group(DType dtype);

}  // namespace lockstep::run::bench
