#pragma once

// Jobs of a second or two, in a folder of their own.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/program/program.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::testing {

/// A test's folder with job.yaml in it.
class ProgramTest : public ::testing::Test {
 protected:
  ProgramTest() { write_text(folder_ / "job.yaml", job()); }

  static std::string job() {
    return "model: {type: mlp, hidden: [16]}\n"
           "data: {type: clusters, classes: 4, features: 8, samples: 512}\n"
           "run: {name: r, output_dir: runs, steps: 20, log_every: 1}\n"
           "train_batch_size: 8\n";
  }

  [[nodiscard]] Outcome run(const std::string& command, std::map<std::string, std::string> environment = {},
                            const std::string& redirect = "") const {
    return run_program(command, options(std::move(environment), redirect));
  }
  [[nodiscard]] Program::Options options(std::map<std::string, std::string> environment = {},
                                         const std::string& redirect = "") const {
    return {.environment = std::move(environment), .folder = folder_.path().string(), .redirect = redirect};
  }
  /// On a terminal so many columns wide.
  [[nodiscard]] Outcome run_on_terminal(const std::string& command, int columns,
                                        std::map<std::string, std::string> environment = {}) const {
    Program::Options with_terminal = options(std::move(environment));
    with_terminal.columns = columns;
    return run_program(command, with_terminal);
  }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
  /// Lines of the run's metrics.jsonl.
  [[nodiscard]] std::int64_t metrics_lines() const {
    const std::string text = text_of(path("runs/r/metrics.jsonl"));
    return std::count(text.begin(), text.end(), '\n');
  }

 private:
  ScratchFolder folder_;
};

/// How often `part` stands in `text`.
inline int count_of(const std::string& text, const std::string& part) {
  int count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace lockstep::testing
