#include "comm/local.hpp"

#include <atomic>
#include <exception>
#include <list>
#include <utility>

#include "comm/local_group.hpp"

namespace lockstep::comm {
namespace {

/// A rank's own arena with its peers' addresses. Host memory of all ranks belongs to the operation they met in.
class PeerArena final : public FlatArena {
 public:
  PeerArena(std::shared_ptr<Operation> operation, int rank, std::unique_ptr<Arena> own_device_memory)
      : operation_(std::move(operation)), rank_(rank), own_device_memory_(std::move(own_device_memory)) {}
  [[nodiscard]] std::byte* data() const noexcept override { return at(rank_); }
  [[nodiscard]] std::size_t bytes() const noexcept override { return operation_->posting(rank_).data.bytes(); }
  [[nodiscard]] std::byte* peer(int rank) const noexcept override { return at(rank); }

 private:
  [[nodiscard]] std::byte* at(int rank) const { return static_cast<std::byte*>(operation_->posting(rank).data.data); }

  std::shared_ptr<Operation> operation_;
  int rank_;
  std::unique_ptr<Arena> own_device_memory_;
};

/// Host memory that lives by itself: device and arena together, since an arena needs its device to be freed.
struct HostBlock {
  explicit HostBlock(std::size_t bytes) : device(make_cpu_device()), memory(*device, bytes) {}
  std::unique_ptr<DeviceApi> device;
  Arena memory;
};

/// A collective on device memory: a host call on the communicator's stream.
struct DeviceCall {
  LocalGroup* group;
  int rank;
  Seconds timeout;
  std::uint64_t number;
  Posting posting{};
  EventRef finished{};
  bool waited = false;
  std::exception_ptr error{};  // written before ran
  std::atomic<bool> ran{false};

  static void run(void* context) {
    auto& call = *static_cast<DeviceCall*>(context);
    // An exception must not cross the device's queue; the rank's next call into the communicator throws it.
    try {
      const auto operation = call.group->post(call.rank, call.number, call.posting);
      call.group->wait(*operation, call.timeout);
    } catch (...) {
      call.error = std::current_exception();
    }
    call.ran.store(true, std::memory_order_release);
  }
};

class LocalCommunicator final : public Communicator {
 public:
  LocalCommunicator(std::shared_ptr<LocalGroup> group, int rank, const LocalOptions& options)
      : Communicator(options.max_piece), group_(std::move(group)), rank_(rank), options_(options) {
    require(rank >= 0 && rank < group_->size(), "make_local: rank is not one of the group's");
    if (options_.device != nullptr && options_.device->memory() == Memory::device) {
      device_ = options_.device;
      if (device_->name().starts_with("cuda"))
        fail(ErrorKind::environment,
             "the local backend reduces on the host and cannot read the memory of {}; use "
             "comm.backend: nccl, or run.device: cpu",
             device_->name());
      stream_ = device_->make_stream();
    }
  }

  ~LocalCommunicator() override {
    group_->leave(rank_);
    if (device_ == nullptr) return;
    try {
      device_->synchronize(stream_);
      reclaim();
    } catch (...) {  // the device failed; it has been said where it happened
    }
    for (const DeviceCall& call : calls_) device_->destroy(call.finished);
    for (const EventRef event : spare_events_) device_->destroy(event);
    device_->destroy(stream_);
  }

  [[nodiscard]] int rank() const noexcept override { return rank_; }
  [[nodiscard]] int size() const noexcept override { return group_->size(); }
  [[nodiscard]] std::string name() const override { return "local"; }
  [[nodiscard]] Capabilities capabilities() const noexcept override {
    return {.host_memory = true,
            .device_memory = device_ != nullptr,
            .shared_address_space = true,
            .ordered_sum = true,
            .graph_capturable = false,
            .needs_progress = true};
  }

  void progress() override {
    for (auto& [number, operation] : active_) group_->work(*operation);
    reclaim();
  }

  void check() override { group_->throw_if_aborted(); }

  void do_barrier() override {
    const Pending pending = start({.kind = Collective::barrier}, {});
    do_wait(pending, {});
  }

  void abort(std::string_view why, int exit_code) noexcept override { group_->abort(rank_, why, exit_code); }

  [[nodiscard]] std::unique_ptr<FlatArena> make_arena(DeviceApi& device, std::size_t bytes) override {
    Posting posting{.kind = Collective::arena};
    std::unique_ptr<Arena> own;
    std::byte* memory = nullptr;
    if (device.memory() == Memory::host) {
      const auto block = std::make_shared<HostBlock>(bytes);
      memory = block->memory.data();
      posting.keep_alive = block;
    } else {
      own = std::make_unique<Arena>(device, bytes);
      memory = own->data();
    }
    posting.data = {memory, bytes, DType::u8, Memory::host};
    const Pending pending = start(std::move(posting), {});
    const std::shared_ptr<Operation> operation = active_.at(pending.id);
    do_wait(pending, {});
    return std::make_unique<PeerArena>(operation, rank_, std::move(own));
  }

