#include "config/schema.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "config/field_value.hpp"
#include "config/scalar.hpp"
#include "config/words.hpp"

namespace lockstep::config {
namespace {

std::string dotted(const std::string& path, const std::string& key) { return path.empty() ? key : path + "." + key; }

/// The walk over one block. A class so that the many pieces it needs are not passed about.
class Validator {
 public:
  Validator(const Section& section, const std::string& path, Diagnostics& diagnostics)
      : section_(section), path_(path), diagnostics_(diagnostics) {}

  /// `position` is where the block is named, which is where something missing from it is reported.
  Values run(const Node& node, const Position& position) {
    out_.position = position;
    if (node.kind == Node::Kind::null && path_.empty()) {
      diagnostics_.error(node.position, "the file is empty; a job needs at least model, data and run");
      return std::move(out_);
    }
    if (node.kind != Node::Kind::map && node.kind != Node::Kind::null) {
      diagnostics_.error(
          node.position,
          fmt::format("{}: expected a block of keys, got {}", path_.empty() ? "the job file" : path_, describe(node)),
          instead_of(node));
      return std::move(out_);
    }
    if (section_.types) choose_type(node);
    for (const Member& member : node.members) {
      read_member(member);
      before_ = &member;
    }
    check_required();
    return std::move(out_);
  }

 private:
  /// The keys of the block itself, and of its type.
  [[nodiscard]] std::vector<const Keys*> keys() const {
    std::vector<const Keys*> all = {&section_.keys};
    if (type_ != nullptr) all.push_back(&type_->keys);
    return all;
  }
  [[nodiscard]] const Field* field(const std::string& name) const {
    for (const Keys* k : keys())
      if (const Field* f = find_field(k->fields, name)) return f;
    return nullptr;
  }
  [[nodiscard]] const Section* subsection(const std::string& name) const {
    for (const Keys* k : keys())
      if (const Section* s = k->find_section(name)) return s;
    return nullptr;
  }

  /// What to write where one word stands instead of a block.
  [[nodiscard]] std::string instead_of(const Node& node) const {
    if (node.kind != Node::Kind::scalar) return {};
    if (path_.empty()) {
      if (node.text.find(" = ") != std::string::npos) return "write key: value, with a colon";
      return node.text.find(':') == std::string::npos ? "" : "put a space after each colon";
    }
    const bool flag = node.is_word("true") || node.is_word("false");
    if (flag && find_field(section_.keys.fields, "enabled") != nullptr)
      return fmt::format("write {}: {{enabled: {}}}", path_, node.text);
    if (!section_.types) return {};
    for (const Type& type : section_.types->known)
      if (same_ignoring_case(type.name, node.text)) return fmt::format("write {}: {{type: {}}}", path_, type.name);
    return advice_for_type(node.text);
  }

  [[nodiscard]] std::string advice_for_type(const std::string& name) const {
    for (const auto& [word, text] : section_.types->advice)
      if (same_ignoring_case(word, name)) return text;
    const std::string near = nearest(name, section_.types->names());
    return near.empty() ? "" : fmt::format("did you mean '{}'?", near);
  }

  void choose_type(const Node& node) {
    const std::vector<std::string> names = section_.types->names();
    const Node* given = node.find("type");
    if (given == nullptr && !section_.types->default_type.empty()) {
      type_ = section_.types->find(section_.types->default_type);
      out_.type = type_->name;
      out_.type_position = out_.position;
      return;
    }
    if (given == nullptr || given->kind != Node::Kind::scalar) {
      diagnostics_.error(given == nullptr ? out_.position : given->position, fmt::format("{}: type is missing", path_),
                         "", join(names));
      return;
    }
    out_.type_position = given->position;
    type_ = section_.types->find(given->text);
    if (type_ != nullptr) {
      out_.type = type_->name;
      return;
    }
    for (const auto& [name, reason] : section_.types->refused) {
      if (!same_ignoring_case(name, given->text)) continue;
      diagnostics_.error(given->position, fmt::format("{}: {} is not supported: {}", path_, name, reason), "",
                         join(names));
      return;
    }
    diagnostics_.error(given->position, fmt::format("{}: unknown type '{}'", path_, given->text),
                       advice_for_type(given->text), join(names));
  }

