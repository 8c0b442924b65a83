#pragma once

#include <CLI/CLI.hpp>
#include <string>

// What shells and manuals know of the command line, made from the table that --help is printed from.
namespace lockstep {

/// A completion script. `shell`: bash, zsh or fish; ErrorKind::config for another one.
[[nodiscard]] std::string completion_script(const CLI::App& app, const std::string& shell);

/// The manual page lockstep(1), as roff.
[[nodiscard]] std::string manual_page(const CLI::App& app, const std::string& version);

}  // namespace lockstep
