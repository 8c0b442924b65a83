#include "comm/mpi.hpp"

#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <deque>
#include <exception>
#include <map>
#include <optional>
#include <thread>

#include "comm/deadline.hpp"
#include "comm/mpi_roll_call.hpp"
#include "comm/mpi_shared.hpp"
#include "comm/mpi_task.hpp"
#include "core/error.hpp"

namespace lockstep::comm {
namespace {

// Pieces of one rank on their way at a time: enough that one is always moving while another is summed, few enough
// that the memory they are received into stays in the cache.
constexpr std::size_t max_in_flight = 4;

// The clock is read once in so many looks at the network; where each look gives up the CPU to whoever wants it, as
// often as it comes back.
constexpr int looks_per_clock = 64;

// Who waits for something that happens in shared memory looks for so long without pause, then sleeps until it happens.
// Waking up takes as long; and a rank that computes gets the CPU in the meantime where there are fewer than ranks. It
// looks for messages, and at the clock, at least so often.
constexpr Seconds spinning{50e-6};
constexpr Seconds spinning_oversubscribed{2e-6};
constexpr Seconds longest_sleep{1e-3};

// Between hosts a thread looks for messages so often while a rank computes. A connection's buffers in the kernel hold
// some milliseconds' worth, and looking costs some microseconds.
constexpr std::chrono::microseconds looking{200};
// A look that found nothing to move takes less than this; MPI moves a fragment of 128 KiB at a time, and there may be
// more.
constexpr std::chrono::microseconds idle_look{8};

// Who waits looks at the roll call many times a second; a rank that computes does not answer however long one asks.
constexpr Seconds roll_call_patience{0.5};

std::vector<int> hosts_of(const MpiEnvironment& environment, const MpiOptions& options) {
  if (options.ranks_per_host == 0) return environment.hosts();
  std::vector<int> hosts;
  for (int r = 0; r < environment.world_size(); ++r) hosts.push_back(r / options.ranks_per_host);
  return hosts;
}

/// A rank's block, with its peers': what it is for says how large it is.
class SharedArena final : public FlatArena {
 public:
  SharedArena(std::shared_ptr<SharedMemory> memory, std::weak_ptr<MpiShared> shared, std::uint64_t number,
              std::map<int, int> places)
      : memory_(std::move(memory)), shared_(std::move(shared)), number_(number), places_(std::move(places)) {}
  ~SharedArena() override {
    const MpiTurn turn;
    if (const auto shared = shared_.lock()) shared->host.forget(number_);
  }
  [[nodiscard]] std::byte* data() const noexcept override { return memory_->data(); }
  [[nodiscard]] std::size_t bytes() const noexcept override { return memory_->bytes(); }
  [[nodiscard]] std::byte* peer(int rank) const noexcept override {
    const auto found = places_.find(rank);
    return found == places_.end() ? nullptr : memory_->of(found->second);
  }

 private:
  std::shared_ptr<SharedMemory> memory_;
  std::weak_ptr<MpiShared> shared_;
  std::uint64_t number_;
  std::map<int, int> places_;  ///< on the host, by rank
};

/// The rank is in a wait.
class Waiting {
 public:
  explicit Waiting(std::atomic<bool>& flag) : flag_(flag) { flag_ = true; }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  ~Waiting() { flag_ = false; }

