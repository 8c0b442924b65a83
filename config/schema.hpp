#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostics.hpp"
#include "config/document.hpp"
#include "config/field.hpp"
#include "config/params.hpp"

namespace lockstep::config {

struct Section;

/// What may stand in a block: keys with a value, and blocks of their own.
struct Keys {
  Fields fields = {};
  std::vector<Section> sections = {};

  [[nodiscard]] const Section* find_section(std::string_view name) const;
};

/// One value of a block's `type` key, with the keys that it brings.
struct Type {
  std::string name = {};
  std::string doc = {};
  Keys keys = {};
  bool ignore_case = false;  ///< the name may be spelled in any case
};

/// The `type` key of a block.
struct Types {
  std::string doc = {};
  std::vector<Type> known = {};
  std::map<std::string, std::string> refused = {};  ///< understood but not supported, each with the reason
  /// Other names that people bring, in lower case, each with what to write instead.
  std::map<std::string, std::string> advice = {};
  std::string default_type = {};  ///< of a block that names none; empty: it must

  [[nodiscard]] const Type* find(std::string_view name) const;
  [[nodiscard]] std::vector<std::string> names() const;
};

enum class Presence {
  optional,
  nullable,  ///< optional, and an explicit null means "absent"
  required,
};

/// A block of a job file, described once.
struct Section {
  std::string name = {};
  std::string doc = {};
  Keys keys = {};
  std::optional<Types> types = {};
  Presence presence = Presence::optional;
  bool list = false;  ///< a list of such blocks
  /// Keys that people write here by mistake, with what to write instead.
  std::map<std::string, std::string> advice = {};
};

/// A typed value and where it stands.
struct Located {
  ParamValue value;
  Position position;
};

/// What a block really holds: only the keys that were given, with their types checked. An explicit null is a null
/// value, where the key allows it.
struct Values {
  Position position;      ///< of the block's key
  std::string type = {};  ///< in its own spelling
  Position type_position = {};
  std::map<std::string, Located> values = {};
  std::map<std::string, Values> sections = {};
  std::map<std::string, std::vector<Values>> lists = {};

  [[nodiscard]] const ParamValue* find(const std::string& key) const;
  /// The position of a key, or of the whole block if the key was not given.
  [[nodiscard]] Position position_of(const std::string& key) const;
  /// An empty block if there is none.
  [[nodiscard]] const Values& section(const std::string& key) const;
  [[nodiscard]] Params params() const;
};

/// Checks `node` against `section`. Everything wrong is reported; the result holds what was right.
/// `path` is how errors name this block: "" for the whole job, "run.checkpoint".
[[nodiscard]] Values validate(const Node& node, const Section& section, const std::string& path,
                              Diagnostics& diagnostics);

/// Parameters that a program gives instead of a file: checked as a file's, with the same texts, then completed by the
/// defaults. `owner` stands in errors where a file's name would: "scheduler WarmupLR".
/// Throws ErrorKind::config with everything that is wrong.
[[nodiscard]] Params checked(const Fields& fields, const Params& given, const std::string& owner);

}  // namespace lockstep::config
