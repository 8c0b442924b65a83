#include "config/field.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstdlib>

namespace lockstep::config {
namespace {

std::string base_type(const Field& field) {
  if (field.length)
    return fmt::format("a list of {} {}", *field.length,
                       field.type == FieldType::integer_list ? "integers" : "numbers");
  switch (field.type) {
    case FieldType::boolean:
      return "true or false";
    case FieldType::integer:
      return "an integer";
    case FieldType::number:
      return "a number";
    case FieldType::text:
      return "a text";
    case FieldType::choice:
      return fmt::format("{}{}", field.choices.size() == 1 ? "only " : "one of ", fmt::join(field.choices, ", "));
    case FieldType::path:
      return "a path";
    case FieldType::number_or_list:
      return "a number, or a list with one for each parameter group,";
    case FieldType::number_list:
      return "a list of numbers";
    case FieldType::integer_list:
      return "a list of integers";
    case FieldType::text_list:
      return "a list of texts";
    case FieldType::block_list:
      return "a list of blocks";
  }
  return "";
}

/// A limit as one would write it: 1e9 rather than nine zeros.
std::string limit(double value) {
  if (std::abs(value) < 1e6) return fmt::format("{}", value);
  const std::string text = fmt::format("{:g}", value);
  const std::size_t e = text.find("e+");
  if (e == std::string::npos || std::strtod(text.c_str(), nullptr) != value) return fmt::format("{:.0f}", value);
  return text.substr(0, e + 1) + text.substr(text.find_first_not_of('0', e + 2));
}

std::string range(const Field& field) {
  if (field.min && field.max)
    return fmt::format(" {} {} {} {}", field.min_open ? "above" : "from", limit(*field.min),
                       field.max_open ? "to below" : "to", limit(*field.max));
  if (field.min) return fmt::format(" {} {}", field.min_open ? ">" : ">=", limit(*field.min));
  if (field.max) return fmt::format(" {} {}", field.max_open ? "<" : "<=", limit(*field.max));
  return "";
}

}  // namespace

const Field* find_field(const Fields& fields, std::string_view name) {
  for (const Field& field : fields)
    if (field.name == name) return &field;
  return nullptr;
}

std::string describe_type(const Field& field) {
  std::string text = base_type(field) + range(field);
  if (text.ends_with(',')) text.pop_back();
  if (field.strict_integer) text += " written without '.' and exponent";
  if (!field.unit.empty()) text += " (" + field.unit + ")";
  if (field.or_auto) text += " or auto";
  if (field.nullable) text += " or null";
  return text;
}

}  // namespace lockstep::config