 private:
  std::atomic<bool>& flag_;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(const MpiEnvironment& environment, const MpiOptions& options)
      : Communicator(options.max_piece),
        options_(options),
        name_(fmt::format("mpi ({})", environment.library())),
        host_names_(environment.host_names()),
        exceptions_at_birth_(std::uncaught_exceptions()) {
    const MpiTurn turn;
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &context_.comm), "MPI_Comm_dup");
    check_mpi(MPI_Comm_set_errhandler(context_.comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MPI_Comm_rank(context_.comm, &context_.rank);
    MPI_Comm_size(context_.comm, &context_.size);
    roll_call_.emplace(context_.comm);
  }

  ~MpiCommunicator() override {
    stop_thread();
    const MpiTurn turn;
    int finalized = 0;
    MPI_Finalized(&finalized);
    const bool orderly = finalized == 0 && tasks_.empty() && std::uncaught_exceptions() == exceptions_at_birth_;
    if (!orderly) return;
    if (roll_call_) roll_call_->free();
    if (shared_ != nullptr && shared_->peers.comm != MPI_COMM_NULL) MPI_Comm_free(&shared_->peers.comm);
    MPI_Comm_free(&context_.comm);
  }

  /// Collective. Empty, or why the ranks of a host that has several cannot share memory.
  std::string share_memory(const std::vector<int>& hosts) {
    HostLayout layout = host_layout(hosts, rank());
    const auto neighbors = static_cast<int>(layout.neighbors.size());
    Blocks control = make_blocks(layout, SharedHost::control_bytes(neighbors));
    if (control.memory == nullptr) return control.why;
    shared_.reset(new MpiShared{.host = {layout.place, neighbors, std::move(control.memory)},
                                .layout = std::move(layout),
                                .peers = {},
                                .wire = options_.wire});
    if (shared_->layout.regular) {
      const MpiTurn turn;
      MpiContext& peers = shared_->peers;
      check_mpi(MPI_Comm_split(context_.comm, shared_->layout.place, rank(), &peers.comm), "MPI_Comm_split");
      check_mpi(MPI_Comm_set_errhandler(peers.comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
      MPI_Comm_rank(peers.comm, &peers.rank);
      MPI_Comm_size(peers.comm, &peers.size);
    }
    name_.append(neighbors < size() ? ", shared memory within a host" : ", shared memory");
    return {};
  }

  /// Collective where memory is shared.
  [[nodiscard]] std::unique_ptr<FlatArena> make_arena(DeviceApi& device, std::size_t bytes) override {
    if (shared_ == nullptr || device.memory() != Memory::host) return Communicator::make_arena(device, bytes);
    Blocks blocks = make_blocks(shared_->layout, bytes);
    if (blocks.memory == nullptr)
      fail(ErrorKind::environment,
           "an arena of {} bytes cannot be shared by the ranks of a host: {}; comm.intra_host: mpi does without", bytes,
           blocks.why);
    std::map<int, int> places;
    for (std::size_t i = 0; i < shared_->layout.neighbors.size(); ++i)
      places.emplace(shared_->layout.neighbors[i], static_cast<int>(i));
    std::shared_ptr<SharedMemory> memory = std::move(blocks.memory);
    const MpiTurn turn;
    const std::uint64_t number = shared_->host.remember(memory);
    return std::make_unique<SharedArena>(std::move(memory), shared_, number, std::move(places));
  }

  [[nodiscard]] Traffic traffic() const override {
    const MpiTurn turn;
    return shared_ != nullptr ? context_.sent + shared_->peers.sent : context_.sent;
  }
  [[nodiscard]] bool shares_memory() const { return shared_ != nullptr; }

  [[nodiscard]] int rank() const noexcept override { return context_.rank; }
  [[nodiscard]] int size() const noexcept override { return context_.size; }
  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] Capabilities capabilities() const noexcept override {
    return {.host_memory = true,
            .device_memory = false,
            .shared_address_space = shared_ != nullptr && shared_->layout.hosts == 1,
            .ordered_sum = !options_.library_order,
            .graph_capturable = false,
            .wire = rounds_ ? options_.wire : DType::f32,
            .needs_progress = !thread_.joinable()};
  }

  [[nodiscard]] std::unique_ptr<FlatArena> make_own_arena(DeviceApi& device, std::size_t bytes) override {
    return Communicator::make_arena(device, bytes);
  }

  void progress() override {
    const MpiTurn turn;
    if (broken_) std::rethrow_exception(std::exchange(broken_, nullptr));
    advance();
  }

  /// From now on messages move while this rank computes. Not for ranks of one host: they share CPUs, and what one of
  /// them gains another one loses. Nor where ranks outnumber CPUs, which they take in turn.
  void start_thread() {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the thread that waits for them
    thread_ = std::thread([this] { move_messages(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    name_.append(", progress thread");
  }

  void do_barrier() override {
    if (size() > 1) do_wait(enqueue(barrier_task(context_, ++last_number_)), {});
  }

  /// fp32 sums do not stay in one host's memory, and were asked to travel as something else.
  void say_wire() {
    if (options_.wire == DType::f32 || size() == 1) return;
    rounds_ = true;
    name_.append(fmt::format(", gradients as {}", to_string(options_.wire)));
  }

  /// MPI has no way to tell the others why.
  void abort(std::string_view /*why*/, int exit_code) noexcept override {
    if (aborted_) return;
    aborted_ = true;
    std::fflush(nullptr);
    const MpiTurn turn;
    MPI_Abort(MPI_COMM_WORLD, exit_code);
  }

 private:
  void advance() {
    std::size_t in_flight = 0;
    for (auto task = tasks_.begin(); task != tasks_.end() && in_flight < max_in_flight;) {
      if (!(*task)->started()) (*task)->start();
      if ((*task)->advance()) {
        task = tasks_.erase(task);
      } else {
        ++task;
        ++in_flight;
      }
    }
  }

  /// The thread. It never waits for its turn: who has it moves messages too.
  void move_messages() {
    while (!stops_) {
      if (!busy_) {
        std::unique_lock lock(wake_mutex_);
        wake_.wait(lock, [this] { return stops_ || busy_; });
        continue;
      }
      // Who waits for a collective looks itself.
      if (!waits_)
        if (std::unique_lock turn(MpiTurn::mutex(), std::try_to_lock); turn.owns_lock()) look(turn);
      std::this_thread::sleep_for(looking);
    }
  }
  void look(std::unique_lock<std::recursive_mutex>& turn) {
    using Clock = std::chrono::steady_clock;
    for (Clock::time_point before = Clock::now(); !tasks_.empty() && !broken_ && !stops_ && !waits_;) {
      try {
        advance();
      } catch (...) {
        broken_ = std::current_exception();  // for whoever waits
      }
      const Clock::time_point now = Clock::now();
      if (now - before < idle_look) break;
      before = now;
      // Who computes may want to begin another one.
      turn.unlock();
      if (!turn.try_lock()) return;
    }
    if (tasks_.empty() || broken_) busy_ = false;
  }
  void wake_thread() {
    if (busy_ || !thread_.joinable()) return;
    {
      const std::scoped_lock lock(wake_mutex_);
      busy_ = true;
    }
    wake_.notify_one();
  }
  void stop_thread() {
    if (!thread_.joinable()) return;
    {
      const std::scoped_lock lock(wake_mutex_);
      stops_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  static void require_host(const Buffer& buffer) {
    if (buffer.memory != Memory::host)
      fail(ErrorKind::internal,
           "the mpi backend moves host memory only; copy device memory through Pinned, or use nccl");
  }

  Pending do_all_reduce(Buffer data, Reduce op, StreamRef /*after*/) override {
    require_host(data);
    const MpiTurn turn;
    if (in_memory(data))
      if (auto task = shared_all_reduce_task(*shared_, context_, last_number_ + 1, data, op)) return enqueue_next(task);
    if (travels_rounded(options_.wire, data, op))
      return enqueue(rounded_all_reduce_task(context_, ++last_number_, data, options_.wire));
    const AllReduceOrder order = options_.library_order ? AllReduceOrder::library : AllReduceOrder::tree;
    return enqueue(all_reduce_task(context_, ++last_number_, data, op, order));
  }
  Pending do_reduce_scatter(Buffer data, const Parts& parts, Reduce op, StreamRef /*after*/) override {
    require_host(data);
    const MpiTurn turn;
    if (in_memory(data))
      if (auto task = shared_reduce_scatter_task(*shared_, context_, last_number_ + 1, data, parts, op))
        return enqueue_next(task);
    if (travels_rounded(options_.wire, data, op))
      return enqueue(rounded_reduce_scatter_task(context_, ++last_number_, data, parts, options_.wire));
    return enqueue(reduce_scatter_task(context_, ++last_number_, data, parts, op));
  }
  Pending do_all_gather(Buffer data, const Parts& parts, StreamRef /*after*/) override {
    require_host(data);
    const MpiTurn turn;
    if (in_memory(data))
      if (auto task = shared_all_gather_task(*shared_, context_, last_number_ + 1, data, parts))
        return enqueue_next(task);
    return enqueue(all_gather_task(context_, ++last_number_, data, parts));
  }
  Pending do_broadcast(Buffer data, int root, StreamRef /*after*/) override {
    require_host(data);
    const MpiTurn turn;
    if (in_memory(data))
      if (auto task = shared_broadcast_task(*shared_, context_, last_number_ + 1, data, root))
        return enqueue_next(task);
    return enqueue(broadcast_task(context_, ++last_number_, data, root));
  }
  Pending do_all_to_all(Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                        std::span<const std::size_t> receive_offsets, StreamRef /*after*/) override {
    require_host(send);
    const MpiTurn turn;
    if (in_memory(send) && in_memory(receive))
      if (auto task = shared_all_to_all_task(*shared_, context_, last_number_ + 1, send, send_offsets, receive,
                                             receive_offsets))
        return enqueue_next(task);
    return enqueue(all_to_all_task(context_, ++last_number_, send, send_offsets, receive, receive_offsets));
  }

  [[nodiscard]] bool in_memory(const Buffer& buffer) const { return shared_ != nullptr && shared_->host.holds(buffer); }

  /// Blocks of every rank of the host, mapped by all of them; null on all ranks if one of them, on whatever host,
  /// cannot.
  struct Blocks {
    std::unique_ptr<SharedMemory> memory;
    std::string why;
  };
  Blocks make_blocks(const HostLayout& layout, std::size_t bytes) {
    Blocks blocks;
    blocks.memory = SharedMemory::make(bytes, blocks.why);
    std::vector<SharedHandle> all(static_cast<std::size_t>(size()));
    SharedHandle& own = all[static_cast<std::size_t>(rank())];
    if (blocks.memory != nullptr) own = blocks.memory->handle();
    all_gather_values(std::span(all));
    bool made = std::ranges::all_of(all, [](const SharedHandle& handle) { return handle.bytes > 0; });
    if (made) {
      std::vector<SharedHandle> neighbors;
      for (const int r : layout.neighbors) neighbors.push_back(all[static_cast<std::size_t>(r)]);
      made = blocks.memory->map_peers(neighbors, layout.place, blocks.why);
    }
    // Also the moment from which nobody needs the file any more.
    std::vector<std::uint8_t> mapped(static_cast<std::size_t>(size()));
    mapped[static_cast<std::size_t>(rank())] = made ? 1 : 0;
    all_gather_values(std::span(mapped));
    if (blocks.memory != nullptr) blocks.memory->close_file();
    const auto failed = std::ranges::find(mapped, 0);
    if (failed == mapped.end()) return blocks;
    blocks.memory.reset();
    // Rank 0 speaks for all, so it is told what the first rank that failed has met.
    std::string why = blocks.why;
    const auto speaker = static_cast<int>(failed - mapped.begin());
    broadcast_text(why, speaker);
    blocks.why = fmt::format("rank {} ({}): {}", speaker, host_names_[static_cast<std::size_t>(speaker)], why);
    return blocks;
  }

  Pending enqueue_next(std::unique_ptr<MpiTask>& task) {
    ++last_number_;
    return enqueue(std::move(task));
  }

  Pending enqueue(std::unique_ptr<MpiTask> task) {
    const MpiTurn turn;
    const std::uint64_t number = task->number();
    tasks_.push_back(std::move(task));
    progress();
    if (!tasks_.empty()) wake_thread();
    return {number};
  }

  [[nodiscard]] bool under_way(std::uint64_t number) const {
    const MpiTurn turn;
    for (const auto& task : tasks_)
      if (task->number() == number) return true;
    return false;
  }

  /// Everything that is under way waits for ranks of this host, in memory.
  [[nodiscard]] bool only_memory_moves() const {
    const MpiTurn turn;
    return shared_ != nullptr &&
           std::ranges::all_of(tasks_, [](const auto& task) { return !task->started() || task->waits_in_memory(); });
  }

  void do_wait(Pending pending, StreamRef /*stream*/) override {
    progress();
    if (!under_way(pending.id)) return;
    const Waiting waiting(waits_);
    using Clock = std::chrono::steady_clock;
    Deadline deadline(options_.timeout);
    const Clock::time_point spin_until =
        Clock::now() +
        std::chrono::duration_cast<Clock::duration>(options_.oversubscribed ? spinning_oversubscribed : spinning);
    bool spins = true;
    for (int looks = 1;; ++looks) {
      const std::uint32_t seen = shared_ != nullptr ? shared_->host.events() : 0;
      progress();
      if (!under_way(pending.id)) return;
      if (!spins && only_memory_moves())
        shared_->host.sleep(seen, longest_sleep);
      else if (options_.oversubscribed)
        sched_yield();
      else if (looks % looks_per_clock != 0)
        continue;
      spins = spins && Clock::now() < spin_until;
      answer_roll_call();
      if (deadline.passed() && under_way(pending.id)) fail_hang();
    }
  }

  void answer_roll_call() {
    const MpiTurn turn;
    roll_call_->answer();
  }

  bool do_test(Pending pending) override {
    progress();
    return !under_way(pending.id);
  }

  /// Collectives complete in order but for a few, so the oldest one is the one that holds up the rest.
  [[noreturn]] void fail_hang() {
    const MpiTurn turn;
    // Those that answer are waiting too; only if all do is the fault with whom this rank waits for.
    std::vector<int> late = roll_call_->absent(roll_call_patience);
    const MpiTask& oldest = *tasks_.front();
    if (late.empty()) late = oldest.awaited();
    std::string names;
    for (const int r : late)
      names.append(names.empty() ? "rank " : ", rank ")
          .append(std::to_string(r))
          .append(" (" + host_names_[static_cast<std::size_t>(r)] + ")");
    if (names.empty()) names = "at least one of the other ranks";
    fail(ErrorKind::hang,
         "{} {}, collective number {}: no answer from {} within {:g} s; look at what they last logged, or raise "
         "comm.timeout_s if they are only slow",
         name_, oldest.what(), oldest.number(), names, options_.timeout.count());
  }

  MpiOptions options_;
  std::string name_;
  std::vector<std::string> host_names_;
  int exceptions_at_birth_;
  bool aborted_ = false;
  bool rounds_ = false;  ///< fp32 sums, on their way
  MpiContext context_;
  std::optional<MpiRollCall> roll_call_;
  std::shared_ptr<MpiShared> shared_;  ///< arenas may outlive this
  std::uint64_t last_number_ = 0;
  std::deque<std::unique_ptr<MpiTask>> tasks_;  // oldest first; complete ones are gone
  // Between hosts. What is above is then for whoever has the turn.
  std::exception_ptr broken_;        ///< what the thread met
  std::atomic<bool> waits_ = false;  ///< the rank itself is in a wait
  std::atomic<bool> busy_ = false;   ///< there may be tasks; false is set by who has the turn and found none
  std::atomic<bool> stops_ = false;
  std::mutex wake_mutex_;
  std::condition_variable wake_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi(const MpiEnvironment& environment, MpiOptions options, std::string* why_not) {
  auto comm = std::make_unique<MpiCommunicator>(environment, options);
  const std::vector<int> hosts = hosts_of(environment, options);
  // Where every rank has a host of its own there is nothing to share.
  const int host_count = 1 + *std::ranges::max_element(hosts);
  if (options.intra_host != IntraHost::messages && host_count < environment.world_size()) {
    const std::string why = comm->share_memory(hosts);
    if (!why.empty() && options.intra_host == IntraHost::shared)
      fail(ErrorKind::environment,
           "comm.intra_host: shared, but the ranks of a host cannot share memory: {}; comm.intra_host: auto goes on "
           "with messages",
           why);
    if (why_not != nullptr) *why_not = why;
  }
  if (host_count > 1 || !comm->shares_memory()) comm->say_wire();
  const bool threaded = options.progress_thread && !options.oversubscribed && environment.threads_may_take_turns();
  if (threaded && host_count > 1) comm->start_thread();
  return comm;
}

void blocking_library_all_reduce(Buffer data) {
  require(data.dtype == DType::f32 && data.memory == Memory::host && data.count <= std::size_t{1} << 30,
          "the library's all-reduce: up to 2^30 elements of fp32 in host memory");
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, data.data, static_cast<int>(data.count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD),
            "MPI_Allreduce");
}

}  // namespace lockstep::comm
