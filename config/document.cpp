#include "config/document.hpp"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>
#include <unordered_map>

#include "config/bytes.hpp"
#include "config/json_comments.hpp"
#include "config/outline.hpp"
#include "config/syntax_errors.hpp"
#include "config/text_file.hpp"
#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::config {
namespace {

constexpr std::size_t max_bytes = std::size_t{1} << 20;
constexpr std::size_t max_depth = 64;
constexpr std::size_t max_nodes = 100'000;

/// Stops the parser: what follows cannot be read sensibly.
struct Stop {};

/// Maps the parser's marks to positions in the user's text.
class Positions {
 public:
  /// `parsed` is what the parser sees: the user's text, or JSON made readable.
  Positions(std::shared_ptr<const Source> source, std::vector<BlankedJson::Shift> shifts, const std::string& parsed)
      : source_(std::move(source)), shifts_(std::move(shifts)), parsed_(make_source("", parsed)) {}

  [[nodiscard]] Position at(const YAML::Mark& mark, std::size_t length = 1) const {
    Position position{source_, mark.line + 1, mark.column + 1, static_cast<int>(std::max<std::size_t>(length, 1))};
    int moved = 0;
    for (const auto& shift : shifts_)
      if (shift.line == position.line && position.column > shift.column) moved += shift.bytes;
    position.column += moved;
    return position;
  }
  [[nodiscard]] std::string_view parsed_line(const YAML::Mark& mark) const {
    const auto line = static_cast<std::size_t>(mark.line);
    return line < parsed_->lines.size() ? std::string_view(parsed_->lines[line]) : std::string_view();
  }

 private:
  std::shared_ptr<const Source> source_;
  std::vector<BlankedJson::Shift> shifts_;
  std::shared_ptr<const Source> parsed_;
};

/// Builds the tree from the parser's events. Working on events, not on yaml-cpp's own nodes, shows anchors and
/// duplicate keys, and an alias can never expand.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const Positions& positions, Diagnostics& diagnostics)
      : positions_(positions), diagnostics_(diagnostics) {}

  [[nodiscard]] Node take_root() { return std::move(root_); }

  /// Values that run over lines; where the parser itself loses the thread, its explanation is enough.
  void report_long_values() {
    for (const Position& position : long_values_)
      diagnostics_.error(position, "this goes on in the next line",
                         "end it on its line; a key of the next line needs a colon there");
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check_anchor(mark, anchor);
    add(Node{Node::Kind::null, positions_.at(mark)});
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    diagnostics_.error(positions_.at(mark), "aliases (*name) are not supported", "write the value out");
    add(Node{Node::Kind::null, positions_.at(mark)});
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_anchor(mark, anchor);
    check_tag(mark, tag);
    Node node{Node::Kind::scalar, positions_.at(mark, value.size() + (tag == "!" ? 2 : 0)), value};
    node.quoted = tag == "!";
    check_line(mark, node);
    add(std::move(node));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Node::Kind::list, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Node::Kind::map, mark, tag, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Level {
    Node node;
    bool has_key = false;
    bool key_is_bad = false;
    std::string key = {};
    Position key_position = {};
    std::unordered_map<std::string, int> lines = {};  ///< of the keys so far
  };

  void open(Node::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    check_anchor(mark, anchor);
    check_tag(mark, tag);
    if (levels_.size() >= max_depth) {
      diagnostics_.error(positions_.at(mark), fmt::format("nested deeper than {} levels", max_depth));
      throw Stop{};
    }
    levels_.push_back({Node{kind, positions_.at(mark)}});
  }

  void close() {
    Node node = std::move(levels_.back().node);
    levels_.pop_back();
    add(std::move(node));
  }

  void add(Node node) {
    if (++nodes_ > max_nodes) {
      diagnostics_.error(node.position, fmt::format("more than {} values", max_nodes));
      throw Stop{};
    }
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == Node::Kind::list) {
      level.node.items.push_back(std::move(node));
    } else if (!level.has_key) {
      take_key(level, node);
    } else {
      level.has_key = false;
      if (!level.key_is_bad) level.node.members.push_back({level.key, level.key_position, std::move(node)});
    }
  }

  void take_key(Level& level, const Node& node) {
    level.has_key = true;
    level.key_is_bad = true;
    level.key = node.text;
    level.key_position = node.position;
    if (node.kind != Node::Kind::scalar) {
      diagnostics_.error(node.position, "a key must be a single word");
    } else if (node.text == "<<" && !node.quoted) {
      diagnostics_.error(node.position, "merge keys (<<) are not supported", "write the values out");
    } else if (const auto [first, is_new] = level.lines.try_emplace(node.text, node.position.line); !is_new) {
      diagnostics_.error(node.position,
                         fmt::format("duplicate key '{}': given in line {} and again in line {}", node.text,
                                     first->second, node.position.line),
                         "remove one of the two");
    } else {
      level.key_is_bad = false;
    }
  }

