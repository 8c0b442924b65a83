#include "comm/staged.hpp"

#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "core/error.hpp"

namespace lockstep::comm {
namespace {

/// A collective on device memory, from the copy out to the copy back.
struct Transfer {
  enum class State : std::uint8_t { leaving, exchanging, returned };

  std::uint64_t number = 0;
  State state = State::leaving;
  EventRef left = {};                              ///< what this rank brings is in host memory
  EventRef back = {};                              ///< once returned: the result is in the device's memory
  std::vector<std::unique_ptr<FlatArena>> staged;  ///< host memory of its buffers
  bool keeps_memory = true;                        ///< for the next collective of that size
  std::function<Pending()> start;                  ///< the collective on host memory
  Pending pending = {};
  Buffer from = {}, to = {};  ///< what is copied back
};

/// Host memory of the host's communicator, whose ranks may see more of each other than ours.
class HostArena final : public FlatArena {
 public:
  HostArena(std::unique_ptr<FlatArena> memory, int rank) : memory_(std::move(memory)), rank_(rank) {}
  [[nodiscard]] std::byte* data() const noexcept override { return memory_->data(); }
  [[nodiscard]] std::size_t bytes() const noexcept override { return memory_->bytes(); }
  [[nodiscard]] std::byte* peer(int rank) const noexcept override { return rank == rank_ ? memory_->data() : nullptr; }

 private:
  std::unique_ptr<FlatArena> memory_;
  int rank_;
};

class Staged final : public Communicator {
 public:
  Staged(Communicator& host, DeviceApi& device)
      // `host` cuts long buffers itself.
      : Communicator(std::numeric_limits<std::size_t>::max() / 2),
        host_(host),
        device_(device),
        host_memory_(make_cpu_device()) {
    require(device.memory() == Memory::device, "staged: the device's memory is the host's");
    stream_ = device_.make_stream();
  }

  ~Staged() override {
    try {
      device_.synchronize(stream_);  // copies refer to memory that goes now
    } catch (...) {                  // the device failed; it has been said where it happened
    }
    for (const Transfer& transfer : transfers_) forget(transfer);
    for (const EventRef event : spare_events_) device_.destroy(event);
    device_.destroy(stream_);
  }

  [[nodiscard]] int rank() const noexcept override { return host_.rank(); }
  [[nodiscard]] int size() const noexcept override { return host_.size(); }
  [[nodiscard]] std::string name() const override { return host_.name() + " through host memory"; }
  [[nodiscard]] Capabilities capabilities() const noexcept override {
    return {.host_memory = true,
            .device_memory = true,
            .shared_address_space = false,
            .ordered_sum = host_.capabilities().ordered_sum,
            .graph_capturable = false,
            .wire = host_.capabilities().wire,
            .needs_progress = true};
  }

  void progress() override {
    host_.progress();
    advance();
  }

  void check() override { host_.check(); }

  void do_barrier() override {
    start_all();
    host_.barrier();
  }

  void abort(std::string_view why, int exit_code) noexcept override { host_.abort(why, exit_code); }

  [[nodiscard]] std::unique_ptr<FlatArena> make_arena(DeviceApi& device, std::size_t bytes) override {
    if (device.memory() == Memory::device) return Communicator::make_arena(device, bytes);
    start_all();
    return std::make_unique<HostArena>(host_.make_arena(device, bytes), rank());
  }

 private:
  static std::vector<std::size_t> offsets_of(const Parts& parts) {
    std::vector<std::size_t> offsets;
    for (const Part& part : parts) offsets.push_back(part.begin);
    offsets.push_back(parts.back().end);
    return offsets;
  }
  [[nodiscard]] Part own(const Parts& parts) const { return parts[static_cast<std::size_t>(rank())]; }

