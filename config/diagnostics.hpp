#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/source.hpp"

namespace lockstep {

/// The candidate that `word` most likely meant, or an empty string if none is near. Counts insertions,
/// deletions, replacements and swaps of neighbours (optimal string alignment distance), ignoring case; near is
/// at most one edit for every three letters, and at least one.
[[nodiscard]] std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

/// "a, b, c"
[[nodiscard]] std::string join(const std::vector<std::string>& words, std::string_view separator = ", ");

/// Collects everything that is wrong with a configuration, so that a user corrects it in one go.
///
/// Each error is shown as
///
///     job.yaml:14:5: error: unknown key 'warmup_num_step' in scheduler.params
///        14 |     warmup_num_step: 500
///           |     ^~~~~~~~~~~~~~~ did you mean 'warmup_num_steps'?
///        allowed: warmup_min_lr, warmup_num_steps
class Diagnostics {
 public:
  /// `remedy` stands beside the caret; `allowed` is a list of what would have been accepted. Both may be empty.
  void error(const Place& place, std::string message, std::string remedy = {}, std::string allowed = {});
  /// Something a user should know that does not stop the run.
  void warning(const Place& place, const std::string& message);
  /// A plain line: which keys of a DeepSpeed file act here and which do not.
  void note(std::string text) { notes_.push_back(std::move(text)); }

  [[nodiscard]] std::size_t error_count() const { return errors_.size(); }
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }

  /// All errors in the order of their places, as one text. The first 100 are shown in full.
  [[nodiscard]] std::string render() const;
  /// Throws the rendered text as ErrorKind::config if there is any error.
  void throw_if_errors() const;

 private:
  struct Entry {
    Place place;
    std::string message;
    std::string remedy;
    std::string allowed;
    std::size_t source_order = 0;
  };
  std::vector<Entry> errors_;
  std::vector<std::string> warnings_;
  std::vector<std::string> notes_;
  std::vector<std::string> source_names_;  // in the order in which they were first mentioned
};

/// "job.yaml:14:5", or just the option's text, or just the file's name when there is no line.
[[nodiscard]] std::string to_string(const Place& place);

}  // namespace lockstep
