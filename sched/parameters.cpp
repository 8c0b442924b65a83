#include "sched/parameters.hpp"

#include <algorithm>
#include <cmath>

#include "core/error.hpp"

namespace lockstep::sched {
namespace {

bool holds_number(const ParamValue& value) { return value.is_number(); }

double number_of(const ParamValue& value) {
  if (const auto* i = std::get_if<std::int64_t>(&value.value)) return static_cast<double>(*i);
  return std::get<double>(value.value);
}

bool right_type(const Field& field, const ParamValue& value) {
  switch (field.type) {
    case FieldType::boolean:
      return std::holds_alternative<bool>(value.value);
    case FieldType::integer:
      return std::holds_alternative<std::int64_t>(value.value);
    case FieldType::number:
      return holds_number(value);
    case FieldType::number_or_list: {
      const auto* list = std::get_if<ParamValue::List>(&value.value);
      return list != nullptr ? std::all_of(list->begin(), list->end(), holds_number) : holds_number(value);
    }
    case FieldType::integer_list: {
      const auto* list = std::get_if<ParamValue::List>(&value.value);
      return list != nullptr && std::all_of(list->begin(), list->end(), [](const ParamValue& entry) {
               return std::holds_alternative<std::int64_t>(entry.value);
             });
    }
    default:
      return std::holds_alternative<std::string>(value.value);
  }
}

std::string_view expected(const Field& field) {
  switch (field.type) {
    case FieldType::boolean:
      return "true or false";
    case FieldType::integer:
      return "an integer, written without '.' or exponent";
    case FieldType::number:
      return "a number";
    case FieldType::number_or_list:
      return "a number, or a list with one number for each parameter group";
    case FieldType::integer_list:
      return "a list of integers";
    default:
      return "a word";
  }
}

void check_range(std::string_view type, const Field& field, double value) {
  if (!std::isfinite(value)) fail(ErrorKind::config, "scheduler {}: {} must be finite", type, field.name);
  if (field.min && (field.min_open ? value <= *field.min : value < *field.min))
    fail(ErrorKind::config, "scheduler {}: {} is {}, but must be {} {}", type, field.name, value,
         field.min_open ? "greater than" : "at least", *field.min);
  if (field.max && (field.max_open ? value >= *field.max : value > *field.max))
    fail(ErrorKind::config, "scheduler {}: {} is {}, but must be {} {}", type, field.name, value,
         field.max_open ? "less than" : "at most", *field.max);
}

void check_value(std::string_view type, const Field& field, const ParamValue& value) {
  if (value.is_null()) {
    if (!field.nullable) fail(ErrorKind::config, "scheduler {}: {} may not be null; leave it out", type, field.name);
    return;
  }
  if (!right_type(field, value)) {
    if (field.or_auto && value == ParamValue("auto"))
      fail(ErrorKind::config,
           "scheduler {}: {} is auto, which only a job file with run.steps can resolve; give a number", type,
           field.name);
    fail(ErrorKind::config, "scheduler {}: {} must be {}", type, field.name, expected(field));
  }
  if (!field.choices.empty() &&
      std::find(field.choices.begin(), field.choices.end(), std::get<std::string>(value.value)) == field.choices.end())
    fail(ErrorKind::config, "scheduler {}: {} is '{}', but must be one of {}", type, field.name,
         std::get<std::string>(value.value), fmt::join(field.choices, ", "));
  if (value.is_number()) check_range(type, field, number_of(value));
  if (const auto* list = std::get_if<ParamValue::List>(&value.value))
    for (const ParamValue& entry : *list) check_range(type, field, number_of(entry));
}

std::string names_of(const Fields& fields) {
  std::string names;
  for (const Field& field : fields) names += (names.empty() ? "" : ", ") + field.name;
  return names;
}

}  // namespace

void check_params(std::string_view type, const Fields& fields, const Params& params) {
  for (const auto& [name, value] : params.all()) {
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return f.name == name; });
    if (field == fields.end())
      fail(ErrorKind::config, "scheduler {}: there is no parameter '{}'; it takes {}", type, name, names_of(fields));
    check_value(type, *field, value);
  }
  for (const Field& field : fields)
    if (field.required && !params.has(field.name))
      fail(ErrorKind::config, "scheduler {}: {} is required", type, field.name);
}

Params without_nulls(const Params& params) {
  Params result;
  for (const auto& [name, value] : params.all())
    if (!value.is_null()) result.set(name, value);
  return result;
}

Field last_batch_iteration_field() {
  return {.name = "last_batch_iteration",
          .type = FieldType::integer,
          .default_text = "-1",
          .doc =
              "The index to start from. Other than -1, nothing is written at construction: the first update uses "
              "the optimizer's own values and the schedule goes on at this index plus one.",
          .unit = "optimizer steps",
          .strict_integer = true};
}

}  // namespace lockstep::sched
