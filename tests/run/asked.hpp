#pragma once

#include <cstdlib>

namespace lockstep::run {

/// Asks for a drill while it lives.
struct Asked {
  explicit Asked(const char* drill) { setenv("LOCKSTEP_DRILL", drill, 1); }
  Asked(const Asked&) = delete;
  Asked& operator=(const Asked&) = delete;
  ~Asked() { unsetenv("LOCKSTEP_DRILL"); }
};

}  // namespace lockstep::run
