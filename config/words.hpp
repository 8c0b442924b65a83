#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lockstep::config {

/// The candidate that `word` most likely meant, or an empty string if none is near. Counts insertions,
/// deletions, replacements and swaps of neighbours (optimal string alignment distance), ignoring case; near is
/// at most one edit for every three letters, and at least one.
[[nodiscard]] std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

/// "a, b, c"
[[nodiscard]] std::string join(const std::vector<std::string>& words, std::string_view separator = ", ");

[[nodiscard]] bool same_ignoring_case(std::string_view a, std::string_view b);

}  // namespace lockstep::config
