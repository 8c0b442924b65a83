#include "config/params.hpp"

#include "core/error.hpp"

namespace lockstep::config {
namespace {

template <class T>
const T* get(const ParamValue* value) {
  return value == nullptr ? nullptr : std::get_if<T>(&value->value);
}

[[noreturn]] void no_such(const std::string& name, const char* wanted) {
  fail(ErrorKind::internal, "parameter {}: {} is wanted; the table of fields says otherwise", name, wanted);
}

double as_number(const std::string& name, const ParamValue* value) {
  if (const auto* i = get<std::int64_t>(value)) return static_cast<double>(*i);
  if (const auto* d = get<double>(value)) return *d;
  no_such(name, "a number");
}

}  // namespace

Params Params::of(const ParamValue& block) {
  Params params;
  if (const auto* keys = get<ParamValue::Block>(&block))
    for (const auto& [name, value] : *keys) params.set(name, value);
  return params;
}

double Params::number(const std::string& name) const { return as_number(name, find(name)); }

std::int64_t Params::integer(const std::string& name) const {
  if (const auto* i = get<std::int64_t>(find(name))) return *i;
  no_such(name, "an integer");
}

bool Params::boolean(const std::string& name) const {
  if (const auto* b = get<bool>(find(name))) return *b;
  no_such(name, "true or false");
}

std::string Params::text(const std::string& name) const {
  if (const auto* s = get<std::string>(find(name))) return *s;
  no_such(name, "a text");
}

std::vector<double> Params::per_group(const std::string& name, std::size_t groups) const {
  const auto* list = get<ParamValue::List>(find(name));
  if (list == nullptr) return std::vector<double>(groups, number(name));
  if (list->size() != groups)
    fail(ErrorKind::config, "{}: the list has {} entries, the optimizer has {} parameter groups; give one number or {}",
         name, list->size(), groups, groups);
  std::vector<double> result;
  for (const ParamValue& entry : *list) result.push_back(as_number(name, &entry));
  return result;
}

}  // namespace lockstep::config
