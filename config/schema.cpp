#include "config/schema.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

namespace lockstep {
namespace {

bool same_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

std::string dotted(const std::string& path, const std::string& key) { return path.empty() ? key : path + "." + key; }

std::string in_block(const std::string& path, const std::string& variant) {
  std::string where = path.empty() ? "in the job file" : "in " + path;
  if (!variant.empty()) where += " (" + variant + ")";
  return where;
}

std::string_view kind_name(Node::Kind kind) {
  switch (kind) {
    case Node::Kind::null:
      return "nothing";
    case Node::Kind::scalar:
      return "a single value";
    case Node::Kind::list:
      return "a list";
    case Node::Kind::map:
      return "a block of keys";
  }
  return "";
}

std::string found(const Node& node) {
  if (node.kind != Node::Kind::scalar) return std::string(kind_name(node.kind));
  constexpr std::size_t enough = 60;
  const std::string text = node.text.size() > enough ? node.text.substr(0, enough) + "..." : node.text;
  return node.quoted ? fmt::format("the text \"{}\"", text) : fmt::format("'{}'", text);
}

void wrong(const Node& node, const Field& field, const std::string& path, Diagnostics& diagnostics,
           const std::string& remedy = {}) {
  diagnostics.error(node.place, fmt::format("{}: expected {}, got {}", path, describe_type(field), found(node)),
                    remedy);
}

bool is_number_type(FieldType type) {
  return type == FieldType::number || type == FieldType::number_list || type == FieldType::number_or_list;
}
bool is_text_type(FieldType type) {
  return type == FieldType::text || type == FieldType::choice || type == FieldType::path ||
         type == FieldType::text_list;
}
bool is_list_type(FieldType type) {
  return type == FieldType::number_list || type == FieldType::integer_list || type == FieldType::text_list;
}

bool in_range(double value, const Field& field) {
  if (field.min && (value < *field.min || (field.min_open && value == *field.min))) return false;
  return !(field.max && (value > *field.max || (field.max_open && value == *field.max)));
}

bool read_number(const Node& node, const Field& field, const std::string& path, ParamValue& out,
                 Diagnostics& diagnostics) {
  if (node.kind != Node::Kind::scalar) {
    wrong(node, field, path, diagnostics);
    return false;
  }
  const Scalar scalar = interpret(node.text);
  if (node.quoted) {
    wrong(node, field, path, diagnostics, scalar.value.is_number() ? "remove the quotes" : "");
    return false;
  }
  if (!scalar.problem.empty() || !scalar.value.is_number()) {
    wrong(node, field, path, diagnostics, scalar.problem);
    return false;
  }
  if (is_number_type(field.type)) {
    const auto* integer = std::get_if<std::int64_t>(&scalar.value.value);
    const double number = integer != nullptr ? static_cast<double>(*integer) : std::get<double>(scalar.value.value);
    out = number;
    if (!in_range(number, field)) {
      wrong(node, field, path, diagnostics, "out of range");
      return false;
    }
    return true;
  }
  if (const auto* real = std::get_if<double>(&scalar.value.value)) {
    constexpr double exact = 9007199254740992.0;  // 2^53: beyond it a double no longer names one integer
    if (field.strict_integer) {
      const bool whole = *real == std::trunc(*real) && std::abs(*real) <= exact;
      wrong(node, field, path, diagnostics,
            whole ? fmt::format("write {}", static_cast<std::int64_t>(*real)) : "write it without '.' and exponent");
      return false;
    }
    if (*real != std::trunc(*real) || std::abs(*real) > exact) {
      wrong(node, field, path, diagnostics, "not a whole number");
      return false;
    }
    out = static_cast<std::int64_t>(*real);
  } else {
    out = scalar.value;
  }
  if (!in_range(static_cast<double>(std::get<std::int64_t>(out.value)), field)) {
    wrong(node, field, path, diagnostics, "out of range");
    return false;
  }
  return true;
}

bool read_text(const Node& node, const Field& field, const std::string& path, ParamValue& out,
               Diagnostics& diagnostics) {
  if (node.kind != Node::Kind::scalar || (node.text.empty() && field.type != FieldType::text)) {
    wrong(node, field, path, diagnostics);
    return false;
  }
  out = node.text;
  if (!field.choices.empty() &&
      std::find(field.choices.begin(), field.choices.end(), node.text) == field.choices.end()) {
    const std::string near = nearest(node.text, field.choices);
    wrong(node, field, path, diagnostics, near.empty() ? "" : fmt::format("did you mean '{}'?", near));
    return false;
  }
  return true;
}

bool read_boolean(const Node& node, const Field& field, const std::string& path, ParamValue& out,
                  Diagnostics& diagnostics) {
  if (node.is_word("true") || node.is_word("false")) {
    out = node.text == "true";
    return true;
  }
  std::string remedy;
  if (node.kind == Node::Kind::scalar) {
    for (const char* word : {"true", "yes", "on", "1", "y"})
      if (same_ignoring_case(node.text, word)) remedy = "write true";
    for (const char* word : {"false", "no", "off", "0", "n"})
      if (same_ignoring_case(node.text, word)) remedy = "write false";
  }
  wrong(node, field, path, diagnostics, remedy);
  return false;
}

bool read_list(const Node& node, const Field& field, const std::string& path, ParamValue& out,
               Diagnostics& diagnostics) {
  if (node.kind != Node::Kind::list) {
    wrong(node, field, path, diagnostics, node.kind == Node::Kind::scalar ? "write it in brackets: [...]" : "");
    return false;
  }
  if (node.items.empty() || (field.length && node.items.size() != *field.length)) {
    diagnostics.error(node.place,
                      fmt::format("{}: expected {}, got a list of {}", path, describe_type(field), node.items.size()));
    return false;
  }
  ParamValue::List list;
  bool good = true;
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    Field entry = field;
    entry.type = field.type == FieldType::text_list      ? FieldType::text
                 : field.type == FieldType::integer_list ? FieldType::integer
                                                         : FieldType::number;
    ParamValue value;
    good = validate_value(node.items[i], entry, fmt::format("{}[{}]", path, i), value, diagnostics) && good;
    list.push_back(std::move(value));
  }
  out = std::move(list);
  return good;
}

/// The walk over one block. A class so that the many pieces it needs are not passed about.
class Validator {
 public:
  Validator(const Section& section, const std::string& path, Diagnostics& diagnostics)
      : section_(section), path_(path), diagnostics_(diagnostics) {}

