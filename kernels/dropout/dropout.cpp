#include "kernels/dropout/dropout.hpp"

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "kernels/element.hpp"
#include "kernels/table.hpp"

namespace lockstep {

void set_probability(DropoutArgs& args, double probability) {
  require(probability >= 0 && probability < 1, "dropout: the probability must be at least 0 and less than 1");
  const double units = std::min(std::nearbyint(probability * 0x1p32), 0x1p32 - 1);
  args.threshold = static_cast<std::uint32_t>(units);
  args.scale = static_cast<float>(1.0 / (1.0 - units * 0x1p-32));
}

namespace kernels {

void dropout(const Exec& exec, const DropoutArgs& args) {
  require(is_compute_dtype(args.dtype), "dropout: dtype must be f32, bf16 or f16");
  require(args.rows >= 0 && args.cols >= 0, "dropout: rows and cols must not be negative");
  if (args.rows == 0 || args.cols == 0) return;
  require(args.x != nullptr && args.y != nullptr, "dropout: x and y are needed");
  check(exec.table->dropout(exec, args));
}

}  // namespace kernels
}  // namespace lockstep
