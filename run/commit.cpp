#include "run/commit.hpp"

#include <lockstep_commit.h>

namespace lockstep::run {

const char* build_commit() { return LOCKSTEP_COMMIT; }

}  // namespace lockstep::run