  /// `place` is where the block is named, which is where something missing from it is reported.
  Values run(const Node& node, const Place& place) {
    out_.given = true;
    out_.place = place;
    if (node.kind == Node::Kind::null && path_.empty()) {
      diagnostics_.error(node.place, "the file is empty; a job needs at least model, data and run");
      return std::move(out_);
    }
    if (node.kind != Node::Kind::map && node.kind != Node::Kind::null) {
      diagnostics_.error(node.place, fmt::format("{}: expected a block of keys, got {}",
                                                 path_.empty() ? "the job file" : path_, found(node)));
      return std::move(out_);
    }
    if (!section_.variant_key.empty()) choose_variant(node);
    for (const Member& member : node.members) read_member(member);
    check_required();
    return std::move(out_);
  }

 private:
  [[nodiscard]] const Field* field(const std::string& key) const {
    const Field* f = section_.find_field(key);
    return f == nullptr && variant_ != nullptr ? variant_->find_field(key) : f;
  }
  [[nodiscard]] const Section* subsection(const std::string& key) const {
    const Section* s = section_.find_section(key);
    return s == nullptr && variant_ != nullptr ? variant_->find_section(key) : s;
  }

  void choose_variant(const Node& node) {
    std::vector<std::string> names;
    for (const Section& variant : section_.variants) names.push_back(variant.name);
    const Node* type = node.find(section_.variant_key);
    if (type == nullptr || type->kind != Node::Kind::scalar) {
      diagnostics_.error(type == nullptr ? out_.place : type->place,
                         fmt::format("{}: {} is missing", path_, section_.variant_key), "", join(names));
      return;
    }
    out_.variant_place = type->place;
    variant_ = section_.find_variant(type->text);
    if (variant_ != nullptr) {
      out_.variant = variant_->name;
      return;
    }
    for (const auto& [name, reason] : section_.refused_variants) {
      if (!same_ignoring_case(name, type->text)) continue;
      diagnostics_.error(type->place, fmt::format("{}: {} is not supported: {}", path_, name, reason), "", join(names));
      return;
    }
    const std::string near = nearest(type->text, names);
    diagnostics_.error(type->place, fmt::format("{}: unknown {} {}", path_, section_.variant_key, found(*type)),
                       near.empty() ? "" : fmt::format("did you mean '{}'?", near), join(names));
  }

