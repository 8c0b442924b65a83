#include "kernels/emu/emu_device.hpp"

#include <chrono>
#include <cstring>
#include <deque>
#include <random>
#include <utility>
#include <vector>

#include "core/error.hpp"

namespace lockstep {
namespace {

using OpId = std::int64_t;  ///< numbers work in the order in which it was enqueued
constexpr OpId no_op = -1;
using Clock = std::chrono::steady_clock;

struct Op {
  std::function<void()> work;
  std::vector<OpId> needs;
  bool may_block = false;
  bool done = false;
};

struct Stream {
  OpId last = no_op;
  std::vector<OpId> waits;  ///< events that the next work must wait for
};

struct Event {
  bool timed = false;
  std::shared_ptr<Clock::time_point> time;  ///< of its last recording, once that is done; shared with the work
  std::vector<OpId> ops;
  std::uint64_t capture = 0;  ///< the number of the capture in which it was recorded last; 0: none
};

/// Work that was captured, in its order.
struct Captured {
  std::function<void()> work;
  bool may_block = false;
};
using Graph = std::vector<Captured>;

class Device final : public EmuDevice {
 public:
  explicit Device(std::uint64_t seed) : host_(make_cpu_device()), random_(seed) {}
  ~Device() override { release_memory(); }

  [[nodiscard]] std::string name() const override { return "emu"; }
  [[nodiscard]] Memory memory() const noexcept override { return Memory::device; }
  [[nodiscard]] bool immediate() const noexcept override { return false; }

  [[nodiscard]] void* allocate(std::size_t bytes) override {
    refuse_in_capture("allocation");
    return host_->allocate(bytes);
  }
  void deallocate(void* data, std::size_t bytes) noexcept override { give_back(data, bytes); }
  [[nodiscard]] void* allocate_pinned(std::size_t bytes) override {
    refuse_in_capture("allocation");
    return host_->allocate_pinned(bytes);
  }
  void deallocate_pinned(void* data, std::size_t bytes) noexcept override { give_back(data, bytes); }

  [[nodiscard]] StreamRef make_stream() override { return {new Stream}; }
  void destroy(StreamRef stream) noexcept override { delete static_cast<Stream*>(stream.handle); }
  [[nodiscard]] EventRef make_event() override { return {new Event}; }
  [[nodiscard]] EventRef make_timed_event() override {
    auto event = std::make_unique<Event>();
    event->timed = true;
    return {event.release()};
  }
  void destroy(EventRef event) noexcept override { delete static_cast<Event*>(event.handle); }

  void record(EventRef event, StreamRef stream) override {
    const Stream& from = stream_of(stream);
    Event& to = event_of(event);
    if (&from == capturing_) {
      require(!to.timed, "emulated device: a timed event recorded in a capture");
      to.ops.clear();
      to.capture = capture_number_;
      return;
    }
    if (to.timed) {
      to.time = std::make_shared<Clock::time_point>();
      enqueue(stream, [time = to.time] { *time = Clock::now(); });
    }
    to.capture = 0;
    to.ops = from.waits;
    to.ops.push_back(from.last);
  }
  void wait(StreamRef stream, EventRef event) override {
    Stream& to = stream_of(stream);
    const std::uint64_t mine = &to == capturing_ ? capture_number_ : 0;
    require(event_of(event).capture == mine,
            "emulated device: a wait across the edge of a capture: a captured stream waits only for events recorded on "
            "it in the same capture, and other streams never for those");
    if (mine != 0) return;  // its own work so far
    for (const OpId op : event_of(event).ops)
      if (!finished(op)) to.waits.push_back(op);
  }
  [[nodiscard]] bool done(EventRef event) override {
    refuse_in_capture("question");
    const std::vector<OpId>& targets = event_of(event).ops;
    if (all_finished(targets)) return true;
    run_one(targets);
    return all_finished(targets);
  }
  void synchronize(EventRef event) override {
    refuse_in_capture("synchronisation");
    run_until(event_of(event).ops, "the work before an event");
  }
  void synchronize(StreamRef stream) override {
    refuse_in_capture("synchronisation");
    std::vector<OpId> targets = stream_of(stream).waits;
    targets.push_back(stream_of(stream).last);
    run_until(targets, "the work of a stream");
  }

  [[nodiscard]] double elapsed_ms(EventRef from, EventRef to) override {
    const Event &begin = event_of(from), &end = event_of(to);
    require(begin.time != nullptr && end.time != nullptr && all_finished(begin.ops) && all_finished(end.ops),
            "emulated device: elapsed_ms of events that are not timed, recorded and done");
    return std::chrono::duration<double, std::milli>(*end.time - *begin.time).count();
  }

  void copy(void* to, const void* from, std::size_t bytes, StreamRef stream) override {
    if (bytes > 0) enqueue(stream, [=] { std::memmove(to, from, bytes); });
  }
  void fill_zero(void* data, std::size_t bytes, StreamRef stream) override {
    if (bytes > 0) enqueue(stream, [=] { std::memset(data, 0, bytes); });
  }
  void call_host(void (*task)(void*), void* context, StreamRef stream) override {
    push(
        stream, [=] { task(context); }, true);
  }
  void enqueue(StreamRef stream, std::function<void()> work) override { push(stream, std::move(work), false); }

