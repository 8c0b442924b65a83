#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
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
/// second time, and replayed from the third on. A graph is good for as long as the addresses in it are, and those last
/// as long as the engine: nothing has to be captured again, but for a capture that threw.
///
/// Where the device refuses to capture the work (ErrorKind::environment) before any of it was launched, run() says so
/// once and enqueues it anew from then on: why() has the reason.
class StepGraphs {
 public:
  /// `enabled` false: run() always runs the work as it is. ErrorKind::internal if the device cannot capture.
  StepGraphs(DeviceApi& device, StreamRef stream, bool enabled, bool capture_collectives);
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;
  ~StepGraphs();

  [[nodiscard]] bool enabled() const { return enabled_; }
  /// Why the device captures nothing, although it was asked to; else empty.
  [[nodiscard]] const std::string& why() const { return why_; }
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
  void abandon(Recording& recording) noexcept;

  DeviceApi& device_;
  StreamRef stream_;
  bool enabled_;
  bool capture_collectives_;
  std::array<Recording, 3> recordings_;
  Recording* recording_ = nullptr;  ///< being captured
  bool graph_open_ = false;
  bool launched_ = false;  ///< of what is being recorded: a part of it has been done
  std::int64_t replays_ = 0;
  std::string why_;
};

}  // namespace lockstep::engine
