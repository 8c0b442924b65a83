#include "tests/support/source_dir.hpp"

namespace lockstep {

std::string source_dir() { return LOCKSTEP_SOURCE_DIR; }

}  // namespace lockstep
