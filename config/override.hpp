#pragma once

#include <string>

#include "config/document.hpp"

namespace lockstep::config {

/// `a.b.c=value`: parses the value as YAML and puts it into `root`; missing maps on the way are made, a number
/// steps into a list. Errors name the option.
void apply_override(Node& root, const std::string& option, Diagnostics& diagnostics);

/// The first word of `a.b.c=value`: "a".
[[nodiscard]] std::string override_section(const std::string& option);

}  // namespace lockstep::config
