#pragma once

// What a product begins with where the library does not do it all: our own kernel in matmul.cu.

#include "kernels/matmul/matmul.hpp"

namespace lockstep::kernels {

namespace emu {
/// c <- (accumulate: c) + (bias, where there is one): the whole product where k is 0.
void matmul_start(const Exec& exec, const MatmulArgs& args);
}  // namespace emu
namespace cuda {
void matmul_start(const Exec& exec, const MatmulArgs& args);
}

}  // namespace lockstep::kernels
