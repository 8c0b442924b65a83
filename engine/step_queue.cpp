#include "engine/step_queue.hpp"

#include <cstring>

#include "core/error.hpp"

namespace lockstep::engine {
namespace {

/// Records and results ask for the alignment of a cache line.
std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

StepQueue::StepQueue(DeviceApi& device, comm::Communicator& comm, StreamRef stream, int groups, int max_in_flight)
    : device_(device),
      comm_(comm),
      stream_(stream),
      groups_(static_cast<std::size_t>(groups)),
      slots_(device.immediate() ? 1 : static_cast<std::size_t>(max_in_flight)),
      record_size_(aligned(record_bytes(static_cast<std::int32_t>(slots_), groups))),
      result_size_(aligned(result_bytes(groups))),
      pinned_records_(device, slots_ * record_size_),
      pinned_results_(device, slots_ * result_size_),
      received_(comm.make_arena(device, slots_ * record_size_)),
      own_(device, slots_ * record_size_),
      result_(device, result_size_) {
  require(max_in_flight >= 1 && max_in_flight <= max_step_rows, "engine: max_in_flight must be from 1 to 64");
  for (std::size_t i = 0; i < slots_; ++i) result_ready_.push_back(device.make_event());
}

StepQueue::~StepQueue() {
  for (const EventRef event : result_ready_) device_.destroy(event);
}

std::int64_t StepQueue::delay() const { return device_.immediate() ? 0 : static_cast<std::int64_t>(slots_); }

StepRecord& StepQueue::record() {
  return *reinterpret_cast<StepRecord*>(pinned_records_.data() + slot_of(attempted_) * record_size_);
}

void StepQueue::send() {
  const std::size_t at = slot_of(attempted_) * record_size_;
  const StepRecord& filled = record();
  const std::size_t bytes = record_bytes(filled.count, filled.groups);
  device_.copy(own_.data() + at, &filled, bytes, stream_);
  if (comm_.rank() == 0) device_.copy(received_->data() + at, &filled, bytes, stream_);
  broadcast_ = comm_.start_broadcast({received_->data() + at, record_size_, DType::u8, device_.memory()}, 0, stream_);
}

void StepQueue::receive() { comm_.wait(broadcast_, stream_); }

void StepQueue::issue() {
  const std::size_t slot = slot_of(attempted_);
  device_.copy(pinned_results_.data() + slot * result_size_, result_.data(), result_size_, stream_);
  device_.record(result_ready_[slot], stream_);
  ++attempted_;
}

std::optional<FinishedStep> StepQueue::collect(bool block) {
  if (in_flight() == 0) return std::nullopt;
  const std::size_t slot = slot_of(collected_);
  if (block)
    device_.synchronize(result_ready_[slot]);
  else if (!device_.done(result_ready_[slot]))
    return std::nullopt;
  const auto& arrived = *reinterpret_cast<const StepResult*>(pinned_results_.data() + slot * result_size_);
  FinishedStep step;
  static_cast<StepResult&>(step) = arrived;
  step.applied_values.assign(arrived.values(), arrived.values() + groups_);
  if (step.halt == Halt::desync && theirs_.empty()) {
    // Now: a later step uses the records' memory again.
    const auto& sent = *reinterpret_cast<const StepRecord*>(pinned_records_.data() + slot * record_size_);
    theirs_ = values_of(record_on_device(*received_, collected_), static_cast<std::size_t>(sent.count));
    ours_ = values_of(record_on_device(own_, collected_), static_cast<std::size_t>(sent.count));
  }
  ++collected_;
  return step;
}

std::vector<StepValues> StepQueue::values_of(const StepRecord* on_device, std::size_t updates) const {
  std::vector<StepValues> values(updates * groups_);
  device_.copy(values.data(), reinterpret_cast<const std::byte*>(on_device) + sizeof(StepRecord),
               values.size() * sizeof(StepValues), stream_);
  device_.synchronize(stream_);
  return values;
}

void StepQueue::restart(std::int64_t attempted) {
  require(in_flight() == 0, "engine: a restart with steps in flight");
  attempted_ = attempted;
  collected_ = attempted;
}

std::size_t StepQueue::bytes() const {
  return pinned_records_.size() + pinned_results_.size() + received_->bytes() + own_.bytes() + result_.bytes();
}

}  // namespace lockstep::engine