 private:
  static Parts parts_of(std::span<const std::size_t> offsets) {
    Parts parts;
    for (std::size_t r = 0; r + 1 < offsets.size(); ++r) parts.push_back({offsets[r], offsets[r + 1]});
    return parts;
  }

  Pending do_all_reduce(Buffer data, Reduce op, StreamRef after) override {
    return start({.kind = Collective::all_reduce, .data = data, .op = op}, after);
  }
  Pending do_reduce_scatter(Buffer data, const Parts& parts, Reduce op, StreamRef after) override {
    return start({.kind = Collective::reduce_scatter, .data = data, .op = op, .parts = parts}, after);
  }
  Pending do_all_gather(Buffer data, const Parts& parts, StreamRef after) override {
    return start({.kind = Collective::all_gather, .data = data, .parts = parts}, after);
  }
  Pending do_broadcast(Buffer data, int root, StreamRef after) override {
    return start({.kind = Collective::broadcast, .data = data, .root = root}, after);
  }
  Pending do_all_to_all(Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                        std::span<const std::size_t> receive_offsets, StreamRef after) override {
    return start({.kind = Collective::all_to_all,
                  .data = send,
                  .receive = receive,
                  .parts = parts_of(send_offsets),
                  .receive_parts = parts_of(receive_offsets)},
                 after);
  }

  Pending start(Posting posting, StreamRef after) {
    reclaim();
    const std::uint64_t number = ++last_number_;
    if (posting.data.memory == Memory::device) {
      start_on_device(number, std::move(posting), after);
    } else {
      const auto operation = group_->post(rank_, number, std::move(posting));
      active_.emplace(number, operation);
      group_->work(*operation);
    }
    return {number};
  }

  void start_on_device(std::uint64_t number, Posting posting, StreamRef after) {
    require(device_ != nullptr, "local: device memory given, but LocalOptions::device is not set to its device");
    if (after.handle != nullptr) {
      const EventRef produced = take_event();
      device_->record(produced, after);
      device_->wait(stream_, produced);
      spare_events_.push_back(produced);
    }
    DeviceCall& call =
        calls_.emplace_back(group_.get(), rank_, options_.timeout, number, std::move(posting), take_event());
    device_->call_host(&DeviceCall::run, &call, stream_);
    device_->record(call.finished, stream_);
  }

  EventRef take_event() {
    if (spare_events_.empty()) return device_->make_event();
    const EventRef event = spare_events_.back();
    spare_events_.pop_back();
    return event;
  }

  DeviceCall* device_call(std::uint64_t number) {
    for (DeviceCall& call : calls_)
      if (call.number == number) return &call;
    return nullptr;
  }

  /// Throws what a host call threw, and forgets those that are over.
  void reclaim() {
    while (!calls_.empty() && calls_.front().ran.load(std::memory_order_acquire)) {
      DeviceCall& call = calls_.front();
      if (call.error) std::rethrow_exception(std::exchange(call.error, nullptr));
      if (!call.waited || !device_->done(call.finished)) return;
      spare_events_.push_back(call.finished);
      calls_.pop_front();
    }
  }

  void do_wait(Pending pending, StreamRef stream) override {
    if (DeviceCall* call = device_call(pending.id)) {
      if (stream.handle != nullptr)
        device_->wait(stream, call->finished);
      else
        device_->synchronize(call->finished);
      call->waited = true;
      return reclaim();
    }
    // A device that puts work off could hold back a peer that needs it to reach this collective.
    for (const DeviceCall& call : calls_)
      if (call.number < pending.id && !call.ran.load(std::memory_order_acquire)) device_->synchronize(call.finished);
    reclaim();
    const auto found = active_.find(pending.id);
    if (found == active_.end()) return;
    group_->wait(*found->second, options_.timeout);
    active_.erase(found);
  }

  bool do_test(Pending pending) override {
    progress();
    if (const DeviceCall* call = device_call(pending.id)) return device_->done(call->finished);
    const auto found = active_.find(pending.id);
    if (found == active_.end()) return true;
    if (!found->second->ready()) group_->throw_if_aborted();
    return found->second->complete();
  }

  std::shared_ptr<LocalGroup> group_;
  int rank_;
  LocalOptions options_;
  DeviceApi* device_ = nullptr;
  StreamRef stream_;
  std::uint64_t last_number_ = 0;
  std::map<std::uint64_t, std::shared_ptr<Operation>> active_;  // on host memory, until waited for
  std::list<DeviceCall> calls_;                                 // on device memory; addresses are in the device's queue
  std::vector<EventRef> spare_events_;
};

}  // namespace

std::shared_ptr<LocalGroup> make_local_group(int ranks) { return std::make_shared<LocalGroup>(ranks); }

void abort_group(LocalGroup& group, int rank, std::string_view why, int exit_code) noexcept {
  group.abort(rank, why, exit_code);
}

std::unique_ptr<Communicator> make_local(std::shared_ptr<LocalGroup> group, int rank, LocalOptions options) {
  return std::make_unique<LocalCommunicator>(std::move(group), rank, options);
}

}  // namespace lockstep::comm
