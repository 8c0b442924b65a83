#pragma once

#include "comm/mpi.hpp"
#include "comm/mpi_task.hpp"
#include "comm/shared_host.hpp"

// The collectives of the mpi backend on buffers that lie in arenas; comm/mpi.hpp is the public side.
namespace lockstep::comm {

/// What tasks in shared memory have besides messages.
struct MpiShared {
  SharedHost host;
  HostLayout layout;
  MpiContext peers;         ///< ranks of equal place, by host; none on one host
  DType wire = DType::f32;  ///< of fp32 sums between hosts
};

/// Each null where it has to go by messages between all ranks instead: on several hosts whose layout or whose type does
/// not let the sum be the tree in two levels. Equal on all ranks.
[[nodiscard]] std::unique_ptr<MpiTask> shared_all_reduce_task(MpiShared& shared, MpiContext& context,
                                                              std::uint64_t number, Buffer data, Reduce op);
[[nodiscard]] std::unique_ptr<MpiTask> shared_reduce_scatter_task(MpiShared& shared, MpiContext& context,
                                                                  std::uint64_t number, Buffer data, const Parts& parts,
                                                                  Reduce op);
[[nodiscard]] std::unique_ptr<MpiTask> shared_all_gather_task(MpiShared& shared, MpiContext& context,
                                                              std::uint64_t number, Buffer data, const Parts& parts);
[[nodiscard]] std::unique_ptr<MpiTask> shared_broadcast_task(MpiShared& shared, MpiContext& context,
                                                             std::uint64_t number, Buffer data, int root);
[[nodiscard]] std::unique_ptr<MpiTask> shared_all_to_all_task(MpiShared& shared, MpiContext& context,
                                                              std::uint64_t number, Buffer send,
                                                              std::span<const std::size_t> send_offsets, Buffer receive,
                                                              std::span<const std::size_t> receive_offsets);

}  // namespace lockstep::comm
