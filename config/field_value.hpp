#pragma once

#include <optional>
#include <string>

#include "config/diagnostics.hpp"
#include "config/document.hpp"
#include "config/field.hpp"
#include "config/params.hpp"

namespace lockstep::config {

/// One value as `field` wants it: integers as std::int64_t, numbers as double, words and paths as text. Nothing if it
/// is of another kind or out of range, which is then reported; `path` is how the error names it. This is the one place
/// that knows what a field takes, whether a file, an option or a program gives it.
[[nodiscard]] std::optional<ParamValue> read_value(const Node& node, const Field& field, const std::string& path,
                                                   Diagnostics& diagnostics);

/// What an absent key means: the field's default_text, read as above; null for "null".
/// ErrorKind::internal if the text is none of the field's values.
[[nodiscard]] ParamValue default_value(const Field& field);

/// `given`, and the default of every field that is absent there and not required.
[[nodiscard]] Params with_defaults(const Fields& fields, Params given);

}  // namespace lockstep::config
