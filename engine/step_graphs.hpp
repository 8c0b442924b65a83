#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/device.hpp"

namespace lockstep::engine {

/// The kinds of micro-step: the first one of a step overwrites what is summed, a further one adds, the last one of a
/// step ends in its update. A micro-step that is both first and last counts as last.
enum class MicroStep : std::uint8_t { first, further, last };

/// The work of micro-steps on the device, captured once for each kind and replayed from then on, without running the
/// code that enqueues it again. That is possible because a micro-step's work always has the same arguments: whatever
/// changes lies at fixed addresses (StepInputs, the batch).
///
/// A communicator's calls cannot be part of a graph unless it says so. They are given to outside(), where the graph
/// ends and another one begins: a replay then launches graphs and repeats the calls between them.
///
/// Each kind's work runs as it is the first time, because libraries set themselves up on first use, is captured the
/// second time, and replayed from the third on.
class StepGraphs {
 public:
  /// `enabled` false: run() always runs the work as it is. ErrorKind::internal if the device cannot capture.
  StepGraphs(DeviceApi& device, StreamRef stream, bool enabled, bool capture_collectives);
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;
  ~StepGraphs();

  [[nodiscard]] bool enabled() const { return enabled_; }
  [[nodiscard]] bool capturing() const { return recording_ != nullptr; }

  /// Does `work`, which enqueues on the stream. When it throws during a capture, nothing of it has been kept.
  void run(MicroStep kind, const std::function<void()>& work);
  /// To be called by work for what it asks of the communicator. `call` must be able to run again in a replay.
  void outside(const std::function<void()>& call);

  [[nodiscard]] std::size_t graphs() const;  ///< captured so far
  [[nodiscard]] std::int64_t replays() const { return replays_; }

 private:
  /// Either a graph, or a call between two.
  struct Part {
    GraphRef graph = {};
    std::function<void()> call = {};
  };
  struct Recording {
    bool warm = false;
    std::vector<Part> parts;
  };
  void record(Recording& recording, const std::function<void()>& work);
  void begin_graph();
  void end_graph();
  void forget(Recording& recording) noexcept;

  DeviceApi& device_;
  StreamRef stream_;
  bool enabled_;
  bool capture_collectives_;
  std::array<Recording, 3> recordings_;
  Recording* recording_ = nullptr;  ///< being captured
  bool graph_open_ = false;
  std::int64_t replays_ = 0;
};

}  // namespace lockstep::engine
