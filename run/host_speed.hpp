#pragma once

#include "engine/engine.hpp"

namespace lockstep::run {

/// Floating-point operations a second of a product of 768 x 768 matrices on a device that works at once, the fastest of
/// a few: some 20 milliseconds.
[[nodiscard]] double product_speed(const engine::Place& place, DType dtype);
/// Bytes a second of an update in place of 64 MiB of host memory, the fastest of a few.
[[nodiscard]] double memory_speed(const engine::Place& place);

}  // namespace lockstep::run
