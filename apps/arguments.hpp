#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

/// What all commands' command lines have in common.
namespace lockstep {

/// 10,000,000
std::string with_separators(std::int64_t number);

/// "from 1 to 10,000,000", or "from 0 up" where only the type sets an end.
template <class Number>
std::string limits_text(Number low, Number high) {
  if constexpr (std::is_integral_v<Number>) {
    if (high == std::numeric_limits<Number>::max()) return fmt::format("from {} up", with_separators(low));
    return fmt::format("from {} to {}", with_separators(low), with_separators(high));
  } else {
    return fmt::format("from {} to {}", low, high);
  }
}

/// A number within [low, high]; NaN is not.
template <class Number>
CLI::Validator between(Number low, Number high) {
  const auto check = [=](const std::string& text) -> std::string {
    Number value{};
    if (CLI::detail::lexical_cast(text, value) && value >= low && value <= high) return {};
    return fmt::format("'{}' is not a {} {}", text, std::is_integral_v<Number> ? "whole number" : "number",
                       limits_text(low, high));
  };
  return {check, limits_text(low, high)};
}

/// Two commands at the end of a command's help.
void add_examples(CLI::App& command, const std::string& first, const std::string& second);

/// Throws ErrorKind::config, with the nearest, if the first of `words` (or the one after a command that has commands of
/// its own) is no command.
void require_known_command(const CLI::App& app, const std::vector<std::string>& words);

/// What is wrong with the words, with the nearest option for one that does not exist.
std::string complaint(const CLI::App& app, const CLI::ParseError& error, const std::vector<std::string>& words);

}  // namespace lockstep
