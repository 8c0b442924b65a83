#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

/// What `lockstep config` was asked for.
struct ConfigOptions {
  enum class Show {
    effective,  ///< every key of the job, defaults filled in
    full,       ///< the same, and unset optimizer and scheduler parameters as comments
    minimal,    ///< only what differs from the defaults
    diff,       ///< one line for each difference
    reference,  ///< the reference page of all keys; needs no job file
    schema,     ///< the JSON Schema; needs no job file
  };
  std::string job;
  std::vector<std::string> overrides = {};
  Show show = Show::effective;
  std::int64_t ranks = 0;  ///< as mpirun -n would say; 0: not said
};

/// The text of `lockstep config`: the configuration as YAML, with what became of a DeepSpeed file's keys and
/// warnings as comments, so that the whole is a job file again.
///
/// What `lockstep train` would refuse before its first step, from the file and this machine, is refused here with the
/// same kind and text: a device, data that cannot be read, a pattern that matches no parameter, and batch sizes that
/// the ranks cannot share (with `ranks`, or the ranks of backend local; else one rank's are a remark).
/// Throws ErrorKind::config with all errors of the job file.
[[nodiscard]] std::string config_text(const ConfigOptions& options);

/// Prints it to standard output. Returns the exit code 0; errors of the job file are thrown, as by config_text, and
/// those of data and machine told as `lockstep train` tells them.
int config_command(const ConfigOptions& options);

}  // namespace lockstep
