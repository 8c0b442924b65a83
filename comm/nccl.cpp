#include "comm/nccl.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <fstream>
#include <thread>
#include <type_traits>
#include <utility>

#include "comm/nccl_calls.hpp"
#include "comm/nccl_settings.hpp"
#include "comm/nccl_watchdog.hpp"
#include "comm/reduce.hpp"
#include "core/error.hpp"
#include "core/host.hpp"

namespace lockstep::comm {
namespace {

// Collectives that can be watched at a time: more than are under way in any step. Those beyond are watched once these
// have ended, since all end in order.
constexpr std::size_t max_watched = 256;

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

/// What each rank tells the others before there is NCCL.
struct Introduction {
  std::array<char, 96> host{};
  std::array<char, 48> boot{};
  std::array<char, 48> device{};
  int version = 0;
};

template <std::size_t n>
void put(std::array<char, n>& field, std::string_view text) {
  std::memcpy(field.data(), text.data(), std::min(text.size(), n - 1));
}

std::string size_text(const Buffer& buffer) {
  return fmt::format("{} x {}", buffer.count, lockstep::to_string(buffer.dtype));
}

Parts parts_of(std::span<const std::size_t> offsets) {
  Parts parts;
  for (std::size_t r = 0; r + 1 < offsets.size(); ++r) parts.push_back({offsets[r], offsets[r + 1]});
  return parts;
}

/// Memory that NCCL can register.
class NcclArena final : public FlatArena {
 public:
  NcclArena(const NcclApi& api, void* data, std::size_t bytes, int rank)
      : api_(api), data_(static_cast<std::byte*>(data)), bytes_(bytes), rank_(rank) {}
  ~NcclArena() override { (void)api_.deallocate(data_); }
  [[nodiscard]] std::byte* data() const noexcept override { return data_; }
  [[nodiscard]] std::size_t bytes() const noexcept override { return bytes_; }
  [[nodiscard]] std::byte* peer(int rank) const noexcept override { return rank == rank_ ? data_ : nullptr; }

 private:
  const NcclApi& api_;
  std::byte* data_;
  std::size_t bytes_;
  int rank_;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<Communicator> host, DeviceApi& device, const NcclApi& api,
                   const NcclOptions& options, std::string name)
      : Communicator(options.max_piece),
        host_(std::move(host)),
        device_(device),
        api_(api),
        name_(std::move(name)),
        ordered_(options.ordered_sum),
        grace_(options.grace),
        exceptions_at_birth_(std::uncaught_exceptions()),
        words_(std::make_unique<Pinned<std::uint32_t>>(device, 2 * max_watched)),
        watchdog_(api, {.timeout = options.timeout,
                        .grace = options.grace,
                        .name = fmt::format("nccl {}", nccl_version_text(api.version)),
                        .rank = host_->rank()}),
        calls_(api, watchdog_, device, host_->rank(), host_->size(), options) {
    std::uint32_t* word = words_->data();
    for (std::size_t i = 0; i < max_watched; ++i, word += 2) spare_marks_.push_back({word, word + 1});
    stream_ = device_.make_urgent_stream();
    produced_ = device_.make_event();
  }

  ~NcclCommunicator() override {
    bool stopped = false;
    if (std::uncaught_exceptions() == exceptions_at_birth_ && is_through() && calls_.finalize(grace_))
      stopped = watchdog_.let_go(api_.destroy);
    if (!stopped) stopped = watchdog_.let_go(nullptr);
    if (!stopped) {  // what NCCL has not let go of stays: giving it back could wait for ever
      calls_.leak_staging();
      (void)words_.release();
    }
    for (const auto& [number, event] : on_device_) device_.destroy(event);
    for (const EventRef event : spare_events_) device_.destroy(event);
    device_.destroy(produced_);
    device_.destroy(stream_);
  }

  /// Ranks find one another; then everything is used once, so that connections and memory are there.
  void start_up() {
    struct Told {
      NcclResult result = NcclResult::success;
      NcclUniqueId id;
    } told;
    if (rank() == 0) told.result = api_.get_unique_id(&told.id);
    host_->broadcast_value(told, 0);
    if (told.result != NcclResult::success) {
      const Failure failure = watchdog_.failure_of_result(told.result, "start-up");
      throw Error(failure.kind, failure.text);
    }
    calls_.init(told.id);
    try_out();
  }

