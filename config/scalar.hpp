#pragma once

#include <string>

#include "config/params.hpp"

namespace lockstep::config {

/// What an unquoted scalar says. `problem` is set for forms that look like numbers and are refused everywhere
/// a number is wanted: octal, hexadecimal, underscores, infinities.
struct Scalar {
  ParamValue value;
  std::string problem = {};
};
[[nodiscard]] Scalar interpret(const std::string& text);

/// A value as YAML writes it, in one line. Numbers are the shortest text that reads back to the same bits.
[[nodiscard]] std::string to_yaml(const ParamValue& value);

}  // namespace lockstep::config
