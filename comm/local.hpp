#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "core/error.hpp"

namespace lockstep::comm {

/// The meeting point of the ranks of one process; every rank's communicator holds it.
class LocalGroup;

/// Another rank ended the job; the text says which and why, the kind is the one that rank gave.
class AbortedByPeer : public Error {
 public:
  using Error::Error;
};

[[nodiscard]] std::shared_ptr<LocalGroup> make_local_group(int ranks);

/// Every wait of every rank of the group fails from now on with AbortedByPeer. The first call counts.
void abort_group(LocalGroup& group, int rank, std::string_view why, int exit_code) noexcept;

struct LocalOptions {
  Seconds timeout{600};         ///< of every wait
  DeviceApi* device = nullptr;  ///< for collectives on device memory; must outlive the communicator
  std::size_t max_piece = Communicator::default_max_piece;  ///< elements
};

/// Communicator of ranks that are threads of this process; call it once for each rank, on that rank's thread.
///
/// Sums are taken as the tree T over ranks (core/sum_tree.hpp) on every element, so results have the same bits on every
/// run and on every rank, however the work is shared out. That costs nothing here, so no option gives it up
/// (`run.determinism: fast` changes nothing). Work is done by whichever rank calls progress(), test() or
/// wait(). Every rank's wait fails at once when a rank aborts or destroys its communicator without taking part.
///
/// A rank that unwinds with collectives in flight leaves its buffers to the others: they must live in an arena of
/// make_arena(), whose host memory is kept until the last rank has let go of its arena.
///
/// Device memory: the reduction runs as a host call on the communicator's own stream, so the device's memory must be
/// addressable by the host (the emulated device is; a CUDA device needs the nccl backend). A null `after` says that the
/// data are ready; wait() with a null stream blocks the host. Errors inside the host call come out of the next call.
[[nodiscard]] std::unique_ptr<Communicator> make_local(std::shared_ptr<LocalGroup> group, int rank,
                                                       LocalOptions options = {});

}  // namespace lockstep::comm
