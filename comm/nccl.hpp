#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "comm/nccl_api.hpp"
#include "kernels/exec.hpp"

namespace lockstep::comm {

struct NcclOptions {
  Seconds timeout{600};  ///< of every collective, from when this rank's data are ready; and of start-up
  /// Past the deadline NCCL is stopped; how long that may take, and how long the rank's own thread may take to notice,
  /// before the process ends at once with the failure's exit code.
  Seconds grace{10};
  /// Sums are whatever is fastest in NCCL, in the type that travels.
  bool library_order = false;
  /// Sums of fp32 are the tree T over ranks too, by the way that 16-bit sums always take without library_order.
  bool ordered_sum = false;
  /// Ranks may have one GPU together, to try a job out: correct, and slow.
  bool share_gpu = false;
  /// The device's kernels: 16-bit and ordered sums need its ordered_sum.
  const KernelTable* kernels = nullptr;
  void* kernels_context = nullptr;
  /// Device memory for what other ranks send to be added here; taken when the first such sum is asked for.
  std::size_t staging_bytes = std::size_t{16} << 20;
  std::size_t max_piece = Communicator::default_max_piece;  ///< elements
};

/// Communicator of the ranks of `host` for memory of `device`, by NCCL. Collectives on host memory go to `host`.
///
/// Sums of fp32 and fp64: in the order of NCCL's ring, which is the same on every run with the same ranks, GPUs,
/// buffers and library (NVLink's own reduction is off, algorithm and protocol are fixed: name() says how), but not the
/// tree T; unless `ordered_sum`, which has no fp64. Sums of bf16 and f16 are T in fp32, rounded once, unless
/// `library_order`.
///
/// Collectives run on a stream of the communicator's own that goes before others. A thread watches them: a collective
/// whose data are ready and that does not end within the timeout, or an error that NCCL reports, stops NCCL, so that
/// the device can be let go of, and every call from then on throws it, check() too. A rank that cannot be
/// stopped, or does not look, ends with the exit code of the failure. The destructor never hangs.
///
/// Collective: all ranks of `host` make it together, each on the thread that uses it and with `device` current. It
/// exchanges a few numbers at once, so that no connection is made, and no memory taken, later on.
/// Throws ErrorKind::environment where two ranks have one GPU without share_gpu, and where NCCL cannot start.
[[nodiscard]] std::unique_ptr<Communicator> make_nccl(std::unique_ptr<Communicator> host, DeviceApi& device,
                                                      const NcclApi& api, const NcclOptions& options = {});

}  // namespace lockstep::comm