  void read_member(const Member& member) {
    if (section_.types && member.key == "type") return;
    const std::string path = dotted(path_, member.key);
    if (const Field* f = field(member.key)) {
      read_field(member, *f, path);
    } else if (const Section* s = subsection(member.key)) {
      read_section(member, *s, path);
    } else if (!section_.types || type_ != nullptr || section_.advice.contains(member.key)) {
      unknown(member);
    }
    // With an unknown type nobody can say which keys are right: the type's own error is enough.
  }

  void read_field(const Member& member, const Field& field, const std::string& path) {
    if (member.value.kind == Node::Kind::null && field.nullable)
      out_.values[member.key] = {{}, member.value.position};
    else if (auto value = read_value(member.value, field, path, diagnostics_))
      out_.values[member.key] = {std::move(*value), member.value.position};
    else
      bad_.push_back(member.key);
  }

  void read_section(const Member& member, const Section& section, const std::string& path) {
    if (member.value.kind == Node::Kind::null && section.presence == Presence::nullable) return;
    if (!section.list) {
      Validator inner(section, path, diagnostics_);
      if (!section.types) inner.owner_ = out_.type;
      out_.sections[member.key] = inner.run(member.value, member.key_position);
      return;
    }
    if (member.value.kind != Node::Kind::list) {
      diagnostics_.error(member.value.position,
                         fmt::format("{}: expected a list of blocks, got {}", path, describe(member.value)));
      return;
    }
    auto& list = out_.lists[member.key];
    for (std::size_t i = 0; i < member.value.items.size(); ++i)
      list.push_back(validate(member.value.items[i], section, fmt::format("{}[{}]", path, i), diagnostics_));
  }

  void unknown(const Member& member) {
    std::vector<std::string> known;
    if (section_.types) known.emplace_back("type");
    for (const Keys* k : keys()) {
      for (const Field& f : k->fields) known.push_back(f.name);
      for (const Section& s : k->sections) known.push_back(s.name);
    }
    if (is_half_a_number(member)) return;
    std::string remedy;
    if (const auto advice = section_.advice.find(member.key); advice != section_.advice.end()) {
      remedy = advice->second;
    } else if (member.key.find(':') != std::string::npos) {
      remedy = "put a space after the colon";
    } else if (const std::string near = nearest(member.key, known); !near.empty()) {
      remedy = fmt::format("did you mean '{}'?", near);
    }
    diagnostics_.error(member.key_position, fmt::format("unknown key '{}' {}", member.key, in_block()), remedy,
                       join(known));
  }

  /// {lr: 1,5e-3} reads as lr: 1 and a key 5e-3.
  [[nodiscard]] bool is_half_a_number(const Member& member) const {
    if (member.value.kind != Node::Kind::null || before_ == nullptr || !interpret(member.key).value.is_number())
      return false;
    const Node& first = before_->value;
    const Position& here = member.key_position;
    if (first.position.line != here.line || first.position.column + first.position.length + 1 != here.column)
      return false;
    diagnostics_.error(first.position,
                       fmt::format("{}: {},{} is no number", dotted(path_, before_->key), first.text, member.key),
                       fmt::format("the decimal sign is a point: {}.{}", first.text, member.key));
    return true;
  }

  void check_required() {
    for (const Keys* k : keys()) {
      for (const Field& f : k->fields)
        if (f.required && !out_.values.contains(f.name) && std::find(bad_.begin(), bad_.end(), f.name) == bad_.end())
          missing(f.name, describe_type(f));
      for (const Section& s : k->sections) {
        if (s.list || out_.sections.contains(s.name)) continue;
        if (s.presence == Presence::required) {
          missing(s.name, "a block of keys");
          continue;
        }
        // An absent block that has required keys: name the keys themselves.
        for (const Field& f : s.keys.fields)
          if (f.required) missing(s.name + "." + f.name, describe_type(f));
      }
    }
  }

