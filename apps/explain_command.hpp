#pragma once

#include <string>

namespace lockstep {

/// `lockstep explain KEY`: prints what a key of the job file means, its values and its default. A path
/// ("run.steps"), the end of one ("lr") or a type name ("WarmupLR").
/// Returns the exit code 0; throws ErrorKind::config with the nearest key if there is none such.
int explain_command(const std::string& key);

}  // namespace lockstep
