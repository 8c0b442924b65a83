#pragma once

#include "run/bench/measure.hpp"
#include "run/bench/workbench.hpp"

namespace lockstep::run::bench {

/// A product of the given sizes on memory of the bench; `args` has everything but pointers and leading dimensions,
/// which are the stored widths. `name` names the task. A weight (args.b_param >= 0) keeps its packed copy, as within a
/// step.
[[nodiscard]] Task product(Workbench& bench, const std::string& name, MatmulArgs args);

/// The ceiling for everything that is made of products: a large square one, edge 0 chosen for the device. Its name is
/// peak_name(dtype).
[[nodiscard]] Task peak_product(Workbench& bench, DType dtype, std::int64_t edge);
[[nodiscard]] std::string peak_name(DType dtype);

}  // namespace lockstep::run::bench
