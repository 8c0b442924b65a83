#include "run/bench/interference.hpp"

#include <dirent.h>
#include <sys/resource.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>

namespace lockstep::run::bench {
namespace {

/// Second number of a thread's schedstat: nanoseconds on the run queue.
std::optional<double> waited_by(const std::string& thread) {
  const std::string path = "/proc/self/task/" + thread + "/schedstat";
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"), &std::fclose);
  unsigned long long ran = 0, waited = 0;
  if (file == nullptr || std::fscanf(file.get(), "%llu %llu", &ran, &waited) != 2) return std::nullopt;
  return static_cast<double>(waited) * 1e-9;
}

}  // namespace

double seconds_kept_waiting() {
  double seconds = 0;
  bool known = false;
  if (DIR* threads = opendir("/proc/self/task")) {
    while (const dirent* entry = readdir(threads)) {
      if (entry->d_name[0] == '.') continue;
      const std::optional<double> waited = waited_by(entry->d_name);
      if (!waited) continue;  // it has ended meanwhile
      seconds += *waited;
      known = true;
    }
    closedir(threads);
  }
  if (known) return seconds;
  constexpr double usual_slice = 4e-3;
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? usual_slice * static_cast<double>(usage.ru_nivcsw) : 0;
}

}  // namespace lockstep::run::bench