  void read_member(const Member& member) {
    if (!section_.variant_key.empty() && member.key == section_.variant_key) return;
    const std::string path = dotted(path_, member.key);
    if (const Field* f = field(member.key)) {
      if (member.value.kind == Node::Kind::null && f->nullable) return;
      Located located{{}, member.value.place};
      if (validate_value(member.value, *f, path, located.value, diagnostics_)) {
        out_.values[member.key] = std::move(located);
      } else {
        bad_.push_back(member.key);
      }
    } else if (const Section* s = subsection(member.key)) {
      read_section(member, *s, path);
    } else if (section_.variant_key.empty() || variant_ != nullptr || section_.advice.contains(member.key)) {
      unknown(member);
    }
    // With an unknown type nobody can say which keys are right: the type's own error is enough.
  }

  void read_section(const Member& member, const Section& section, const std::string& path) {
    if (member.value.kind == Node::Kind::null && section.nullable) return;
    if (!section.list) {
      Validator inner(section, path, diagnostics_);
      inner.variant_name_ = section.variant_key.empty() ? out_.variant : std::string();
      out_.sections[member.key] = inner.run(member.value, member.key_place);
      return;
    }
    if (member.value.kind != Node::Kind::list) {
      diagnostics_.error(member.value.place,
                         fmt::format("{}: expected a list of blocks, got {}", path, found(member.value)));
      return;
    }
    auto& list = out_.lists[member.key];
    for (std::size_t i = 0; i < member.value.items.size(); ++i)
      list.push_back(validate(member.value.items[i], section, fmt::format("{}[{}]", path, i), diagnostics_));
  }

  void unknown(const Member& member) {
    std::vector<std::string> known;
    const auto collect = [&known](const Section& s) {
      for (const Field& f : s.fields) known.push_back(f.name);
      for (const Section& sub : s.sections) known.push_back(sub.name);
    };
    if (!section_.variant_key.empty()) known.push_back(section_.variant_key);
    collect(section_);
    if (variant_ != nullptr) collect(*variant_);

    std::string remedy;
    if (const auto advice = section_.advice.find(member.key); advice != section_.advice.end()) {
      remedy = advice->second;
    } else if (member.key.find(':') != std::string::npos) {
      remedy = "put a space after the colon";
    } else if (const std::string near = nearest(member.key, known); !near.empty()) {
      remedy = fmt::format("did you mean '{}'?", near);
    }
    const std::string variant = out_.variant.empty() ? variant_name_ : out_.variant;
    diagnostics_.error(member.key_place, fmt::format("unknown key '{}' {}", member.key, in_block(path_, variant)),
                       remedy, join(known));
  }

  void check_required() {
    const auto check = [this](const Section& section) {
      for (const Field& f : section.fields)
        if (f.required && !out_.values.contains(f.name) && std::find(bad_.begin(), bad_.end(), f.name) == bad_.end())
          missing(f.name, describe_type(f));
      for (const Section& s : section.sections) {
        const bool wanted =
            s.required || std::any_of(s.fields.begin(), s.fields.end(), [](const Field& f) { return f.required; });
        if (wanted && !s.list && !out_.sections.contains(s.name)) {
          if (s.required)
            missing(s.name, "a block of keys");
          else
            report_inner(s);
        }
      }
    };
    check(section_);
    if (variant_ != nullptr) check(*variant_);
  }

  /// An absent block that has required keys: name the keys themselves.
  void report_inner(const Section& section) {
    for (const Field& f : section.fields)
      if (f.required) missing(section.name + "." + f.name, describe_type(f));
  }

  void missing(const std::string& name, const std::string& type) {
    const std::string variant = out_.variant.empty() ? variant_name_ : out_.variant;
    diagnostics_.error(out_.place,
                       fmt::format("{}{} is required{}", path_.empty() ? "" : path_ + ".", name,
                                   variant.empty() ? "" : " for " + variant),
                       "add it: " + type);
  }

  const Section& section_;
  const std::string& path_;
  Diagnostics& diagnostics_;
  const Section* variant_ = nullptr;
  std::string variant_name_;  // of the enclosing block, for messages
  std::vector<std::string> bad_;
  Values out_;
};

bool plain_is_safe(const std::string& text) {
  if (text.empty()) return false;
  const auto letter = [](unsigned char c) { return std::isalpha(c) != 0 || c == '_' || c == '.' || c == '/'; };
  if (!letter(static_cast<unsigned char>(text[0]))) return false;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (!letter(u) && std::isdigit(u) == 0 && c != '-' && c != '+') return false;
  }
  const Scalar scalar = interpret(text);
  if (!scalar.problem.empty() || !std::holds_alternative<std::string>(scalar.value.value)) return false;
  for (const char* word : {"null", "Null", "NULL", "yes", "no", "on", "off", "y", "n", "True", "False"})
    if (text == word) return false;
  return true;
}

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
        else
          out += c;
    }
  }
  return out + "\"";
}

}  // namespace