  [[nodiscard]] int rank() const noexcept override { return host_->rank(); }
  [[nodiscard]] int size() const noexcept override { return host_->size(); }
  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] Capabilities capabilities() const noexcept override {
    return {.host_memory = true,
            .device_memory = true,
            .shared_address_space = false,
            .ordered_sum = ordered_,
            .graph_capturable = api_.graph_capturable && device_.can_capture(),
            .needs_progress = false};
  }

  void progress() override {
    reclaim();
    check();
    with_host([this] { host_->progress(); });
  }
  void check() override {
    watchdog_.check();
    with_host([this] { host_->check(); });
  }
  void do_barrier() override {
    check();
    with_host([this] { host_->barrier(); });
  }
  void abort(std::string_view why, int exit_code) noexcept override { host_->abort(why, exit_code); }

  [[nodiscard]] std::unique_ptr<FlatArena> make_arena(DeviceApi& device, std::size_t bytes) override {
    void* data = nullptr;
    if (&device != &device_ || bytes == 0 || api_.allocate(&data, bytes) != NcclResult::success || data == nullptr)
      return Communicator::make_arena(device, bytes);  // says so if there is no memory
    auto arena = std::make_unique<NcclArena>(api_, data, bytes, rank());
    device_.fill_zero(data, bytes, stream_);
    wait_for_device(end_of_stream());
    return arena;
  }

 private:
  Pending do_all_reduce(Buffer data, Reduce op, StreamRef after) override {
    if (data.memory == Memory::host) return on_host({host_->start_all_reduce(data, op)});
    return on_device(fmt::format("all_reduce ({}) of {}", to_string(op), size_text(data)), after,
                     [&](const std::string& what) { calls_.all_reduce(data, op, stream_, what); });
  }
  Pending do_reduce_scatter(Buffer data, const Parts& parts, Reduce op, StreamRef after) override {
    if (data.memory == Memory::host) {
      // Parts of a piece do not follow one another; each goes by itself, and all ranks get the sum that one needs.
      std::vector<Pending> each;
      for (const Part& part : parts) each.push_back(host_->start_all_reduce(data.part(part.begin, part.size()), op));
      return on_host(std::move(each));
    }
    return on_device(fmt::format("reduce_scatter ({}) of {}", to_string(op), size_text(data)), after,
                     [&](const std::string& what) { calls_.reduce_scatter(data, parts, op, stream_, what); });
  }
  Pending do_all_gather(Buffer data, const Parts& parts, StreamRef after) override {
    if (data.memory == Memory::host) {
      std::vector<Pending> each;
      for (std::size_t r = 0; r < parts.size(); ++r)
        each.push_back(host_->start_broadcast(data.part(parts[r].begin, parts[r].size()), static_cast<int>(r)));
      return on_host(std::move(each));
    }
    return on_device(fmt::format("all_gather of {}", size_text(data)), after,
                     [&](const std::string& what) { calls_.all_gather(data, parts, stream_, what); });
  }
  Pending do_broadcast(Buffer data, int root, StreamRef after) override {
    if (data.memory == Memory::host) return on_host({host_->start_broadcast(data, root)});
    return on_device(fmt::format("broadcast from rank {} of {}", root, size_text(data)), after,
                     [&](const std::string& what) { calls_.broadcast(data, root, stream_, what); });
  }
  Pending do_all_to_all(Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                        std::span<const std::size_t> receive_offsets, StreamRef after) override {
    if (send.memory == Memory::host)
      return on_host({host_->start_all_to_all(send, send_offsets, receive, receive_offsets)});
    return on_device(fmt::format("all_to_all of {}", size_text(send)), after, [&](const std::string& what) {
      const Parts sends = parts_of(send_offsets), receives = parts_of(receive_offsets);
      const auto self = static_cast<std::size_t>(rank());
      const Buffer kept = send.part(sends[self].begin, sends[self].size());
      calls_.exchange(send, sends, receive, receives, stream_, what);
      if (kept.count > 0)
        device_.copy(receive.part(receives[self].begin, kept.count).data, kept.data, kept.bytes(), stream_);
    });
  }

