#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.hpp"

namespace lockstep::comm {

/// The process as MPI sees it. The first object initialises MPI (MPI_THREAD_FUNNELED), unless somebody did, and then
/// also finalises it; not after an abort, and not while an exception unwinds: the other ranks would not follow.
///
/// Throws ErrorKind::environment where the launcher says that there are several ranks and MPI says one.
class MpiEnvironment {
 public:
  MpiEnvironment();
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

  [[nodiscard]] int world_rank() const { return world_rank_; }
  [[nodiscard]] int world_size() const { return world_size_; }
  [[nodiscard]] int host_rank() const { return host_rank_; }  ///< among the ranks of this host
  [[nodiscard]] int host_size() const { return host_size_; }
  [[nodiscard]] const std::vector<std::string>& host_names() const { return host_names_; }  ///< by world rank
  /// CPUs that at least one rank of this host may run on.
  [[nodiscard]] int host_cpus() const { return host_cpus_; }
  /// Whether this host's ranks with that many threads each want more CPUs than there are.
  [[nodiscard]] bool oversubscribed(int threads_per_rank) const { return host_size_ * threads_per_rank > host_cpus_; }
  [[nodiscard]] const std::string& library() const { return library_; }  ///< "Open MPI 4.1.4"

 private:
  bool finalize_ = false;
  int exceptions_at_birth_ = 0;
  int world_rank_ = 0;
  int world_size_ = 1;
  int host_rank_ = 0;
  int host_size_ = 1;
  int host_cpus_ = 1;
  std::vector<std::string> host_names_;
  std::string library_;
};

/// What a launcher's environment variables say about the number of ranks, against what MPI says. Returns the complete
/// explanation where they contradict each other (N > 1 against 1), and nothing where all is well.
[[nodiscard]] std::string explain_launcher_mismatch(int mpi_size,
                                                    const std::function<const char*(const char*)>& environment);

struct MpiOptions {
  Seconds timeout{600};         ///< of every wait
  bool oversubscribed = false;  ///< waiting ranks give up their CPU between looks; see MpiEnvironment::oversubscribed
  /// Elements of a piece. A few pieces are under way at a time, which bounds the memory for receiving them.
  std::size_t max_piece = std::size_t{1} << 20;
  /// All-reduces of f32, f64, i32 and i64 are MPI_Iallreduce: no promise about the order of additions.
  bool library_order = false;
};

/// Communicator of all ranks of MPI_COMM_WORLD (a duplicate of it), for host memory.
///
/// Sums are taken as the tree T over ranks (core/sum_tree.hpp) on every element: the bits are the same on every run and
/// the same as those of the local backend, unless `library_order` leaves them to MPI. Nothing moves unless progress(),
/// test() or wait() is called. Collective: all ranks make it together.
[[nodiscard]] std::unique_ptr<Communicator> make_mpi(const MpiEnvironment& environment, MpiOptions options = {});

}  // namespace lockstep::comm