  /// A text that goes on behind its line swallows what was meant as keys; the parser finds nothing wrong with it.
  void check_line(const YAML::Mark& mark, const Node& node) {
    const std::string_view line = positions_.parsed_line(mark);
    const auto column = static_cast<std::size_t>(mark.column);
    const char first = column < line.size() ? line[column] : ' ';
    if (node.quoted && (first == '|' || first == '>'))
      return diagnostics_.error(node.position, "a text over several lines (| or >) is not supported",
                                "write it in one line");
    if (node.quoted && (first == '"' || first == '\'') && end_of_quoted(line, column) == std::string_view::npos) {
      const SyntaxError error = unclosed_quote(0, 0, first);
      diagnostics_.error({node.position.source, node.position.line, node.position.column}, error.message, error.remedy);
      throw Stop{};
    }
    // A whole file that is one text has no keys, which the reader of the keys says.
    if (!node.quoted && !levels_.empty() && line.substr(std::min(column, line.size()), node.text.size()) != node.text) {
      long_values_.push_back({node.position.source, node.position.line, node.position.column});
    }
  }

  void check_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor)
      diagnostics_.error(positions_.at(mark), "anchors (&name) are not supported",
                         "write the value without the anchor");
  }
  void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!")
      diagnostics_.error(positions_.at(mark), fmt::format("type tags ({}) are not supported", tag), "remove the tag");
  }

  const Positions& positions_;
  Diagnostics& diagnostics_;
  Node root_;
  std::vector<Level> levels_;
  std::vector<Position> long_values_;
  std::size_t nodes_ = 0;
};

/// Sees whether there is a second document, and where.
class FirstEvent : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override { mark_ = mark; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override { throw Stop{}; }
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
    throw Stop{};
  }
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
    throw Stop{};
  }
  void OnMapEnd() override {}
  [[nodiscard]] const YAML::Mark& mark() const { return mark_; }

 private:
  YAML::Mark mark_;
};

/// A second document, or what the parser takes for one: text behind the end of the first.
void report_second(YAML::Mark mark, const Positions& positions, Diagnostics& diagnostics) {
  YAML::Mark above = mark;
  above.line = std::max(0, mark.line - 1);
  if (positions.parsed_line(above).starts_with("...")) mark = above;
  const std::string_view line = positions.parsed_line(mark);
  if (line.starts_with("---") || line.starts_with("..."))
    diagnostics.error(positions.at(mark, 3), "a second document begins here; a job is one document",
                      fmt::format("remove the line with {}", line.substr(0, 3)));
  else
    diagnostics.error(positions.at(mark), "this does not go on with what stands above",
                      "a job is one block of keys, in one pair of braces or without any");
}

void parse_blanked(const std::string& text, const Positions& positions, Diagnostics& diagnostics, Node& root) {
  TreeBuilder builder(positions, diagnostics);
  FirstEvent rest;
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    const bool any = parser.HandleNextDocument(builder);
    root = builder.take_root();
    builder.report_long_values();
    bool second = false;
    try {
      second = any && parser.HandleNextDocument(rest);
    } catch (const Stop&) {
      second = true;
    }
    if (second) report_second(rest.mark(), positions, diagnostics);
  } catch (const YAML::Exception& error) {
    const YAML::Mark lost = error.mark.is_null() ? YAML::Mark() : error.mark;
    const SyntaxError found = explain_syntax(text, error.msg, lost.line + 1, lost.column + 1);
    YAML::Mark mark;
    mark.line = found.line - 1;
    mark.column = found.column - 1;
    diagnostics.error(positions.at(mark), found.message, found.remedy);
  } catch (const Stop&) {
    // already reported
  }
}

}  // namespace

Syntax syntax_of(const std::string& file_name, const std::string& text) {
  for (const char* ending : {".json", ".hjson", ".jsonc"})
    if (file_name.ends_with(ending)) return Syntax::json;
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string::npos) return Syntax::yaml;
  const bool json = text[start] == '{' || text.compare(start, 2, "//") == 0 || text.compare(start, 2, "/*") == 0;
  return json ? Syntax::json : Syntax::yaml;
}

Node parse_document(const std::string& name, const std::string& text, Syntax syntax, Diagnostics& diagnostics) {
  Node root;
  if (text.size() > max_bytes) {
    root.position.source = make_source(name, "");
    diagnostics.error(root.position, fmt::format("more than {}, the most that a job file has", human_bytes(max_bytes)),
                      "is this the right file?");
    return root;
  }
  const std::string body = text.starts_with("\xEF\xBB\xBF") ? text.substr(3) : text;
  const auto source = make_source(name, body);
  root.position = {source, 1, 1};
  if (!check_bytes(body, source, diagnostics)) return root;
  if (syntax == Syntax::yaml) {
    parse_blanked(body, Positions(source, {}, body), diagnostics, root);
  } else {
    const BlankedJson json = blank_json_comments(body);
    for (const auto& problem : json.problems)
      diagnostics.error(Position{source, problem.line, problem.column}, problem.message, problem.remedy);
    if (json.problems.empty()) parse_blanked(json.text, Positions(source, json.shifts, json.text), diagnostics, root);
  }
  if (!root.position.source) root.position = {source, 1, 1};
  return root;
}

Node read_document(const std::string& path, Diagnostics& diagnostics) {
  const std::string content = read_text_file(path, max_bytes + 1);
  return parse_document(path, content, syntax_of(path, content), diagnostics);
}

}  // namespace lockstep::config
