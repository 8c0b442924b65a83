#include "engine/step_graphs.hpp"

#include "core/error.hpp"
#include "core/log.hpp"

namespace lockstep::engine {

StepGraphs::StepGraphs(DeviceApi& device, StreamRef stream, bool enabled, bool capture_collectives)
    : device_(device), stream_(stream), enabled_(enabled), capture_collectives_(capture_collectives) {
  if (enabled && !device.can_capture())
    fail(ErrorKind::internal,
         "engine: captured steps need a device that can capture; {} cannot. Leave options.captured out", device.name());
}

StepGraphs::~StepGraphs() {
  for (Recording& recording : recordings_) forget(recording);
}

void StepGraphs::run(MicroStep kind, const std::function<void()>& work) {
  Recording& recording = recordings_[static_cast<std::size_t>(kind)];
  if (!enabled_ || !recording.warm) {
    work();
    recording.warm = true;
  } else if (recording.parts.empty()) {
    try {
      record(recording, work);
    } catch (const Error& error) {
      // What was launched, and what went to other ranks in between, cannot be taken back.
      if (error.kind() != ErrorKind::environment || launched_) throw;
      why_ = error.what();
      enabled_ = false;
      log::warning("steps are not captured, but enqueued anew each time (run.cuda_graph): {}", why_);
      work();
    }
  } else {
    for (const Part& part : recording.parts)
      if (part.call)
        part.call();
      else
        device_.launch(part.graph, stream_);
    ++replays_;
  }
}

void StepGraphs::outside(const std::function<void()>& call) {
  if (!capturing() || capture_collectives_) return call();
  end_graph();
  launched_ = true;
  call();
  recording_->parts.push_back({.call = call});
  begin_graph();
}

void StepGraphs::record(Recording& recording, const std::function<void()>& work) {
  recording_ = &recording;
  launched_ = false;
  try {
    begin_graph();
    work();
    end_graph();
  } catch (...) {
    abandon(recording);
    throw;
  }
  recording_ = nullptr;
}

void StepGraphs::begin_graph() {
  device_.begin_capture(stream_);
  graph_open_ = true;
}

/// What was captured has not been done yet: its launch does it.
void StepGraphs::end_graph() {
  graph_open_ = false;
  const GraphRef graph = device_.end_capture(stream_);
  if (graph == GraphRef{}) return;
  recording_->parts.push_back({.graph = graph});
  device_.launch(graph, stream_);
  launched_ = true;
}

/// After an error, which may have broken the capture too.
void StepGraphs::abandon(Recording& recording) noexcept {
  try {
    if (const GraphRef graph = graph_open_ ? device_.end_capture(stream_) : GraphRef{}; graph != GraphRef{})
      device_.destroy(graph);
  } catch (const std::exception&) {  // the first error says why
  }
  graph_open_ = false;
  recording_ = nullptr;
  forget(recording);
}

void StepGraphs::forget(Recording& recording) noexcept {
  for (const Part& part : recording.parts)
    if (!part.call) device_.destroy(part.graph);
  recording.parts.clear();
}

std::size_t StepGraphs::graphs() const {
  std::size_t count = 0;
  for (const Recording& recording : recordings_)
    for (const Part& part : recording.parts) count += part.call ? 0 : 1;
  return count;
}

}  // namespace lockstep::engine
