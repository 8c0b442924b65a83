#pragma once

#include <mpi.h>

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.hpp"

// The collectives of the mpi backend as state machines over non-blocking messages; comm/mpi.hpp is the public side.
namespace lockstep::comm {

/// Throws ErrorKind::environment unless `code` is MPI_SUCCESS.
void check_mpi(int code, const char* call);

/// MPI is called, and what tasks share is touched, by one thread at a time (MPI_THREAD_SERIALIZED): the one that has
/// this. A thread may have it several times.
class MpiTurn {
 public:
  MpiTurn() : lock_(mutex()) {}
  [[nodiscard]] static std::recursive_mutex& mutex();

 private:
  std::scoped_lock<std::recursive_mutex> lock_;
};

/// What tasks share: the group and memory to receive into, kept from one task to the next because fresh pages cost more
/// than the message that fills them.
struct MpiContext {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;

  struct Staging {
    std::unique_ptr<std::byte[]> data;
    std::size_t bytes = 0;
  };
  [[nodiscard]] Staging take_staging(std::size_t bytes);
  void give_back(Staging staging);

 private:
  std::vector<Staging> spare_;
};

/// One collective, or one piece of a large one.
class MpiTask {
 public:
  MpiTask(MpiContext& context, std::uint64_t number, std::string what);
  virtual ~MpiTask() = default;
  MpiTask(const MpiTask&) = delete;
  MpiTask& operator=(const MpiTask&) = delete;

  [[nodiscard]] std::uint64_t number() const { return number_; }
  [[nodiscard]] const std::string& what() const { return what_; }  ///< "all_reduce (sum) of 1000 x f32"
  [[nodiscard]] bool started() const { return started_; }
  void start();
  /// Moves on as far as the messages allow. True when the collective is complete.
  [[nodiscard]] virtual bool advance();
  /// The ranks whose messages are still awaited; empty where MPI does not tell.
  [[nodiscard]] virtual std::vector<int> awaited() const;
  /// What it waits for now happens in memory that ranks share: no message has to be looked for.
  [[nodiscard]] virtual bool waits_in_memory() const { return false; }

 protected:
  virtual void post_first() = 0;
  /// Called when all messages so far are done: does the work and posts the next ones. True when nothing is left to do.
  virtual bool finish_stage() { return true; }

  void send(const void* data, std::size_t bytes, int to);
  void receive(void* data, std::size_t bytes, int from);
  /// For MPI's own collectives.
  MPI_Request* add_request();
  /// Every rank's part of data to every rank.
  void post_gather(const Buffer& data, const Parts& parts);

  MpiContext& context_;

 private:
  static constexpr int from_nobody = -1;

  std::uint64_t number_;
  std::string what_;
  bool started_ = false;
  int stage_ = 0;
  std::vector<MPI_Request> requests_;
  std::vector<int> request_sources_;  ///< of each request; from_nobody unless it receives
};

enum class AllReduceOrder : std::uint8_t {
  tree,     ///< T over ranks
  library,  ///< MPI_Iallreduce, but for types that MPI does not have
};

[[nodiscard]] std::unique_ptr<MpiTask> all_reduce_task(MpiContext& context, std::uint64_t number, Buffer data,
                                                       Reduce op, AllReduceOrder order);
[[nodiscard]] std::unique_ptr<MpiTask> reduce_scatter_task(MpiContext& context, std::uint64_t number, Buffer data,
                                                           const Parts& parts, Reduce op);
/// Whether a sum of `data` is one of those below.
[[nodiscard]] inline bool travels_rounded(DType wire, const Buffer& data, Reduce op) {
  return wire != DType::f32 && data.dtype == DType::f32 && op == Reduce::sum;
}
/// The two of fp32 `data` that travels as `wire`, bf16 or f16: every contribution is rounded to it, added to the
/// others' in fp32 in the order of the tree, and the sum is rounded to it once more, on all ranks alike.
[[nodiscard]] std::unique_ptr<MpiTask> rounded_all_reduce_task(MpiContext& context, std::uint64_t number, Buffer data,
                                                               DType wire);
[[nodiscard]] std::unique_ptr<MpiTask> rounded_reduce_scatter_task(MpiContext& context, std::uint64_t number,
                                                                   Buffer data, const Parts& parts, DType wire);
[[nodiscard]] std::unique_ptr<MpiTask> all_gather_task(MpiContext& context, std::uint64_t number, Buffer data,
                                                       const Parts& parts);
[[nodiscard]] std::unique_ptr<MpiTask> broadcast_task(MpiContext& context, std::uint64_t number, Buffer data, int root);
[[nodiscard]] std::unique_ptr<MpiTask> all_to_all_task(MpiContext& context, std::uint64_t number, Buffer send,
                                                       std::span<const std::size_t> send_offsets, Buffer receive,
                                                       std::span<const std::size_t> receive_offsets);
[[nodiscard]] std::unique_ptr<MpiTask> barrier_task(MpiContext& context, std::uint64_t number);

}  // namespace lockstep::comm
