#pragma once

#include <string>
#include <vector>

namespace lockstep::config {

/// JSON made readable for a YAML reader without moving anything: comments become blanks.
struct BlankedJson {
  /// A surrogate pair (12 bytes) becomes one long escape (10 bytes), so what follows on the line moves left.
  struct Shift {
    int line;    ///< from 1
    int column;  ///< in the new text, from 1: columns greater than this one move back right
    int bytes;
  };
  struct Problem {
    int line;
    int column;
    std::string message;
    std::string remedy = {};
  };
  std::string text;
  std::vector<Shift> shifts;
  std::vector<Problem> problems;
};

/// Blanks `//`, `#` and `/* */` comments and tabs outside strings, and joins surrogate pairs inside them.
/// Reports unpaired surrogates, a comment that is never closed, and a string that is not closed on its line.
[[nodiscard]] BlankedJson blank_json_comments(const std::string& text);

}  // namespace lockstep::config