const Field* Section::find_field(std::string_view key) const {
  for (const Field& field : fields)
    if (field.name == key) return &field;
  return nullptr;
}

const Section* Section::find_section(std::string_view key) const {
  for (const Section& section : sections)
    if (section.name == key) return &section;
  return nullptr;
}

const Section* Section::find_variant(std::string_view type) const {
  for (const Section& variant : variants)
    if (variant.name == type || (variant.ignore_case && same_ignoring_case(variant.name, type))) return &variant;
  return nullptr;
}

const ParamValue* Values::find(const std::string& key) const {
  const auto it = values.find(key);
  return it == values.end() ? nullptr : &it->second.value;
}

Place Values::place_of(const std::string& key) const {
  const auto it = values.find(key);
  return it == values.end() ? place : it->second.place;
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
  return Validator(section, path, diagnostics).run(node, node.place);
}

bool validate_value(const Node& node, const Field& field, const std::string& path, ParamValue& value,
                    Diagnostics& diagnostics) {
  // JSON has no unquoted words, so the quotes do not matter here.
  if (field.or_auto && node.kind == Node::Kind::scalar && node.text == "auto") {
    value = "auto";
    return true;
  }
  if (node.kind == Node::Kind::scalar)
    for (const auto& [refused, reason] : field.refused)
      if (node.text == refused) {
        diagnostics.error(node.place, fmt::format("{}: {} is not supported: {}", path, refused, reason), "",
                          join(field.choices));
        return false;
      }
  if (field.type == FieldType::boolean) return read_boolean(node, field, path, value, diagnostics);
  if (is_list_type(field.type) || (field.type == FieldType::number_or_list && node.kind == Node::Kind::list))
    return read_list(node, field, path, value, diagnostics);
  if (is_text_type(field.type)) return read_text(node, field, path, value, diagnostics);
  return read_number(node, field, path, value, diagnostics);
}

std::string describe_type(const Field& field) {
  std::string text;
  switch (field.type) {
    case FieldType::boolean:
      text = "true or false";
      break;
    case FieldType::integer:
      text = "an integer";
      break;
    case FieldType::number:
      text = "a number";
      break;
    case FieldType::text:
      text = "a text";
      break;
    case FieldType::choice:
      text = field.choices.size() == 1 ? "only " + field.choices[0] : "one of " + join(field.choices);
      break;
    case FieldType::path:
      text = "a path";
      break;
    case FieldType::number_or_list:
      text = "a number, or a list with one for each parameter group,";
      break;
    case FieldType::number_list:
      text = "a list of numbers";
      break;
    case FieldType::integer_list:
      text = "a list of integers";
      break;
    case FieldType::text_list:
      text = "a list of texts";
      break;
  }
  if (field.length) {
    const std::string what = field.type == FieldType::integer_list ? "integers" : "numbers";
    text = fmt::format("a list of {} {}", *field.length, what);
  }
  if (field.min && field.max)
    text +=
        fmt::format(" in {}{}, {}{}", field.min_open ? "(" : "[", *field.min, *field.max, field.max_open ? ")" : "]");
  else if (field.min)
    text += fmt::format(" {} {}", field.min_open ? ">" : ">=", *field.min);
  else if (field.max)
    text += fmt::format(" {} {}", field.max_open ? "<" : "<=", *field.max);
  if (text.ends_with(',')) text.pop_back();
  if (field.strict_integer) text += " written without '.' and exponent";
  if (!field.unit.empty()) text += " (" + field.unit + ")";
  if (field.or_auto) text += " or auto";
  if (field.nullable) text += " or null";
  return text;
}

std::string to_yaml(const ParamValue& value) {
  struct Writer {
    std::string operator()(std::monostate) const { return "null"; }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return fmt::format("{}", v); }
    std::string operator()(double v) const { return fmt::format("{}", v); }
    std::string operator()(const std::string& v) const { return plain_is_safe(v) ? v : quote(v); }
    std::string operator()(const ParamValue::List& v) const {
      std::vector<std::string> parts;
      for (const ParamValue& entry : v) parts.push_back(to_yaml(entry));
      return fmt::format("[{}]", join(parts));
    }
  };
  return std::visit(Writer{}, value.value);
}

}  // namespace lockstep
