#pragma once

#include <string>
#include <vector>

#include "config/source.hpp"

namespace lockstep::config {

/// Collects everything that is wrong with a configuration, so that a user corrects it in one go. What a file holds is
/// made printable (core/text.hpp) before it is shown.
///
/// Each error is shown as
///
///     job.yaml:14:5: error: unknown key 'warmup_num_step' in scheduler.params
///        14 |     warmup_num_step: 500
///           |     ^~~~~~~~~~~~~~~ did you mean 'warmup_num_steps'?
///        allowed: warmup_min_lr, warmup_num_steps
///
/// Of a line of more than 300 bytes a piece around the place is shown.
class Diagnostics {
 public:
  /// `remedy` stands beside the caret; `allowed` is a list of what would have been accepted. Both may be empty.
  void error(const Position& position, const std::string& message, const std::string& remedy = {},
             const std::string& allowed = {});
  /// Something a user should know that does not stop the run.
  void warning(const Position& position, const std::string& message);

  [[nodiscard]] std::size_t error_count() const { return errors_.size(); }
  struct Words {
    std::string message, remedy;
  };
  /// Those of the error that was reported first; empty without errors.
  [[nodiscard]] Words first_error() const;
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  /// All errors in the order of their positions, as one text. The first 100 are shown in full.
  [[nodiscard]] std::string render() const;
  /// Throws the rendered text as ErrorKind::config if there is any error.
  void throw_if_errors() const;

 private:
  struct Entry {
    Position position;
    std::string message;
    std::string remedy;
    std::string allowed;
    std::size_t source_order = 0;
  };
  std::vector<Entry> errors_;
  std::vector<std::string> warnings_;
  std::vector<std::string> source_names_;  // in the order in which they were first mentioned
};

/// "job.yaml:14:5", or just the option's text, or just the file's name when there is no line.
[[nodiscard]] std::string to_string(const Position& position);

}  // namespace lockstep::config
