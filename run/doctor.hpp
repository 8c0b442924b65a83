#pragma once

#include <string>
#include <vector>

namespace lockstep::run {

/// One thing that was looked at.
struct Finding {
  enum class Kind { ok, note, problem };
  Kind kind = Kind::ok;
  std::string what = {};    ///< "CPUs", "MPI", ...
  std::string text = {};    ///< what was found
  std::string remedy = {};  ///< what to do; of a problem never empty
};

/// Where to look: "" is the machine itself; tests have one of files.
struct DoctorOptions {
  std::string root;          ///< before /proc, /sys and /dev
  std::string folder = ".";  ///< where runs would be written
  bool launch = true;        ///< also starts two ranks with mpirun, if there is one
};

/// Looks at everything that training here depends on: CPUs and their instruction sets, memory, MPI and its launcher,
/// shared memory, the folder's locks, space and speed of flushing, GPU and CUDA module. Takes up to some 10 seconds.
[[nodiscard]] std::vector<Finding> examine(const DoctorOptions& options = {});

/// As a table for people, problems with their remedies below it.
[[nodiscard]] std::string to_text(const std::vector<Finding>& findings);

/// 0, or that of ErrorKind::environment if there is a problem.
[[nodiscard]] int exit_code_of(const std::vector<Finding>& findings);

}  // namespace lockstep::run
