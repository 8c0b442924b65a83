#include "config/field_value.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "config/scalar.hpp"
#include "config/schema.hpp"
#include "config/words.hpp"
#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::config {
namespace {

FieldType entry_type(FieldType list) {
  if (list == FieldType::text_list) return FieldType::text;
  return list == FieldType::integer_list ? FieldType::integer : FieldType::number;
}

bool in_range(double value, const Field& field) {
  if (field.min && (value < *field.min || (field.min_open && value == *field.min))) return false;
  return !(field.max && (value > *field.max || (field.max_open && value == *field.max)));
}

/// A block that was read: its own keys, its type, the type's keys, its blocks.
ParamValue block_of(const Values& values, const Section& section) {
  ParamValue::Block block;
  const auto add = [&](const Keys& keys) {
    for (const Field& field : keys.fields)
      if (const ParamValue* value = values.find(field.name)) block.emplace_back(field.name, *value);
    for (const Section& sub : keys.sections)
      if (values.sections.contains(sub.name)) block.emplace_back(sub.name, block_of(values.section(sub.name), sub));
  };
  add(section.keys);
  if (!section.types) return block;
  block.emplace_back("type", values.type);
  if (const Type* type = section.types->find(values.type)) add(type->keys);
  return block;
}

/// Reads one node for one field; says what is wrong with it.
class Reader {
 public:
  Reader(const Node& node, const Field& field, const std::string& path, Diagnostics& diagnostics)
      : node_(node), field_(field), path_(path), diagnostics_(diagnostics) {}

  std::optional<ParamValue> read() const {
    const bool scalar = node_.kind == Node::Kind::scalar;
    // JSON has no unquoted words, so the quotes do not matter here.
    if (field_.or_auto && scalar && node_.text == "auto") return "auto";
    if (scalar && (is_refused() || is_variable())) return {};
    switch (field_.type) {
      case FieldType::boolean:
        return boolean();
      case FieldType::text:
      case FieldType::choice:
      case FieldType::path:
        return text();
      case FieldType::integer:
      case FieldType::number:
        return number();
      case FieldType::number_or_list:
        return node_.kind == Node::Kind::list ? list() : number();
      case FieldType::number_list:
      case FieldType::integer_list:
      case FieldType::text_list:
        return list();
      case FieldType::block_list:
        return blocks();
    }
    return {};
  }

 private:
  std::optional<ParamValue> wrong(const std::string& remedy = {}) const {
    diagnostics_.error(node_.position,
                       fmt::format("{}: expected {}, got {}", path_, describe_type(field_), describe(node_)), remedy);
    return {};
  }

  [[nodiscard]] bool is_refused() const {
    for (const auto& [value, reason] : field_.refused)
      if (node_.text == value) {
        diagnostics_.error(node_.position, fmt::format("{}: {} is not supported: {}", path_, value, reason), "",
                           join(field_.choices));
        return true;
      }
    return false;
  }

  /// ${STEPS}: a shell or a template would have filled it in.
  [[nodiscard]] bool is_variable() const {
    const std::size_t begin = node_.text.find("${");
    const std::size_t end = begin == std::string::npos ? begin : node_.text.find('}', begin);
    if (end == std::string::npos) return false;
    diagnostics_.error(node_.position,
                       fmt::format("{}: {} is not filled in: a job file has no variables", path_,
                                   node_.text.substr(begin, end - begin + 1)),
                       fmt::format("write the value, or give it with --set {}=...", path_));
    return true;
  }

  [[nodiscard]] std::optional<ParamValue> number() const {
    if (node_.kind != Node::Kind::scalar) return wrong();
    if (node_.text == "auto" && field_.nullable) return wrong("leave the key out: it is derived from the others");
    const Scalar scalar = interpret(node_.text);
    if (node_.quoted) return wrong(scalar.value.is_number() ? "remove the quotes" : "");
    if (!scalar.problem.empty() || !scalar.value.is_number()) return wrong(scalar.problem);
    const auto* integer = std::get_if<std::int64_t>(&scalar.value.value);
    const double value = integer != nullptr ? static_cast<double>(*integer) : std::get<double>(scalar.value.value);
    if (field_.type != FieldType::integer) return in_range(value, field_) ? ParamValue(value) : wrong("out of range");
    if (integer == nullptr) {
      constexpr double exact = 9007199254740992.0;  // 2^53: beyond it a double no longer names one integer
      const bool whole = value == std::trunc(value) && std::abs(value) <= exact;
      if (field_.strict_integer)
        return wrong(whole ? fmt::format("write {}", static_cast<std::int64_t>(value))
                           : "write it without '.' and exponent");
      if (!whole && value == std::trunc(value) && in_range(value, field_))
        return wrong("write it without exponent: the power of ten is not exact");
      if (!whole && value != std::trunc(value)) return wrong("not a whole number");
    }
    if (!in_range(value, field_)) return wrong("out of range");
    return integer != nullptr ? *integer : static_cast<std::int64_t>(value);
  }