  /// Without a rank that is gone NCCL does not end either, and who unwinds frees what it uses.
  template <class Function>
  std::invoke_result_t<Function> with_host(const Function& function) {
    try {
      return function();
    } catch (...) {
      watchdog_.stop_for(failure_of(std::current_exception()));
      throw;
    }
  }

  Pending on_host(std::vector<Pending> pending) {
    const std::uint64_t number = ++last_number_;
    on_host_.emplace(number, std::move(pending));
    return {number};
  }

  /// start(what) puts the work into stream_.
  template <class Start>
  Pending on_device(std::string what, StreamRef after, const Start& start) {
    // While a stream is captured nothing may be asked of the device, and what the device writes is of a later time.
    const bool captured = after.handle != nullptr && api_.capturing(after);
    if (!captured) reclaim();
    watchdog_.check();
    const std::uint64_t number = ++last_number_;
    what.append(fmt::format(", collective number {}", number));
    if (after.handle != nullptr) {
      device_.record(produced_, after);
      device_.wait(stream_, produced_);
    }
    const bool watched = !captured && !spare_marks_.empty();
    NcclWatchdog::Marks marks;
    if (watched) {
      marks = spare_marks_.back();
      spare_marks_.pop_back();
      *marks.ready = *marks.finished = 1;
      watchdog_.began(what, marks);
      device_.fill_zero(marks.ready, sizeof(*marks.ready), stream_);
    }
    start(what);
    if (watched) device_.fill_zero(marks.finished, sizeof(*marks.finished), stream_);
    const EventRef finished = take_event();
    device_.record(finished, stream_);
    on_device_.emplace(number, finished);
    return {number};
  }

  void do_wait(Pending pending, StreamRef stream) override {
    if (const auto found = on_host_.find(pending.id); found != on_host_.end()) {
      with_host([&] {
        for (const Pending each : found->second) host_->wait(each);
      });
      on_host_.erase(found);
      return;
    }
    const auto found = on_device_.find(pending.id);
    if (found == on_device_.end()) return;
    if (stream.handle != nullptr)
      device_.wait(stream, found->second);
    else
      wait_for_device(found->second);
    spare_events_.push_back(found->second);
    on_device_.erase(found);
    watchdog_.throw_if_failed();
  }

  bool do_test(Pending pending) override {
    if (const auto found = on_host_.find(pending.id); found != on_host_.end())
      return with_host(
          [&] { return std::ranges::all_of(found->second, [&](Pending each) { return host_->test(each); }); });
    watchdog_.check();
    const auto found = on_device_.find(pending.id);
    return found == on_device_.end() || device_.done(found->second);
  }

  EventRef take_event() {
    if (spare_events_.empty()) return device_.make_event();
    const EventRef event = spare_events_.back();
    spare_events_.pop_back();
    return event;
  }

  void reclaim() {
    for (const NcclWatchdog::Marks& marks : watchdog_.take_finished()) spare_marks_.push_back(marks);
  }

  /// An event behind all that stream_ has to do.
  EventRef end_of_stream() {
    device_.record(produced_, stream_);
    return produced_;
  }
  void wait_for_device(EventRef event) {
    while (!device_.done(event)) {
      check();
      std::this_thread::yield();
    }
  }
  /// Whether all that was started ends soon: it does unless another rank has left its part out.
  [[nodiscard]] bool is_through() noexcept {
    try {
      Deadline deadline(grace_);
      for (const EventRef end = end_of_stream(); !device_.done(end);) {
        if (deadline.passed()) return false;
        check();
        std::this_thread::yield();
      }
      return true;
    } catch (...) {  // has been said, or is nobody's concern any more
      return false;
    }
  }