  Pending do_all_reduce(Buffer data, Reduce op, StreamRef after) override {
    const auto on = [this, op](Buffer buffer) { return host_.start_all_reduce(buffer, op); };
    if (data.memory == Memory::host) return on_host([&] { return on(data); });
    return on_device(data, {0, data.count}, {0, data.count}, after, on);
  }
  Pending do_reduce_scatter(Buffer data, const Parts& parts, Reduce op, StreamRef after) override {
    const auto on = [this, op, offsets = offsets_of(parts)](Buffer buffer) {
      return host_.start_reduce_scatter(buffer, offsets, op);
    };
    if (data.memory == Memory::host) return on_host([&] { return on(data); });
    return on_device(data, {0, data.count}, own(parts), after, on);
  }
  Pending do_all_gather(Buffer data, const Parts& parts, StreamRef after) override {
    const auto on = [this, offsets = offsets_of(parts)](Buffer buffer) {
      return host_.start_all_gather(buffer, offsets);
    };
    if (data.memory == Memory::host) return on_host([&] { return on(data); });
    return on_device(data, own(parts), {parts.front().begin, parts.back().end}, after, on);
  }
  Pending do_broadcast(Buffer data, int root, StreamRef after) override {
    const auto on = [this, root](Buffer buffer) { return host_.start_broadcast(buffer, root); };
    if (data.memory == Memory::host) return on_host([&] { return on(data); });
    const Part all = {0, data.count}, none = {};
    return on_device(data, rank() == root ? all : none, rank() == root ? none : all, after, on);
  }
  Pending do_all_to_all(Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                        std::span<const std::size_t> receive_offsets, StreamRef after) override {
    const std::vector<std::size_t> sent(send_offsets.begin(), send_offsets.end()),
        received(receive_offsets.begin(), receive_offsets.end());
    const auto on = [this, sent, received](Buffer from, Buffer to) {
      return host_.start_all_to_all(from, sent, to, received);
    };
    if (send.memory == Memory::host) return on_host([&] { return on(send, receive); });
    Transfer& transfer = begin(after);
    transfer.keeps_memory = false;  // ranks differ in what they send
    const Buffer from = copy_out(transfer, send, {0, send.count}), to = room_for(transfer, receive);
    transfer.start = [on, from, to] { return on(from, to); };
    transfer.from = to;
    transfer.to = receive;
    return leave(transfer);
  }

  template <class Start>
  Pending on_host(const Start& start) {
    start_all();
    const Pending pending = start();
    const std::uint64_t number = ++last_number_;
    host_pending_.emplace(number, pending);
    return {number};
  }

  /// `out` of the buffer is needed by the collective, `back` is what it changes here.
  template <class Start>
  Pending on_device(const Buffer& data, const Part& out, const Part& back, StreamRef after, const Start& start) {
    Transfer& transfer = begin(after);
    const Buffer staged = copy_out(transfer, data, out);
    transfer.start = [start, staged] { return start(staged); };
    transfer.from = staged.part(back.begin, back.size());
    transfer.to = data.part(back.begin, back.size());
    return leave(transfer);
  }

  Transfer& begin(StreamRef after) {
    const EventRef left = take_event();
    if (after.handle != nullptr) {
      device_.record(left, after);
      device_.wait(stream_, left);
    }
    Transfer& transfer = transfers_.emplace_back();
    transfer.number = ++last_number_;
    transfer.left = left;
    return transfer;
  }
  Pending leave(Transfer& transfer) {
    device_.record(transfer.left, stream_);
    return {transfer.number};
  }
  Buffer room_for(Transfer& transfer, const Buffer& data) {
    transfer.staged.push_back(take_memory(data.bytes(), transfer));
    return {transfer.staged.back()->data(), data.count, data.dtype, Memory::host};
  }
  Buffer copy_out(Transfer& transfer, const Buffer& data, const Part& part) {
    const Buffer staged = room_for(transfer, data);
    const Buffer from = data.part(part.begin, part.size());
    device_.copy(staged.part(part.begin, part.size()).data, from.data, from.bytes(), stream_);
    return staged;
  }

