#include "run/thread_waits.hpp"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace lockstep::run {
namespace {

/// Looks at the barrier before sleeping; each is one `pause`, about 40 ns on current Xeons: 120 microseconds, twice
/// what going to sleep and waking up costs.
constexpr const char* looks = "3000";

}  // namespace

void bound_thread_waits(char** arguments) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  std::error_code error;
  // Not /proc/self/exe itself: the process would be called "exe".
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return;
  setenv("GOMP_SPINCOUNT", looks, 1);
  execv(program.c_str(), arguments);
}

}  // namespace lockstep::run
