#pragma once

#include <string>
#include <vector>

namespace lockstep {

/// `lockstep import FILE`: the text of a job file with the settings of a DeepSpeed file, and what became of each of its
/// keys as comments. `overrides` as for --set; they may name keys of either file. A model, data and a length, which a
/// DeepSpeed file does not say, are filled in for the user to change.
/// Throws ErrorKind::config with all errors of the file.
[[nodiscard]] std::string import_text(const std::string& path, const std::vector<std::string>& overrides);

/// Prints it to standard output, and warnings to standard error. Returns the exit code 0.
int import_command(const std::string& path, const std::vector<std::string>& overrides);

}  // namespace lockstep
