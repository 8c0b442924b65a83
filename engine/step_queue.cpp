#include "engine/step_queue.hpp"

#include "core/error.hpp"

namespace lockstep::engine {
namespace {

/// Records and results ask for the alignment of a cache line.
std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

/// Every row of the record that lies at `memory`.
std::vector<StepValues> values_of(const std::byte* memory) {
  const auto& record = *reinterpret_cast<const StepRecord*>(memory);
  return {record.rows(), record.rows() + record.count * record.groups};
}

}  // namespace

StepQueue::StepQueue(DeviceApi& device, comm::Communicator& comm, StreamRef stream, int groups, int max_in_flight)
    : device_(device),
      comm_(comm),
      stream_(stream),
      groups_(static_cast<std::size_t>(groups)),
      slots_(device.immediate() ? 1 : static_cast<std::size_t>(max_in_flight)),
      record_size_(aligned(record_bytes(static_cast<std::int32_t>(slots_), groups))),
      result_size_(aligned(result_bytes(groups))),
      slot_size_(sizeof(StepInputs) + 2 * record_size_ + result_size_),
      pinned_(device, slots_ * slot_size_),
      block_(comm.make_arena(device, sizeof(StepInputs) + record_size_ + result_size_)) {
  require(max_in_flight >= 1 && max_in_flight <= max_step_rows, "engine: max_in_flight must be from 1 to 64");
  for (std::size_t i = 0; i < slots_; ++i) result_ready_.push_back(device.make_event());
}

StepQueue::~StepQueue() {
  for (const EventRef event : result_ready_) device_.destroy(event);
}

std::size_t StepQueue::bytes_of(bool immediate, int groups, int max_in_flight) {
  const int slots = immediate ? 1 : max_in_flight;
  const std::size_t record = aligned(record_bytes(slots, groups)), result = aligned(result_bytes(groups));
  return static_cast<std::size_t>(slots) * (sizeof(StepInputs) + 2 * record + result) + sizeof(StepInputs) + record +
         result;
}

std::int64_t StepQueue::delay() const { return device_.immediate() ? 0 : static_cast<std::int64_t>(slots_); }

void StepQueue::send() {
  const StepRecord& record = inputs().record();
  device_.copy(block_->data(), &inputs(), sizeof(StepInputs) + record_bytes(record.count, record.groups), stream_);
}

void StepQueue::exchange() {
  const Buffer record = {block_->data() + sizeof(StepInputs), record_size_, DType::u8, device_.memory()};
  broadcast_ = comm_.start_broadcast(record, 0, stream_);
}

void StepQueue::receive() { comm_.wait(broadcast_, stream_); }

void StepQueue::issue() {
  device_.copy(returned(attempted_), block_->data() + sizeof(StepInputs), record_size_ + result_size_, stream_);
  device_.record(result_ready_[static_cast<std::size_t>(attempted_) % slots_], stream_);
  ++attempted_;
}

std::optional<FinishedStep> StepQueue::collect(bool block) {
  if (in_flight() == 0) return std::nullopt;
  const EventRef ready = result_ready_[static_cast<std::size_t>(collected_) % slots_];
  if (block)
    device_.synchronize(ready);
  else if (!device_.done(ready))
    return std::nullopt;
  const auto& arrived = *reinterpret_cast<const StepResult*>(returned(collected_) + record_size_);
  FinishedStep step;
  static_cast<StepResult&>(step) = arrived;
  step.applied_values.assign(arrived.values(), arrived.values() + groups_);
  if (step.halt == Halt::desync && ours_.empty()) {
    // Now: a later step uses the slot again. Rank 0's record is of any shape if the ranks are of different versions.
    ours_ = values_of(slot_of(collected_) + sizeof(StepInputs));
    const auto* theirs = reinterpret_cast<const StepRecord*>(returned(collected_))->rows();
    theirs_.assign(theirs, theirs + ours_.size());
  }
  ++collected_;
  return step;
}

void StepQueue::restart(std::int64_t attempted) {
  require(in_flight() == 0, "engine: a restart with steps in flight");
  attempted_ = attempted;
  collected_ = attempted;
}

}  // namespace lockstep::engine