  /// Does for every collective what can be done now. They start in order, whichever is waited for.
  void advance() {
    for (Transfer& transfer : transfers_) {
      if (transfer.state == Transfer::State::leaving) {
        if (!device_.done(transfer.left)) return;
        start(transfer);
      }
      if (transfer.state == Transfer::State::exchanging && host_.test(transfer.pending)) bring_back(transfer);
    }
  }
  void start_all() {
    for (Transfer& transfer : transfers_) start_now(transfer);
  }
  void start_before(const Transfer& end) {
    for (Transfer& transfer : transfers_) {
      if (&transfer == &end) return;
      start_now(transfer);
    }
  }
  void start_now(Transfer& transfer) {
    if (transfer.state != Transfer::State::leaving) return;
    device_.synchronize(transfer.left);
    start(transfer);
  }
  static void start(Transfer& transfer) {
    transfer.pending = transfer.start();
    transfer.state = Transfer::State::exchanging;
  }
  void bring_back(Transfer& transfer) {
    host_.wait(transfer.pending);
    device_.copy(transfer.to.data, transfer.from.data, transfer.to.bytes(), stream_);
    transfer.back = take_event();
    device_.record(transfer.back, stream_);
    transfer.state = Transfer::State::returned;
  }

  [[nodiscard]] Transfer* find(std::uint64_t number) {
    for (Transfer& transfer : transfers_)
      if (transfer.number == number) return &transfer;
    return nullptr;
  }

  void do_wait(Pending pending, StreamRef stream) override {
    if (const auto found = host_pending_.find(pending.id); found != host_pending_.end()) {
      host_.wait(found->second);
      host_pending_.erase(found);
      return;
    }
    Transfer* const transfer = find(pending.id);
    if (transfer == nullptr) return;
    start_before(*transfer);
    start_now(*transfer);
    if (transfer->state == Transfer::State::exchanging) bring_back(*transfer);
    if (stream.handle != nullptr)
      device_.wait(stream, transfer->back);
    else
      device_.synchronize(transfer->back);
    forget(*transfer);
    if (!transfer->keeps_memory) device_.synchronize(transfer->back);
    // Else the copies of whoever gets the memory next come behind this one's on the same stream.
    for (auto& memory : transfer->staged)
      if (const std::size_t bytes = memory->bytes(); transfer->keeps_memory)
        spare_memory_.emplace(bytes, std::move(memory));
    std::erase_if(transfers_, [&](const Transfer& each) { return each.number == pending.id; });
  }

  bool do_test(Pending pending) override {
    progress();
    if (const auto found = host_pending_.find(pending.id); found != host_pending_.end())
      return host_.test(found->second);
    const Transfer* const transfer = find(pending.id);
    return transfer == nullptr || (transfer->state == Transfer::State::returned && device_.done(transfer->back));
  }

  EventRef take_event() {
    if (spare_events_.empty()) return device_.make_event();
    const EventRef event = spare_events_.back();
    spare_events_.pop_back();
    return event;
  }
  void forget(const Transfer& transfer) {
    spare_events_.push_back(transfer.left);
    if (transfer.back != EventRef{}) spare_events_.push_back(transfer.back);
  }
  /// Of `host`'s making: what other ranks still read must outlive a rank that unwinds. Making it is a collective, and
  /// all ranks come to it alike: they ask for the same sizes in the same order.
  std::unique_ptr<FlatArena> take_memory(std::size_t bytes, const Transfer& transfer) {
    const auto found = transfer.keeps_memory ? spare_memory_.find(bytes) : spare_memory_.end();
    if (found == spare_memory_.end()) {
      start_before(transfer);
      return host_.make_arena(*host_memory_, bytes);
    }
    std::unique_ptr<FlatArena> memory = std::move(found->second);
    spare_memory_.erase(found);
    return memory;
  }

  Communicator& host_;
  DeviceApi& device_;
  std::unique_ptr<DeviceApi> host_memory_;
  StreamRef stream_;
  std::uint64_t last_number_ = 0;
  std::deque<Transfer> transfers_;                 // oldest first, until waited for
  std::map<std::uint64_t, Pending> host_pending_;  // collectives on host memory
  std::vector<EventRef> spare_events_;
  std::multimap<std::size_t, std::unique_ptr<FlatArena>> spare_memory_;  // by bytes
};

}  // namespace

std::unique_ptr<Communicator> make_staged(Communicator& host, DeviceApi& device) {
  return std::make_unique<Staged>(host, device);
}

}  // namespace lockstep::comm
