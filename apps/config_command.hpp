#pragma once

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
};

/// The text of `lockstep config`: the configuration as YAML, with what became of a DeepSpeed file's keys and
/// warnings as comments, so that the whole is a job file again.
/// Throws ErrorKind::config with all errors of the job file.
[[nodiscard]] std::string config_text(const ConfigOptions& options);

/// Prints it to standard output. Returns the exit code 0; errors are thrown, as by config_text.
int config_command(const ConfigOptions& options);

}  // namespace lockstep
