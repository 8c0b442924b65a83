#include "config/params.hpp"

#include "core/error.hpp"

namespace lockstep {
namespace {

double as_number(const std::string& name, const ParamValue& v) {
  if (const auto* i = std::get_if<std::int64_t>(&v.value)) return static_cast<double>(*i);
  if (const auto* d = std::get_if<double>(&v.value)) return *d;
  fail(ErrorKind::config, "{}: expected a number", name);
}

}  // namespace

double Params::number(const std::string& name, double fallback) const {
  const ParamValue* v = find(name);
  return v == nullptr ? fallback : as_number(name, *v);
}

std::int64_t Params::integer(const std::string& name, std::int64_t fallback) const {
  const ParamValue* v = find(name);
  if (v == nullptr) return fallback;
  if (const auto* i = std::get_if<std::int64_t>(&v->value)) return *i;
  fail(ErrorKind::config, "{}: expected an integer", name);
}

bool Params::boolean(const std::string& name, bool fallback) const {
  const ParamValue* v = find(name);
  if (v == nullptr) return fallback;
  if (const auto* b = std::get_if<bool>(&v->value)) return *b;
  fail(ErrorKind::config, "{}: expected true or false", name);
}

std::string Params::text(const std::string& name, const std::string& fallback) const {
  const ParamValue* v = find(name);
  if (v == nullptr) return fallback;
  if (const auto* s = std::get_if<std::string>(&v->value)) return *s;
  fail(ErrorKind::config, "{}: expected a text", name);
}

std::vector<double> Params::per_group(const std::string& name, std::size_t groups, double fallback) const {
  const ParamValue* v = find(name);
  if (v == nullptr) return std::vector<double>(groups, fallback);
  if (const auto* list = std::get_if<ParamValue::List>(&v->value)) {
    if (list->size() != groups)
      fail(ErrorKind::config,
           "{}: the list has {} entries, the optimizer has {} parameter groups; give one number or {}", name,
           list->size(), groups, groups);
    std::vector<double> result;
    for (const ParamValue& entry : *list) result.push_back(as_number(name, entry));
    return result;
  }
  return std::vector<double>(groups, as_number(name, *v));
}

}  // namespace lockstep
