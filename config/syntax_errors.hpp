#pragma once

#include <string>
#include <string_view>

namespace lockstep::config {

/// What is wrong with a text that the YAML parser gave up on, in words for people.
struct SyntaxError {
  int line = 1;    ///< from 1
  int column = 1;  ///< in bytes, from 1
  std::string message = {};
  std::string remedy = {};
};

/// The parser says where it lost the thread, in terms of its grammar; the mistake often stands earlier. This looks for
/// it: a quote or bracket that is never closed (its place is where it opens), a bracket too many, a missing comma, a
/// variable, a tab, a second key on a line, an indentation that fits nothing.
///
/// `text` is YAML, or JSON with its comments blanked; `complaint`, `line` and `column` are the parser's.
[[nodiscard]] SyntaxError explain_syntax(const std::string& text, std::string_view complaint, int line, int column);

}  // namespace lockstep::config
