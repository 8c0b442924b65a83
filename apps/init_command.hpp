#pragma once

#include <string>
#include <vector>

namespace lockstep {

/// A commented job file to start from.
struct Template {
  const char* name;
  const char* about;
  const char* text;  ///< of job.yaml
  const char* next;  ///< what to do before training; may be empty
};

[[nodiscard]] const std::vector<Template>& job_templates();

/// Writes the template's job.yaml into `folder`, which is made if it is not there, and says what to do next. Without a
/// name lists the templates. ErrorKind::config for an unknown name or where there is a job.yaml already.
int init_command(const std::string& name, const std::string& folder);

}  // namespace lockstep
