#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace lockstep {

/// Brackets within one another that are read in a JSON text. No file of ours comes near, and functions that call
/// themselves for each level, as printing a value does, end within the stack.
inline constexpr int deepest_json = 64;

/// The value of a JSON text; nlohmann's discarded value, of no type at all, if it is none or is nested deeper than
/// deepest_json. Of two equal keys the last one counts.
[[nodiscard]] nlohmann::json parse_json(std::string_view text);

}  // namespace lockstep
