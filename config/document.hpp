#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostics.hpp"
#include "config/params.hpp"
#include "config/source.hpp"

namespace lockstep {

struct Member;

/// One value of a configuration text, with the place of everything in it. Text stays text here: what it means
/// (a number, a word) is decided where the wanted type is known.
struct Node {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  Place place;
  std::string text = {};  ///< of a scalar
  bool quoted = false;    ///< a scalar in quotes is never a number or a boolean
  std::vector<Node> items = {};
  std::vector<Member> members = {};  ///< in the order of the file; keys are unique

  [[nodiscard]] const Node* find(std::string_view key) const;
  [[nodiscard]] Node* find(std::string_view key);
  /// Adds a member, or replaces the value of the one with this key.
  void set(const std::string& key, const Place& key_place, Node value);
  bool remove(std::string_view key);
  /// True for an unquoted scalar with exactly this text.
  [[nodiscard]] bool is_word(std::string_view word) const { return kind == Kind::scalar && !quoted && text == word; }
};

struct Member {
  std::string key;
  Place key_place;
  Node value;
};

enum class Syntax {
  yaml,
  json,  ///< JSON or Hjson: `//`, `/* */` and `#` comments are blanked first
};

/// JSON for *.json, *.hjson, *.jsonc and for texts that begin with `{`, `//` or `/*`.
[[nodiscard]] Syntax syntax_of(const std::string& file_name, const std::string& text);

/// Reads one document. What is wrong goes to `diagnostics`; the result holds what could be read.
///
/// Refused: more than 1 MB, nesting deeper than 64, text that is not UTF-8, duplicate keys (both lines are
/// named), a second document, anchors, aliases, merge keys, type tags, keys that are not plain words.
[[nodiscard]] Node parse_document(const std::string& name, const std::string& text, Syntax syntax,
                                  Diagnostics& diagnostics);

/// Reads a file with the syntax that its name and beginning tell.
/// Throws ErrorKind::config if it cannot be opened.
[[nodiscard]] Node read_document(const std::string& path, Diagnostics& diagnostics);

/// `a.b.c=value`: parses the value as YAML and puts it into `root`; missing maps on the way are made, a number
/// steps into a list. Errors name the option.
void apply_override(Node& root, const std::string& option, Diagnostics& diagnostics);

/// The first word of `a.b.c=value`: "a".
[[nodiscard]] std::string override_section(const std::string& option);

/// What an unquoted scalar says. `problem` is set for forms that look like numbers and are refused everywhere
/// a number is wanted: octal, hexadecimal, underscores, infinities.
struct Scalar {
  ParamValue value;
  std::string problem = {};
};
[[nodiscard]] Scalar interpret(const std::string& text);

}  // namespace lockstep
