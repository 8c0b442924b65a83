#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "comm/communicator.hpp"

// What Lockstep uses of NCCL, as a table of functions without NCCL's own types: the CUDA module fills it from the
// library (comm/nccl/module.cpp), tests from a stand-in whose ranks are threads. Everything that decides something is
// on this side of it, in the program's library. Crosses the boundary to the module, so: plain function pointers and
// values only, and no function throws.
namespace lockstep::comm {

/// NCCL's results, with its numbers.
enum class NcclResult : int {
  success = 0,
  unhandled_cuda_error = 1,
  system_error = 2,
  internal_error = 3,
  invalid_argument = 4,
  invalid_usage = 5,
  remote_error = 6,
  in_progress = 7,
};

/// What rank 0 makes and all ranks need to find one another.
struct NcclUniqueId {
  std::array<char, 128> bytes{};
};

/// A rank's end of a group of ranks, by reference: NCCL's ncclComm_t.
struct NcclComm {
  void* handle = nullptr;
  bool operator==(const NcclComm&) const = default;
};

/// Communicators are non-blocking: any function on one may return `in_progress`, and then nothing but async_error() and
/// abort() may be called on it until async_error() reports something else. Only then is a collective in its stream.
/// abort() may be called by any thread at any time, and once only: the communicator is gone after it, as after
/// destroy(). Everything else belongs to one thread at a time. Functions with a stream return before the work is done.
struct NcclApi {
  int version = 0;                ///< 22809 is 2.28.9
  bool graph_capturable = false;  ///< collectives can be captured into a graph of their device

  NcclResult (*get_unique_id)(NcclUniqueId* id) = nullptr;
  /// Makes this rank's end, on the calling thread's device.
  NcclResult (*init_rank)(NcclComm* comm, int ranks, const NcclUniqueId* id, int rank) = nullptr;
  /// How the communicator is: success, in_progress, or what went wrong.
  NcclResult (*async_error)(NcclComm comm, NcclResult* state) = nullptr;
  NcclResult (*finalize)(NcclComm comm) = nullptr;
  NcclResult (*destroy)(NcclComm comm) = nullptr;
  NcclResult (*abort)(NcclComm comm) = nullptr;

  NcclResult (*group_start)() = nullptr;
  NcclResult (*group_end)() = nullptr;
  NcclResult (*all_reduce)(const void* send, void* receive, std::size_t count, DType dtype, Reduce op, NcclComm comm,
                           StreamRef stream) = nullptr;
  NcclResult (*reduce)(const void* send, void* receive, std::size_t count, DType dtype, Reduce op, int root,
                       NcclComm comm, StreamRef stream) = nullptr;
  /// `count` is that of one rank's part, here and in all_gather.
  NcclResult (*reduce_scatter)(const void* send, void* receive, std::size_t count, DType dtype, Reduce op,
                               NcclComm comm, StreamRef stream) = nullptr;
  NcclResult (*all_gather)(const void* send, void* receive, std::size_t count, DType dtype, NcclComm comm,
                           StreamRef stream) = nullptr;
  NcclResult (*broadcast)(const void* send, void* receive, std::size_t count, DType dtype, int root, NcclComm comm,
                          StreamRef stream) = nullptr;
  NcclResult (*send)(const void* data, std::size_t count, DType dtype, int to, NcclComm comm,
                     StreamRef stream) = nullptr;
  NcclResult (*receive)(void* data, std::size_t count, DType dtype, int from, NcclComm comm,
                        StreamRef stream) = nullptr;

  /// Device memory that NCCL can register; not cleared.
  NcclResult (*allocate)(void** data, std::size_t bytes) = nullptr;
  NcclResult (*deallocate)(void* data) = nullptr;

  const char* (*result_text)(NcclResult result) = nullptr;
  const char* (*last_error)() = nullptr;  ///< more about it; may be empty

  // What the library sees around it.
  /// The calling thread's device by its place in the machine ("0000:3B:00.0"), ended by a zero.
  NcclResult (*device_place)(char* text, int bytes) = nullptr;
  /// Whether work put into the stream is being captured.
  bool (*capturing)(StreamRef stream) = nullptr;
  const char* (*get_environment)(const char* name) = nullptr;  ///< null: not set
  void (*set_environment)(const char* name, const char* value) = nullptr;
};

}  // namespace lockstep::comm
