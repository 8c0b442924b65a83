#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostics.hpp"
#include "config/source.hpp"

namespace lockstep::config {

struct Member;

/// One value of a configuration text, with the position of everything in it. Text stays text here: what it means
/// (a number, a word) is decided where the wanted type is known.
struct Node {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  Position position;
  std::string text = {};  ///< of a scalar
  bool quoted = false;    ///< a scalar in quotes is never a number or a boolean
  std::vector<Node> items = {};
  std::vector<Member> members = {};  ///< in the order of the file; keys are unique

  [[nodiscard]] const Node* find(std::string_view key) const;
  [[nodiscard]] Node* find(std::string_view key);
  /// Adds a member, or replaces the value of the one with this key.
  void set(const std::string& key, const Position& key_position, Node value);
  /// True for an unquoted scalar with exactly this text.
  [[nodiscard]] bool is_word(std::string_view word) const { return kind == Kind::scalar && !quoted && text == word; }
};

struct Member {
  std::string key;
  Position key_position;
  Node value;
};

/// What a node holds, for errors: "'ten'", "the text \"10\"", "a list".
[[nodiscard]] std::string describe(const Node& node);

enum class Syntax {
  yaml,
  json,  ///< JSON or Hjson: `//`, `/* */` and `#` comments are blanked first
};

/// JSON for *.json, *.hjson, *.jsonc and for texts that begin with `{`, `//` or `/*`.
[[nodiscard]] Syntax syntax_of(const std::string& file_name, const std::string& text);

/// Reads one document. What is wrong goes to `diagnostics`; the result holds what could be read.
///
/// Refused: more than 1 MiB, nesting deeper than 64, text that is not UTF-8, duplicate keys (both lines are
/// named), a second document, anchors, aliases, merge keys, type tags, keys that are not plain words.
[[nodiscard]] Node parse_document(const std::string& name, const std::string& text, Syntax syntax,
                                  Diagnostics& diagnostics);

/// Reads a file with the syntax that its name and beginning tell.
/// Throws ErrorKind::config if it cannot be opened.
[[nodiscard]] Node read_document(const std::string& path, Diagnostics& diagnostics);

}  // namespace lockstep::config
