#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine.hpp"

namespace lockstep::run {

/// Where a fault may strike.
enum class FaultPoint : std::uint8_t {
  begin,    ///< before the step
  end,      ///< after the step, before its metrics are written
  save,     ///< as a save begins, before any file is written
  writing,  ///< within a save: the rank's tensors are written and not flushed
  commit,   ///< rank 0, between a checkpoint's tensors and its manifest
};

enum class FaultKind : std::uint8_t { kill, stop, sleep, flip, enospc, eio, nan };

/// One fault made on purpose.
struct Fault {
  FaultKind kind = FaultKind::kill;
  int rank = 0;
  std::int64_t step = 1;  ///< counted from 1, as in metrics.jsonl
  FaultPoint point = FaultPoint::begin;
  std::chrono::duration<double> seconds{0};  ///< of sleep
  std::string parameter = {};                ///< of nan; empty: the model's first
  bool operator==(const Fault&) const = default;
};

/// Faults that a run is to meet, so that a recovery can be rehearsed: the environment variable LOCKSTEP_FAULT, a list
/// separated by commas of
///
///   KIND@rankR:stepS[:POINT]          POINT: begin (the default), end, save, writing, commit
///   KIND: kill                        SIGKILL to the process of rank R
///         stop                        SIGSTOP to it: it hangs until somebody sends SIGCONT
///         sleep=SECONDS               it does nothing for so long
///         flip                        one mantissa bit of its first parameter; points begin and end
///         enospc, eio                 its next save meets a disk that is full, or that fails; points begin to save
///   nan@rankR:stepS[:PARAMETER]       in that step one number of the rank's own gradient of PARAMETER (the model's
///                                     first unless it is named) is NaN before gradients are summed over ranks
///
/// Without the variable there is nothing, and a step costs one comparison. Threads may strike at once. A fault strikes
/// once in a process; the run that goes on afterwards meets it again if it takes the same step with the same variable.
class Faults {
 public:
  Faults() = default;
  /// ErrorKind::config for a text that does not say what is meant.
  explicit Faults(std::string_view text);
  /// Those of the environment variable.
  [[nodiscard]] static Faults from_environment();

  [[nodiscard]] const std::vector<Fault>& all() const { return faults_; }
  /// For the lines that a run begins with; empty without faults.
  [[nodiscard]] const std::string& text() const { return text_; }

  /// ErrorKind::config if a fault names a parameter that is not among these.
  void require_known(const std::vector<nn::ParameterSpec>& parameters) const;

  /// Lets what is due at this point of this rank's step happen.
  void strike(FaultPoint point, std::int64_t step, engine::Engine& engine) {
    if (!text_.empty()) strike_now(point, step, engine);
  }
  /// The errno that the save which begins now is to meet on this rank; 0: none. It is asked once.
  [[nodiscard]] int take_disk_error() { return std::exchange(disk_error_, 0); }

 private:
  void strike_now(FaultPoint point, std::int64_t step, engine::Engine& engine);

  std::string text_;
  std::vector<Fault> faults_;
  std::mutex mutex_;
  int disk_error_ = 0;
};

}  // namespace lockstep::run
