#include "config/document.hpp"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "config/json_comments.hpp"
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
  Positions(std::shared_ptr<const Source> source, std::vector<BlankedJson::Shift> shifts)
      : source_(std::move(source)), shifts_(std::move(shifts)) {}

  [[nodiscard]] Position at(const YAML::Mark& mark, std::size_t length = 1) const {
    Position position{source_, mark.line + 1, mark.column + 1, static_cast<int>(std::max<std::size_t>(length, 1))};
    int moved = 0;
    for (const auto& shift : shifts_)
      if (shift.line == position.line && position.column > shift.column) moved += shift.bytes;
    position.column += moved;
    return position;
  }
  [[nodiscard]] const Source& source() const { return *source_; }

 private:
  std::shared_ptr<const Source> source_;
  std::vector<BlankedJson::Shift> shifts_;
};

/// Builds the tree from the parser's events. Working on events, not on yaml-cpp's own nodes, shows anchors and
/// duplicate keys, and an alias can never expand.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const Positions& positions, Diagnostics& diagnostics)
      : positions_(positions), diagnostics_(diagnostics) {}

  [[nodiscard]] Node take_root() { return std::move(root_); }

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
    } else if (const auto first = std::find_if(level.node.members.begin(), level.node.members.end(),
                                               [&](const Member& m) { return m.key == node.text; });
               first != level.node.members.end()) {
      diagnostics_.error(node.position,
                         fmt::format("duplicate key '{}': given in line {} and again in line {}", node.text,
                                     first->key_position.line, node.position.line),
                         "remove one of the two");
    } else {
      level.key_is_bad = false;
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

bool is_utf8(const std::string& text, std::size_t& bad) {
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const std::size_t n = c < 0x80 ? 1 : (c >> 5U) == 6 ? 2 : (c >> 4U) == 14 ? 3 : (c >> 3U) == 30 ? 4 : 0;
    bool good = n != 0 && i + n <= text.size() && c != 0;
    for (std::size_t k = 1; good && k < n; ++k) good = (static_cast<unsigned char>(text[i + k]) & 0xC0U) == 0x80U;
    if (!good) {
      bad = i;
      return false;
    }
    i += n;
  }
  return true;
}

Position position_of_byte(const std::shared_ptr<const Source>& source, const std::string& text, std::size_t byte) {
  const auto head = std::string_view(text).substr(0, byte);
  const auto line = std::count(head.begin(), head.end(), '\n');
  const auto start = head.rfind('\n');
  return {source, static_cast<int>(line) + 1, static_cast<int>(start == head.npos ? byte : byte - start - 1) + 1};
}

std::string tab_hint(const Source& source, int line) {
  // The parser notices a tab where it stops making sense, which may be one line late.
  for (int i = line; i >= std::max(1, line - 1); --i) {
    if (static_cast<std::size_t>(i) > source.lines.size()) continue;
    const std::string& text = source.lines[static_cast<std::size_t>(i - 1)];
    const auto indent = text.substr(0, text.find_first_not_of(" \t"));
    if (indent.find('\t') != std::string::npos)
      return fmt::format("line {} is indented with a tab; YAML indents with spaces", i);
  }
  return {};
}

void parse_blanked(const std::string& text, const Positions& positions, Diagnostics& diagnostics, Node& root) {
  TreeBuilder builder(positions, diagnostics);
  FirstEvent rest;
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    const bool any = parser.HandleNextDocument(builder);
    root = builder.take_root();
    bool second = false;
    try {
      second = any && parser.HandleNextDocument(rest);
    } catch (const Stop&) {
      second = true;
    }
    if (second)
      diagnostics.error(positions.at(rest.mark(), 3), "a second document begins here; a job is one document",
                        "remove the line with ---");
  } catch (const YAML::Exception& error) {
    const Position position = positions.at(error.mark.is_null() ? YAML::Mark() : error.mark);
    diagnostics.error(position, error.msg, tab_hint(positions.source(), position.line));
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
  std::size_t bad = 0;
  if (!is_utf8(body, bad)) {
    diagnostics.error(position_of_byte(source, body, bad), "the text is not UTF-8", "save the file as UTF-8");
    return root;
  }
  if (syntax == Syntax::yaml) {
    parse_blanked(body, Positions(source, {}), diagnostics, root);
  } else {
    const BlankedJson json = blank_json_comments(body);
    for (const auto& problem : json.problems)
      diagnostics.error(Position{source, problem.line, problem.column}, problem.message);
    if (json.problems.empty()) parse_blanked(json.text, Positions(source, json.shifts), diagnostics, root);
  }
  if (!root.position.source) root.position = {source, 1, 1};
  return root;
}

Node read_document(const std::string& path, Diagnostics& diagnostics) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  // A folder opens as a file and fails at the first read.
  if (!file || (file.peek() == std::ifstream::traits_type::eof() && file.bad()))
    fail(ErrorKind::config, "{}: cannot be opened for reading; check the path", printable(path));
  file.clear();
  std::string content(max_bytes + 1, '\0');
  file.read(content.data(), static_cast<std::streamsize>(content.size()));
  content.resize(static_cast<std::size_t>(file.gcount()));
  return parse_document(path, content, syntax_of(path, content), diagnostics);
}

}  // namespace lockstep::config