  [[nodiscard]] bool can_capture() const noexcept override { return true; }
  void begin_capture(StreamRef stream) override {
    refuse_in_capture("second capture");
    capturing_ = &stream_of(stream);
    captured_ = std::make_unique<Graph>();
    ++capture_number_;
  }
  [[nodiscard]] GraphRef end_capture(StreamRef stream) override {
    require(capturing_ != nullptr && &stream_of(stream) == capturing_,
            "emulated device: end_capture on a stream that is not captured");
    capturing_ = nullptr;
    if (captured_->empty()) captured_ = nullptr;
    return {captured_.release()};
  }
  void launch(GraphRef graph, StreamRef stream) override {
    refuse_in_capture("launch");
    for (const Captured& each : *static_cast<const Graph*>(graph.handle)) push(stream, each.work, each.may_block);
  }
  void destroy(GraphRef graph) noexcept override { delete static_cast<Graph*>(graph.handle); }

 private:
  struct Block {
    void* data;
    std::size_t bytes;
  };

  std::unique_ptr<DeviceApi> host_;
  std::mt19937_64 random_;
  Stream null_stream_;
  std::deque<Op> ops_;  ///< of the work numbered first_ and later
  OpId first_ = 0;      ///< everything before it is finished
  OpId last_blocking_ = no_op;
  bool running_ = false;
  std::vector<Block> given_back_;
  Stream* capturing_ = nullptr;
  std::unique_ptr<Graph> captured_;
  std::uint64_t capture_number_ = 0;

  void refuse_in_capture(const char* what) const {
    if (capturing_ != nullptr) fail(ErrorKind::internal, "emulated device: {} during a capture", what);
  }
  Stream& stream_of(StreamRef stream) {
    return stream.handle == nullptr ? null_stream_ : *static_cast<Stream*>(stream.handle);
  }
  static Event& event_of(EventRef event) { return *static_cast<Event*>(event.handle); }
  Op& op(OpId id) { return ops_[static_cast<std::size_t>(id - first_)]; }
  bool finished(OpId id) { return id < first_ || op(id).done; }
  bool all_finished(const std::vector<OpId>& ids) {
    for (const OpId id : ids)
      if (!finished(id)) return false;
    return true;
  }

  void push(StreamRef stream, std::function<void()> work, bool may_block) {
    require(!running_, "emulated device: work in a stream must not call the device");
    Stream& to = stream_of(stream);
    if (&to == capturing_) {
      captured_->push_back({std::move(work), may_block});
      return;
    }
    Op added;
    added.work = std::move(work);
    added.may_block = may_block;
    added.needs = std::exchange(to.waits, {});
    if (!finished(to.last)) added.needs.push_back(to.last);
    // Tasks that may wait for other ranks keep their order, which is the same on every rank: else two could cross.
    if (may_block && !finished(last_blocking_)) added.needs.push_back(last_blocking_);
    to.last = first_ + static_cast<OpId>(ops_.size());
    if (may_block) last_blocking_ = to.last;
    ops_.push_back(std::move(added));
  }

  /// Marks what `targets` depend on, themselves included. Dependencies always have smaller numbers.
  std::vector<bool> needed_for(const std::vector<OpId>& targets) {
    std::vector<bool> needed(ops_.size(), false);
    for (const OpId id : targets)
      if (!finished(id)) needed[static_cast<std::size_t>(id - first_)] = true;
    for (std::size_t i = ops_.size(); i-- > 0;) {
      if (!needed[i]) continue;
      for (const OpId id : ops_[i].needs)
        if (!finished(id)) needed[static_cast<std::size_t>(id - first_)] = true;
    }
    return needed;
  }

  /// Runs one random piece of work whose dependencies are met. Work that may block runs only if a target needs it.
  void run_one(const std::vector<OpId>& targets) {
    require(!running_, "emulated device: work in a stream must not call the device");
    const std::vector<bool> needed = needed_for(targets);
    std::vector<std::size_t> ready;
    for (std::size_t i = 0; i < ops_.size(); ++i)
      if (!ops_[i].done && (!ops_[i].may_block || needed[i]) && all_finished(ops_[i].needs)) ready.push_back(i);
    require(!ready.empty(), "emulated device: nothing can run, yet something is waited for");
    const std::size_t chosen = ready[random_() % ready.size()];
    const std::function<void()> work = std::exchange(ops_[chosen].work, nullptr);
    ops_[chosen].done = true;
    running_ = true;
    try {
      work();
    } catch (...) {
      running_ = false;
      throw;
    }
    running_ = false;
    while (!ops_.empty() && ops_.front().done) {
      ops_.pop_front();
      ++first_;
    }
    if (ops_.empty()) release_memory();
  }

  void run_until(const std::vector<OpId>& targets, const char* what) {
    for (const Clock::time_point begin = Clock::now(); !all_finished(targets); check_wait(begin, what))
      run_one(targets);
  }

  void give_back(void* data, std::size_t bytes) noexcept {
    if (ops_.empty())
      host_->deallocate(data, bytes);
    else
      given_back_.push_back({data, bytes});
  }

  void release_memory() noexcept {
    for (const Block& block : given_back_) host_->deallocate(block.data, block.bytes);
    given_back_.clear();
  }
};

}  // namespace

std::unique_ptr<DeviceApi> make_emulated_device(std::uint64_t seed) { return std::make_unique<Device>(seed); }

namespace kernels {

void run_in_stream_order(const Exec& exec, std::function<void()> work) {
  if (auto* device = dynamic_cast<EmuDevice*>(exec.device); device != nullptr)
    device->enqueue(exec.stream, std::move(work));
  else
    work();
}

}  // namespace kernels
}  // namespace lockstep
