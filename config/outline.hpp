#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/syntax_errors.hpp"

namespace lockstep::config {

/// Quotes, brackets and commas of a text, seen without a grammar: what a reader's eye would find first.
struct Outline {
  std::optional<SyntaxError> quote;     ///< not closed on its line; nothing behind it was looked at
  std::optional<SyntaxError> variable;  ///< ${NAME} or {{ name }} within brackets
  std::optional<SyntaxError> bracket;   ///< never closed, closed by the wrong one, or closing nothing
  std::optional<SyntaxError> comma;     ///< missing between two entries in brackets
};

/// `text` is YAML, or JSON with its comments blanked.
[[nodiscard]] Outline outline_of(const std::string& text);

/// The same two sentences for a text whose quotes were found otherwise.
[[nodiscard]] SyntaxError unclosed_quote(int line, int column, char quote);

/// Where the quoted text that begins at `at` of this line ends: behind its closing quote, or npos if that is not on the
/// line.
[[nodiscard]] std::size_t end_of_quoted(std::string_view line, std::size_t at);

}  // namespace lockstep::config
