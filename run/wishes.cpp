#include "run/wishes.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/log.hpp"

namespace lockstep::run {
namespace {

constexpr std::chrono::milliseconds between_looks{500};

}  // namespace

double mpirun_grace(const char* set) {
  if (set == nullptr || *set == '\0') return 1;
  char* end = nullptr;
  const double seconds = std::strtod(set, &end);
  return *end == '\0' && seconds >= 0 ? seconds : 1;
}

void Wishes::pass_on(engine::Engine& engine) {
  if (signals_.stop_asked()) engine.request_stop();
  if (signals_.take_save()) engine.request_save();
  const auto now = Clock::now();
  if (!root_ || cannot_remove_ || now - last_look_ < between_looks) return;
  last_look_ = now;
  if (take("SAVE")) engine.request_save();
  if (take("STOP")) engine.request_stop();
}

bool Wishes::take(const char* name) {
  const std::string path = folder_ + "/" + name;
  if (::unlink(path.c_str()) == 0) return true;
  if (errno == ENOENT) return false;
  log::warning(
      "{}: found, but it cannot be removed ({}), so it is not acted on; files STOP and SAVE are not looked for "
      "any more, signals are",
      path, std::strerror(errno));
  cannot_remove_ = true;
  return false;
}

void Wishes::saved(double seconds, Progress& progress) {
  if (!root_ || grace_told_ || std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) return;
  const double grace = mpirun_grace(std::getenv("OMPI_MCA_odls_base_sigkill_timeout"));
  if (seconds < grace) return;
  grace_told_ = true;
  progress.note(fmt::format(
      "the save took {:.1f} s, and after SIGTERM this mpirun kills the ranks in {:g} s: a stop by SIGTERM may lose the "
      "steps since the last checkpoint. Send SIGUSR2 instead, or start with --mca odls_base_sigkill_timeout {:.0f}",
      seconds, grace, 10 + 2 * seconds));
}

}  // namespace lockstep::run