  void missing(const std::string& name, const std::string& type) {
    diagnostics_.error(
        out_.position,
        fmt::format("{} is required{}", dotted(path_, name), type_name().empty() ? "" : " for " + type_name()),
        "add it: " + type);
  }

  [[nodiscard]] const std::string& type_name() const { return out_.type.empty() ? owner_ : out_.type; }
  [[nodiscard]] std::string in_block() const {
    const std::string where = path_.empty() ? "in the job file" : "in " + path_;
    return type_name().empty() ? where : fmt::format("{} ({})", where, type_name());
  }

  const Section& section_;
  const std::string& path_;
  Diagnostics& diagnostics_;
  const Type* type_ = nullptr;
  const Member* before_ = nullptr;  // the member before the one at hand
  std::string owner_;               // the type of the enclosing block, for messages
  std::vector<std::string> bad_;
  Values out_;
};

/// A program's value as a file would hold it.
Node node_of(const ParamValue& value, const Position& position) {
  struct Writer {
    Position position;
    [[nodiscard]] Node scalar(std::string text, bool quoted = false) const {
      return {.kind = Node::Kind::scalar, .position = position, .text = std::move(text), .quoted = quoted};
    }
    Node operator()(std::monostate) const { return {.kind = Node::Kind::null, .position = position}; }
    Node operator()(bool v) const { return scalar(v ? "true" : "false"); }
    Node operator()(std::int64_t v) const { return scalar(fmt::format("{}", v)); }
    Node operator()(double v) const {
      const std::string text = fmt::format("{}", v);
      const bool looks_integer = text.find_first_not_of("-0123456789") == std::string::npos;
      return scalar(looks_integer ? text + ".0" : text);
    }
    Node operator()(const std::string& v) const { return scalar(v, true); }
    Node operator()(const ParamValue::List& v) const {
      Node list{.kind = Node::Kind::list, .position = position};
      for (const ParamValue& entry : v) list.items.push_back(node_of(entry, position));
      return list;
    }
    Node operator()(const ParamValue::Block& v) const {
      Node block{.kind = Node::Kind::map, .position = position};
      for (const auto& [name, entry] : v) block.set(name, position, node_of(entry, position));
      return block;
    }
  };
  return std::visit(Writer{position}, value.value);
}

}  // namespace

const Section* Keys::find_section(std::string_view name) const {
  for (const Section& section : sections)
    if (section.name == name) return &section;
  return nullptr;
}

const Type* Types::find(std::string_view name) const {
  for (const Type& type : known)
    if (type.name == name || (type.ignore_case && same_ignoring_case(type.name, name))) return &type;
  return nullptr;
}

std::vector<std::string> Types::names() const {
  std::vector<std::string> all;
  for (const Type& type : known) all.push_back(type.name);
  return all;
}

const ParamValue* Values::find(const std::string& key) const {
  const auto it = values.find(key);
  return it == values.end() ? nullptr : &it->second.value;
}

Position Values::position_of(const std::string& key) const {
  const auto it = values.find(key);
  return it == values.end() ? position : it->second.position;
}

const Values& Values::section(const std::string& key) const {
  static const Values none;
  const auto it = sections.find(key);
  return it == sections.end() ? none : it->second;
}

Params Values::params() const {
  Params params;
  for (const auto& [name, located] : values) params.set(name, located.value);
  return params;
}

Values validate(const Node& node, const Section& section, const std::string& path, Diagnostics& diagnostics) {
  return Validator(section, path, diagnostics).run(node, node.position);
}

Params checked(const Fields& fields, const Params& given, const std::string& owner) {
  const Position here{make_source(owner, "", true)};
  Node node{.kind = Node::Kind::map, .position = here};
  for (const auto& [name, value] : given.all()) node.set(name, here, node_of(value, here));
  Diagnostics diagnostics;
  const Values values = validate(node, {.keys = {.fields = fields}}, "params", diagnostics);
  diagnostics.throw_if_errors();
  return with_defaults(fields, values.params());
}

}  // namespace lockstep::config