  void try_out() {
    const auto n = static_cast<std::size_t>(size());
    const Arena memory(device_, 2 * n * sizeof(float));
    const Pinned<float> values(device_, 2 * n);
    const Buffer data{memory.data(), 2 * n, DType::f32, Memory::device};
    for (std::size_t i = 0; i < n; ++i) values[i] = 1;
    device_.copy(data.data, values.data(), data.bytes(), stream_);
    Parts sends(n), receives(n);
    for (std::size_t r = 0; r < n; ++r) {
      if (r == static_cast<std::size_t>(rank())) continue;
      sends[r] = {r, r + 1};
      receives[r] = {n + r, n + r + 1};
    }
    do_wait(on_device("start-up (the first exchange)", {},
                      [&](const std::string& what) {
                        calls_.exchange(data, sends, data, receives, stream_, what);
                        calls_.all_reduce(data.part(0, 1), Reduce::max, stream_, what);
                        calls_.broadcast(data.part(0, 1), 0, stream_, what);
                        device_.copy(values.data(), data.data, data.bytes(), stream_);
                      }),
            {});
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(values[n + i]);
    if (sum != static_cast<double>(n - 1) || values[0] != 1)
      fail(
          ErrorKind::environment,
          "{}: the first exchange brought wrong numbers: NCCL does not work here (NCCL_DEBUG=INFO shows what it uses); "
          "use comm.backend: mpi",
          name_);
  }

  std::unique_ptr<Communicator> host_;
  DeviceApi& device_;
  const NcclApi& api_;
  std::string name_;
  bool ordered_;
  Seconds grace_;
  int exceptions_at_birth_;
  std::unique_ptr<Pinned<std::uint32_t>> words_;
  NcclWatchdog watchdog_;
  NcclCalls calls_;
  StreamRef stream_;
  EventRef produced_;
  std::uint64_t last_number_ = 0;
  std::map<std::uint64_t, std::vector<Pending>> on_host_;
  std::map<std::uint64_t, EventRef> on_device_;
  std::vector<EventRef> spare_events_;
  std::vector<NcclWatchdog::Marks> spare_marks_;
};

std::vector<NcclPlace> introduce(Communicator& host, const NcclApi& api) {
  std::vector<Introduction> all(static_cast<std::size_t>(host.size()));
  Introduction& mine = all[static_cast<std::size_t>(host.rank())];
  put(mine.host, host_name());
  put(mine.boot, boot_id());
  mine.version = api.version;
  const NcclResult placed = api.device_place(mine.device.data(), static_cast<int>(mine.device.size()));
  if (placed != NcclResult::success) put(mine.device, "an unknown GPU of rank " + std::to_string(host.rank()));
  host.all_gather_values(std::span(all));
  std::vector<NcclPlace> places;
  for (std::size_t r = 0; r < all.size(); ++r) {
    if (all[r].version != all[0].version)
      fail(ErrorKind::environment,
           "comm.backend: nccl: rank 0 ({}) has NCCL {}, rank {} ({}) has {}: install one version everywhere",
           all[0].host.data(), nccl_version_text(all[0].version), r, all[r].host.data(),
           nccl_version_text(all[r].version));
    places.push_back({all[r].host.data(), all[r].boot.data(), all[r].device.data()});
  }
  return places;
}

/// Sets what NCCL is to start in and tells what holds: "NCCL_ALGO=Ring NCCL_PROTO=Simple".
std::string prepare_environment(const NcclApi& api, const std::vector<NcclVariable>& variables) {
  std::string shown;
  for (const NcclVariable& variable : variables) {
    const char* given = api.get_environment(variable.name.c_str());
    if (given == nullptr || variable.always) api.set_environment(variable.name.c_str(), variable.value.c_str());
    const char* now = api.get_environment(variable.name.c_str());
    shown.append(fmt::format("{}{}={}", shown.empty() ? "" : " ", variable.name, now != nullptr ? now : ""));
  }
  return shown;
}

}  // namespace

std::unique_ptr<Communicator> make_nccl(std::unique_ptr<Communicator> host, DeviceApi& device, const NcclApi& api,
                                        const NcclOptions& options) {
  if (host->size() == 1) return make_single(&device);
  const std::vector<NcclPlace> places = introduce(*host, api);
  const bool shared = check_places(places, options.share_gpu);
  const std::string settings =
      prepare_environment(api, nccl_environment(host->rank(), places, shared, options.library_order));
  std::string name = fmt::format("nccl {}", nccl_version_text(api.version));
  if (!settings.empty()) name.append(" " + settings);
  if (options.ordered_sum) name.append(", sums in the order of ranks");
  name.append(", started by " + host->name());
  auto comm = std::make_unique<NcclCommunicator>(std::move(host), device, api, options, std::move(name));
  comm->start_up();
  return comm;
}

}  // namespace lockstep::comm
