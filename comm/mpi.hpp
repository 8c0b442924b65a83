#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.hpp"

namespace lockstep::comm {

/// The process as MPI sees it. The first object initialises MPI (MPI_THREAD_SERIALIZED where the library has it),
/// unless somebody did, and then also finalises it; not after an abort, and not while an exception unwinds: the other
/// ranks would not follow.
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
  /// The host of each world rank, numbered in the order of their first ranks.
  [[nodiscard]] const std::vector<int>& hosts() const { return hosts_; }
  [[nodiscard]] int host_count() const;
  /// Whether threads other than the first may call MPI, one at a time.
  [[nodiscard]] bool threads_may_take_turns() const { return threads_may_take_turns_; }
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
  std::vector<int> hosts_;
  bool threads_may_take_turns_ = false;
  std::string library_;
};

/// Which ranks reach which through memory, and how a sum is taken on several hosts.
struct HostLayout {
  std::vector<int> host = {};       ///< by world rank
  std::vector<int> neighbors = {};  ///< world ranks of this rank's host, ascending
  int place = 0;                    ///< this rank among them
  int hosts = 1;
  /// Every host has as many ranks, all of a host's follow one another, and there is more than one host: what ranks of
  /// equal place exchange between hosts is a part of the whole.
  bool regular = false;
  /// And a host's ranks are an aligned block of 2^k: its sum is a subtree of the tree over all ranks.
  bool subtrees = false;
};
[[nodiscard]] HostLayout host_layout(const std::vector<int>& hosts, int rank);

/// What a launcher's environment variables say about the number of ranks, against what MPI says. Returns the complete
/// explanation where they contradict each other (N > 1 against 1), and nothing where all is well.
[[nodiscard]] std::string explain_launcher_mismatch(int mpi_size,
                                                    const std::function<const char*(const char*)>& environment);

/// Why ranks of several hosts exchange messages each with each instead of in two levels, for the user; empty where they
/// do not have to. `hosts` by world rank.
[[nodiscard]] std::string explain_order_of_ranks(const std::vector<int>& hosts);

/// Open MPI's mpirun notices through its connections' keepalive that a host has gone, after the sum of what these
/// variables say. Ranks that give up earlier leave it with an order to a host that does not answer, for which it waits
/// as long as TCP tries: many minutes. The complete explanation where `timeout` is too short for that; otherwise empty.
[[nodiscard]] std::string explain_short_timeout(int hosts, Seconds timeout,
                                                const std::function<const char*(const char*)>& environment);

/// How ranks of one host exchange buffers that lie in an arena of make_arena().
enum class IntraHost : std::uint8_t {
  messages,   ///< as ranks of different hosts do
  automatic,  ///< through shared memory where that can be had
  shared,     ///< through shared memory; ErrorKind::environment where it cannot be had
};

struct MpiOptions {
  Seconds timeout{600};         ///< of every wait
  bool oversubscribed = false;  ///< waiting ranks give up their CPU between looks; see MpiEnvironment::oversubscribed
  /// Elements of a piece. A few pieces are under way at a time, which bounds the memory for receiving them.
  std::size_t max_piece = std::size_t{1} << 20;
  /// All-reduces of f32, f64, i32 and i64 that go by messages are MPI_Iallreduce: no promise about the order of
  /// additions.
  bool library_order = false;
  IntraHost intra_host = IntraHost::messages;
  /// f32, bf16 or f16: as what fp32 sums travel in messages; summed in fp32 all the same. Rounded twice, once each way;
  /// what ranks of a host add in memory is not.
  DType wire = DType::f32;
  /// Between hosts, where MPI allows it, a thread moves messages while the rank computes: MPI does not by itself, and
  /// an operator may take longer than a connection's buffers last.
  bool progress_thread = true;
  /// Takes so many consecutive ranks for a host of their own, to try several hosts on one; 0: what MPI says.
  int ranks_per_host = 0;
};

/// Communicator of all ranks of MPI_COMM_WORLD (a duplicate of it), for host memory.
///
/// Sums are taken as the tree T over ranks (core/sum_tree.hpp) on every element: the bits are the same on every run and
/// the same as those of the local backend, unless `library_order` leaves them to MPI. On one host nothing moves unless
/// progress(), test() or wait() is called. Collective: all ranks make it together.
///
/// With `intra_host`, ranks of a host read and write each other's arenas: make_arena() is a collective then, and a
/// buffer that lies in an arena on one rank lies in one, of the same call, on all. On several hosts of equally many,
/// consecutive ranks the collectives go in two levels, through memory within a host and by messages between ranks of
/// equal place; sums only where that is the tree still (2^k ranks a host). Everything else goes by messages. `why_not`,
/// if given, is set to the reason where `automatic` finds no shared memory.
[[nodiscard]] std::unique_ptr<Communicator> make_mpi(const MpiEnvironment& environment, MpiOptions options = {},
                                                     std::string* why_not = nullptr);

/// The library's own blocking all-reduce of fp32, in place, over all ranks of MPI_COMM_WORLD: what ours is compared
/// with. No deadline holds.
void blocking_library_all_reduce(Buffer data);

}  // namespace lockstep::comm
