#pragma once

#include <memory>
#include <string>
#include <vector>

namespace lockstep::config {

/// A text that configuration was read from: a file, or one command-line option.
struct Source {
  std::string name;                ///< as errors show it: "job.yaml", "--set run.steps=ten"
  std::vector<std::string> lines;  ///< without line ends
  bool is_option = false;          ///< an option has no lines worth naming
};

/// Splits a text into a Source. A byte order mark and carriage returns at line ends are dropped.
[[nodiscard]] std::shared_ptr<const Source> make_source(std::string name, const std::string& text,
                                                        bool is_option = false);

/// Where something was written. Lines and columns count from 1; columns count bytes. Line 0 means "nowhere in
/// particular", e.g. a section that is missing.
struct Position {
  std::shared_ptr<const Source> source;
  int line = 0;
  int column = 0;
  int length = 1;  ///< bytes to underline
};

}  // namespace lockstep::config