  [[nodiscard]] std::optional<ParamValue> text() const {
    if (node_.kind != Node::Kind::scalar || (node_.text.empty() && field_.type != FieldType::text)) return wrong();
    // Names of files and parameters end up in messages, which a terminal must not obey.
    if (printable(node_.text) != node_.text) return wrong("it holds a control character");
    const auto& choices = field_.choices;
    if (choices.empty() || std::find(choices.begin(), choices.end(), node_.text) != choices.end()) return node_.text;
    const std::string near = nearest(node_.text, choices);
    return wrong(near.empty() ? "" : fmt::format("did you mean '{}'?", near));
  }

  [[nodiscard]] std::optional<ParamValue> boolean() const {
    if (node_.is_word("true") || node_.is_word("false")) return node_.text == "true";
    if (node_.kind == Node::Kind::scalar) {
      for (const char* word : {"true", "yes", "on", "1", "y"})
        if (same_ignoring_case(node_.text, word)) return wrong("write true");
      for (const char* word : {"false", "no", "off", "0", "n"})
        if (same_ignoring_case(node_.text, word)) return wrong("write false");
      if (field_.nullable && node_.text == "None") return wrong("write null");
    }
    return wrong();
  }

  /// Says what is wrong with it otherwise.
  [[nodiscard]] bool is_list() const {
    if (node_.kind != Node::Kind::list) {
      (void)wrong(node_.kind == Node::Kind::scalar ? "write it in brackets: [...]" : "");
      return false;
    }
    if ((field_.may_be_empty || !node_.items.empty()) && (!field_.length || node_.items.size() == *field_.length))
      return true;
    diagnostics_.error(node_.position, fmt::format("{}: expected {}, got a list of {}", path_, describe_type(field_),
                                                   node_.items.size()));
    return false;
  }

  [[nodiscard]] std::optional<ParamValue> blocks() const {
    if (!is_list()) return {};
    const auto errors = diagnostics_.error_count();
    ParamValue::List blocks;
    for (std::size_t i = 0; i < node_.items.size(); ++i) {
      const std::string path = fmt::format("{}[{}]", path_, i);
      blocks.emplace_back(block_of(validate(node_.items[i], field_.blocks(), path, diagnostics_), field_.blocks()));
    }
    if (diagnostics_.error_count() > errors) return {};
    return ParamValue(std::move(blocks));
  }

  [[nodiscard]] std::optional<ParamValue> list() const {
    if (!is_list()) return {};
    Field entry = field_;
    entry.type = entry_type(field_.type);
    ParamValue::List values;
    for (std::size_t i = 0; i < node_.items.size(); ++i)
      if (auto value = read_value(node_.items[i], entry, fmt::format("{}[{}]", path_, i), diagnostics_))
        values.push_back(std::move(*value));
    if (values.size() < node_.items.size()) return {};
    return ParamValue(std::move(values));
  }

  const Node& node_;
  const Field& field_;
  const std::string& path_;
  Diagnostics& diagnostics_;
};

}  // namespace

std::optional<ParamValue> read_value(const Node& node, const Field& field, const std::string& path,
                                     Diagnostics& diagnostics) {
  return Reader(node, field, path, diagnostics).read();
}

ParamValue default_value(const Field& field) {
  Diagnostics diagnostics;
  const Node node = parse_document("the default of " + field.name, field.default_text, Syntax::yaml, diagnostics);
  if (node.kind == Node::Kind::null && field.nullable) return {};
  const std::optional<ParamValue> value = read_value(node, field, field.name, diagnostics);
  require(value.has_value(), diagnostics.render());
  return *value;
}

Params with_defaults(const Fields& fields, Params given) {
  for (const Field& field : fields)
    if (!field.required && given.find(field.name) == nullptr) given.set(field.name, default_value(field));
  return given;
}

}  // namespace lockstep::config
