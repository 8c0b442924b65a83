#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostics.hpp"
#include "config/document.hpp"
#include "config/field.hpp"
#include "config/params.hpp"

namespace lockstep {

/// A block of a job file, described once: its keys, its sub-blocks and, where a key such as `type` chooses
/// between several sets of keys, those variants.
struct Section {
  std::string name = {};
  std::string doc = {};
  Fields fields = {};
  std::vector<Section> sections = {};

  /// Non-empty: this key's value names one of `variants`, whose fields and sections are then allowed too.
  std::string variant_key = {};
  std::string variant_doc = {};
  std::vector<Section> variants = {};
  /// Type names that are understood but refused, with the reason.
  std::map<std::string, std::string> refused_variants = {};
  bool ignore_case = false;  ///< of a variant: its name may be spelled in any case

  bool list = false;      ///< a list of such blocks
  bool required = false;  ///< the block must be there
  bool nullable = false;  ///< null means "absent"
  /// Keys that people write here by mistake, with what to write instead.
  std::map<std::string, std::string> advice = {};

  [[nodiscard]] const Field* find_field(std::string_view key) const;
  [[nodiscard]] const Section* find_section(std::string_view key) const;
  [[nodiscard]] const Section* find_variant(std::string_view type) const;
};

/// A typed value and where it stands.
struct Located {
  ParamValue value;
  Place place;
};

/// What a block really holds: only the keys that were given, with their types checked. Explicit nulls count as
/// not given.
struct Values {
  bool given = false;
  Place place;               ///< of the block's key
  std::string variant = {};  ///< the canonical type name
  Place variant_place = {};
  std::map<std::string, Located> values = {};
  std::map<std::string, Values> sections = {};
  std::map<std::string, std::vector<Values>> lists = {};

  [[nodiscard]] const ParamValue* find(const std::string& key) const;
  /// The place of a key, or of the whole block if the key was not given.
  [[nodiscard]] Place place_of(const std::string& key) const;
  /// An empty block if there is none.
  [[nodiscard]] const Values& section(const std::string& key) const;
  [[nodiscard]] Params params() const;
};

/// Checks `node` against `section`. Everything wrong is reported; the result holds what was right.
/// `path` is how errors name this block: "" for the whole job, "run.checkpoint".
[[nodiscard]] Values validate(const Node& node, const Section& section, const std::string& path,
                              Diagnostics& diagnostics);

/// Checks one value. False: an error was reported.
bool validate_value(const Node& node, const Field& field, const std::string& path, ParamValue& value,
                    Diagnostics& diagnostics);

/// "an integer >= 1 (optimizer steps)", "one of auto, cpu, cuda": what a field wants, for errors and docs.
[[nodiscard]] std::string describe_type(const Field& field);

/// A value as YAML writes it, in one line. Numbers are the shortest text that reads back to the same bits.
[[nodiscard]] std::string to_yaml(const ParamValue& value);

}  // namespace lockstep
