#pragma once

#include <string>

namespace lockstep {

/// The checkout's root: where golden files and documentation pages lie.
[[nodiscard]] std::string source_dir();

}  // namespace lockstep
