#include "kernels/exec.hpp"

#include "core/error.hpp"

namespace lockstep::kernels {

void check(Status status) {
  if (status.error != nullptr) fail(status.kind, "{}", status.error);
}

}  // namespace lockstep::kernels
