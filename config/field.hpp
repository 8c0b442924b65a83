#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lockstep::config {

struct Section;

/// What a key may hold. `number_or_list` is DeepSpeed's "float or list": one value, or one per parameter group.
enum class FieldType {
  boolean,
  integer,
  number,
  text,
  choice,
  path,
  number_or_list,
  number_list,
  integer_list,
  text_list,
  block_list,
};

/// One key of a job file, described once. The reader, `lockstep explain`, the reference page and the JSON Schema
/// are all made from these descriptions, so they cannot disagree.
struct Field {
  std::string name = {};  ///< the key, without its section: "warmup_num_steps"
  FieldType type = FieldType::text;
  /// As it would stand in YAML; empty with `required`. The only default of the key: who reads it has none.
  std::string default_text = {};
  std::string doc = {};   ///< one or two sentences for a user
  std::string unit = {};  ///< "optimizer steps", "seconds", ...; empty if none
  bool required = false;
  bool nullable = false;  ///< an explicit null means "absent"
  std::optional<double> min = {};
  std::optional<double> max = {};
  bool min_open = false;  ///< the minimum itself is refused
  bool max_open = false;
  std::vector<std::string> choices = {};
  bool strict_integer = false;             ///< refuse 10.0 and 1e3 (a scheduler's integers, as DeepSpeed does)
  bool or_auto = false;                    ///< the word `auto` is a value too
  std::optional<std::size_t> length = {};  ///< a list's only allowed number of entries
  bool may_be_empty = false;               ///< a list without entries is a value too
  /// What each block of a block_list holds: a function, since blocks may hold lists of their own kind.
  const Section& (*blocks)() = nullptr;
  /// Values that are understood but not supported, each with the reason that the error gives.
  std::vector<std::pair<std::string, std::string>> refused = {};
};

using Fields = std::vector<Field>;

/// Null if there is none of this name.
[[nodiscard]] const Field* find_field(const Fields& fields, std::string_view name);

/// "an integer >= 1 (optimizer steps)", "one of auto, cpu, cuda": what a field wants, for errors and docs.
[[nodiscard]] std::string describe_type(const Field& field);

}  // namespace lockstep::config
