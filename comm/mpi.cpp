#include "comm/mpi.hpp"

#include <mpi.h>
#include <sched.h>

#include <cstdio>
#include <deque>
#include <exception>
#include <optional>

#include "comm/deadline.hpp"
#include "comm/mpi_roll_call.hpp"
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

// Who waits looks at the roll call many times a second; a rank that computes does not answer however long one asks.
constexpr Seconds roll_call_patience{0.5};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(const MpiEnvironment& environment, const MpiOptions& options)
      : Communicator(options.max_piece),
        options_(options),
        name_(fmt::format("mpi ({})", environment.library())),
        host_names_(environment.host_names()),
        exceptions_at_birth_(std::uncaught_exceptions()) {
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &context_.comm), "MPI_Comm_dup");
    check_mpi(MPI_Comm_set_errhandler(context_.comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MPI_Comm_rank(context_.comm, &context_.rank);
    MPI_Comm_size(context_.comm, &context_.size);
    roll_call_.emplace(context_.comm);
  }

  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    const bool orderly = finalized == 0 && tasks_.empty() && std::uncaught_exceptions() == exceptions_at_birth_;
    if (!orderly) return;
    if (roll_call_) roll_call_->free();
    MPI_Comm_free(&context_.comm);
  }

  [[nodiscard]] int rank() const noexcept override { return context_.rank; }
  [[nodiscard]] int size() const noexcept override { return context_.size; }
  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] Capabilities capabilities() const noexcept override {
    return {.host_memory = true,
            .device_memory = false,
            .shared_address_space = false,
            .ordered_sum = !options_.library_order,
            .graph_capturable = false,
            .needs_progress = true};
  }

  void progress() override {
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

  void do_barrier() override {
    if (size() > 1) do_wait(enqueue(barrier_task(context_, ++last_number_)), {});
  }

  /// MPI has no way to tell the others why.
  void abort(std::string_view /*why*/, int exit_code) noexcept override {
    if (aborted_) return;
    aborted_ = true;
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
  }

 private:
  static void require_host(const Buffer& buffer) {
    if (buffer.memory != Memory::host)
      fail(ErrorKind::internal,
           "the mpi backend moves host memory only; copy device memory through Pinned, or use nccl");
  }

  Pending do_all_reduce(Buffer data, Reduce op, StreamRef /*after*/) override {
    require_host(data);
    const AllReduceOrder order = options_.library_order ? AllReduceOrder::library : AllReduceOrder::tree;
    return enqueue(all_reduce_task(context_, ++last_number_, data, op, order));
  }
  Pending do_reduce_scatter(Buffer data, const Parts& parts, Reduce op, StreamRef /*after*/) override {
    require_host(data);
    return enqueue(reduce_scatter_task(context_, ++last_number_, data, parts, op));
  }
  Pending do_all_gather(Buffer data, const Parts& parts, StreamRef /*after*/) override {
    require_host(data);
    return enqueue(all_gather_task(context_, ++last_number_, data, parts));
  }
  Pending do_broadcast(Buffer data, int root, StreamRef /*after*/) override {
    require_host(data);
    return enqueue(broadcast_task(context_, ++last_number_, data, root));
  }
  Pending do_all_to_all(Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                        std::span<const std::size_t> receive_offsets, StreamRef /*after*/) override {
    require_host(send);
    return enqueue(all_to_all_task(context_, ++last_number_, send, send_offsets, receive, receive_offsets));
  }

  Pending enqueue(std::unique_ptr<MpiTask> task) {
    const std::uint64_t number = task->number();
    tasks_.push_back(std::move(task));
    progress();
    return {number};
  }

  [[nodiscard]] bool under_way(std::uint64_t number) const {
    for (const auto& task : tasks_)
      if (task->number() == number) return true;
    return false;
  }

  void do_wait(Pending pending, StreamRef /*stream*/) override {
    Deadline deadline(options_.timeout);
    for (int looks = 1; under_way(pending.id); ++looks) {
      progress();
      if (options_.oversubscribed) sched_yield();
      if (!options_.oversubscribed && looks % looks_per_clock != 0) continue;
      roll_call_->answer();
      if (deadline.passed() && under_way(pending.id)) fail_hang();
    }
  }

  bool do_test(Pending pending) override {
    progress();
    return !under_way(pending.id);
  }

  /// Collectives complete in order but for a few, so the oldest one is the one that holds up the rest.
  [[noreturn]] void fail_hang() {
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
  MpiContext context_;
  std::optional<MpiRollCall> roll_call_;
  std::uint64_t last_number_ = 0;
  std::deque<std::unique_ptr<MpiTask>> tasks_;  // oldest first; complete ones are gone
};

}  // namespace

std::unique_ptr<Communicator> make_mpi(const MpiEnvironment& environment, MpiOptions options) {
  return std::make_unique<MpiCommunicator>(environment, options);
}

}  // namespace lockstep::comm
