#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lockstep::config {

/// A value as a file gives it. A number keeps whether it was written as an integer, since schedulers refuse
/// `10.0` where an integer is meant. `std::monostate` is an explicit null.
struct ParamValue {
  using List = std::vector<ParamValue>;
  /// Keys in the order of their table.
  using Block = std::vector<std::pair<std::string, ParamValue>>;
  std::variant<std::monostate, bool, std::int64_t, double, std::string, List, Block> value;

  ParamValue() = default;
  ParamValue(bool v) : value(v) {}
  ParamValue(int v) : value(std::int64_t{v}) {}
  ParamValue(std::int64_t v) : value(v) {}
  ParamValue(double v) : value(v) {}
  ParamValue(const char* v) : value(std::string(v)) {}
  ParamValue(std::string v) : value(std::move(v)) {}
  ParamValue(List v) : value(std::move(v)) {}
  ParamValue(Block v) : value(std::move(v)) {}

  [[nodiscard]] bool is_null() const { return std::holds_alternative<std::monostate>(value); }
  [[nodiscard]] bool is_number() const {
    return std::holds_alternative<std::int64_t>(value) || std::holds_alternative<double>(value);
  }
  bool operator==(const ParamValue&) const = default;
};

/// A flat set of named parameters, e.g. `scheduler.params`. It knows no defaults: the table of fields has them, and
/// with_defaults (config/field_value.hpp) puts them in before anybody reads.
class Params {
 public:
  Params() = default;
  Params(std::initializer_list<std::pair<const std::string, ParamValue>> values) : values_(values) {}

  /// The keys of a block, and an empty set for what is no block.
  [[nodiscard]] static Params of(const ParamValue& block);

  /// Whether there is a value other than null.
  [[nodiscard]] bool has(const std::string& name) const {
    const ParamValue* value = find(name);
    return value != nullptr && !value->is_null();
  }
  /// Null pointer when absent.
  [[nodiscard]] const ParamValue* find(const std::string& name) const {
    const auto it = values_.find(name);
    return it == values_.end() ? nullptr : &it->second;
  }
  void set(const std::string& name, ParamValue value) { values_[name] = std::move(value); }
  [[nodiscard]] const std::map<std::string, ParamValue>& all() const { return values_; }
  bool operator==(const Params&) const = default;

  // Typed reads of a parameter that has() a value of this type, as the reader has made sure; otherwise they throw
  // ErrorKind::internal.
  [[nodiscard]] double number(const std::string& name) const;
  [[nodiscard]] std::int64_t integer(const std::string& name) const;
  [[nodiscard]] bool boolean(const std::string& name) const;
  [[nodiscard]] std::string text(const std::string& name) const;
  /// "float or list": one value for all groups, or one a group. ErrorKind::config if a list's length is not `groups`.
  [[nodiscard]] std::vector<double> per_group(const std::string& name, std::size_t groups) const;

 private:
  std::map<std::string, ParamValue> values_;
};

}  // namespace lockstep::config
