// NCCL's part of the CUDA module: comm/nccl_api.hpp filled from the library, which is opened when it is first asked
// for. One GPU does without it.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <lockstep_build_id.h>
#include "comm/nccl_api.hpp"

namespace lockstep::comm {
namespace {

// What a communicator needs to be non-blocking and memory to be registered.
constexpr int oldest_version = NCCL_VERSION(2, 19, 1);

static_assert(static_cast<int>(NcclResult::success) == ncclSuccess);
static_assert(static_cast<int>(NcclResult::unhandled_cuda_error) == ncclUnhandledCudaError);
static_assert(static_cast<int>(NcclResult::system_error) == ncclSystemError);
static_assert(static_cast<int>(NcclResult::internal_error) == ncclInternalError);
static_assert(static_cast<int>(NcclResult::invalid_argument) == ncclInvalidArgument);
static_assert(static_cast<int>(NcclResult::invalid_usage) == ncclInvalidUsage);
static_assert(static_cast<int>(NcclResult::remote_error) == ncclRemoteError);
static_assert(static_cast<int>(NcclResult::in_progress) == ncclInProgress);
static_assert(sizeof(NcclUniqueId) == sizeof(ncclUniqueId));

/// The library's functions, by the names and types of nccl.h.
struct Library {
#define LOCKSTEP_NCCL_FUNCTIONS(F)                                                                             \
  F(ncclGetVersion)                                                                                            \
  F(ncclGetUniqueId)                                                                                           \
  F(ncclCommInitRankConfig)                                                                                    \
  F(ncclCommGetAsyncError)                                                                                     \
  F(ncclCommFinalize)                                                                                          \
  F(ncclCommDestroy)                                                                                           \
  F(ncclCommAbort)                                                                                             \
  F(ncclGroupStart)                                                                                            \
  F(ncclGroupEnd)                                                                                              \
  F(ncclAllReduce)                                                                                             \
  F(ncclReduce) F(ncclReduceScatter) F(ncclAllGather) F(ncclBroadcast) F(ncclSend) F(ncclRecv) F(ncclMemAlloc) \
      F(ncclMemFree) F(ncclGetErrorString) F(ncclGetLastError)
#define LOCKSTEP_MEMBER(name) decltype(&::name) name = nullptr;
  LOCKSTEP_NCCL_FUNCTIONS(LOCKSTEP_MEMBER)
#undef LOCKSTEP_MEMBER
};
Library library;

NcclResult result_of(ncclResult_t result) { return static_cast<NcclResult>(result); }
ncclComm_t comm_of(NcclComm comm) { return static_cast<ncclComm_t>(comm.handle); }
cudaStream_t stream_of(StreamRef stream) { return static_cast<cudaStream_t>(stream.handle); }

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::f16:
      return ncclFloat16;
    case DType::f64:
      return ncclFloat64;
    case DType::i32:
      return ncclInt32;
    case DType::i64:
      return ncclInt64;
    case DType::u8:
      return ncclUint8;
  }
  return ncclNumTypes;
}

ncclRedOp_t op_of(Reduce op) { return op == Reduce::sum ? ncclSum : op == Reduce::max ? ncclMax : ncclMin; }

NcclResult get_unique_id(NcclUniqueId* id) {
  ncclUniqueId made;
  const ncclResult_t result = library.ncclGetUniqueId(&made);
  std::memcpy(id->bytes.data(), made.internal, sizeof(made));
  return result_of(result);
}

NcclResult init_rank(NcclComm* comm, int ranks, const NcclUniqueId* id, int rank) {
  ncclUniqueId theirs;
  std::memcpy(theirs.internal, id->bytes.data(), sizeof(theirs));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t made = nullptr;
  const ncclResult_t result = library.ncclCommInitRankConfig(&made, ranks, theirs, rank, &config);
  comm->handle = made;
  return result_of(result);
}

NcclResult async_error(NcclComm comm, NcclResult* state) {
  ncclResult_t now = ncclSuccess;
  const ncclResult_t result = library.ncclCommGetAsyncError(comm_of(comm), &now);
  *state = result_of(now);
  return result_of(result);
}

NcclResult finalize(NcclComm comm) { return result_of(library.ncclCommFinalize(comm_of(comm))); }
NcclResult destroy(NcclComm comm) { return result_of(library.ncclCommDestroy(comm_of(comm))); }
NcclResult abort_comm(NcclComm comm) { return result_of(library.ncclCommAbort(comm_of(comm))); }
NcclResult group_start() { return result_of(library.ncclGroupStart()); }
NcclResult group_end() { return result_of(library.ncclGroupEnd()); }

NcclResult all_reduce(const void* from, void* to, std::size_t count, DType dtype, Reduce op, NcclComm comm,
                      StreamRef stream) {
  return result_of(library.ncclAllReduce(from, to, count, type_of(dtype), op_of(op), comm_of(comm), stream_of(stream)));
}
NcclResult reduce(const void* from, void* to, std::size_t count, DType dtype, Reduce op, int root, NcclComm comm,
                  StreamRef stream) {
  return result_of(
      library.ncclReduce(from, to, count, type_of(dtype), op_of(op), root, comm_of(comm), stream_of(stream)));
}
NcclResult reduce_scatter(const void* from, void* to, std::size_t count, DType dtype, Reduce op, NcclComm comm,
                          StreamRef stream) {
  return result_of(
      library.ncclReduceScatter(from, to, count, type_of(dtype), op_of(op), comm_of(comm), stream_of(stream)));
}
NcclResult all_gather(const void* from, void* to, std::size_t count, DType dtype, NcclComm comm, StreamRef stream) {
  return result_of(library.ncclAllGather(from, to, count, type_of(dtype), comm_of(comm), stream_of(stream)));
}
NcclResult broadcast(const void* from, void* to, std::size_t count, DType dtype, int root, NcclComm comm,
                     StreamRef stream) {
  return result_of(library.ncclBroadcast(from, to, count, type_of(dtype), root, comm_of(comm), stream_of(stream)));
}
NcclResult send(const void* data, std::size_t count, DType dtype, int to, NcclComm comm, StreamRef stream) {
  return result_of(library.ncclSend(data, count, type_of(dtype), to, comm_of(comm), stream_of(stream)));
}
NcclResult receive(void* data, std::size_t count, DType dtype, int from, NcclComm comm, StreamRef stream) {
  return result_of(library.ncclRecv(data, count, type_of(dtype), from, comm_of(comm), stream_of(stream)));
}

NcclResult allocate(void** data, std::size_t bytes) { return result_of(library.ncclMemAlloc(data, bytes)); }
NcclResult deallocate(void* data) { return result_of(library.ncclMemFree(data)); }
const char* result_text(NcclResult result) {
  return library.ncclGetErrorString(static_cast<ncclResult_t>(static_cast<int>(result)));
}
const char* last_error() { return library.ncclGetLastError(nullptr); }

NcclResult device_place(char* text, int bytes) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetPCIBusId(text, bytes, device);
  return error == cudaSuccess ? NcclResult::success : NcclResult::unhandled_cuda_error;
}

bool capturing(StreamRef stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream_of(stream), &status) == cudaSuccess && status != cudaStreamCaptureStatusNone;
}

const char* get_environment(const char* name) { return std::getenv(name); }
void set_environment(const char* name, const char* value) { setenv(name, value, 1); }

/// Opens the library; null, or a sentence about what is missing.
const char* open_library() {
  static char text[512] = "";
  void* handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    std::snprintf(text, sizeof(text),
                  "the library NCCL is missing: %s; install it (Debian: libnccl2), or put its folder into "
                  "LD_LIBRARY_PATH",
                  dlerror());
    return text;
  }
#define LOCKSTEP_FIND(name)                                                                             \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle, #name));                        \
  if (library.name == nullptr) {                                                                        \
    std::snprintf(text, sizeof(text), "the library NCCL here has no " #name ": install 2.19 or newer"); \
    return text;                                                                                        \
  }
  LOCKSTEP_NCCL_FUNCTIONS(LOCKSTEP_FIND)
#undef LOCKSTEP_FIND
  return nullptr;
}

}  // namespace
}  // namespace lockstep::comm

/// The module's second entry point (comm/nccl_loader.hpp).
extern "C" __attribute__((visibility("default"))) const lockstep::comm::NcclApi* lockstep_nccl(const char* build_id,
                                                                                               const char** why);

const lockstep::comm::NcclApi* lockstep_nccl(const char* build_id, const char** why) {
  using namespace lockstep::comm;
  static NcclApi api;
  static const char* const missing = open_library();
  if (std::strcmp(build_id, LOCKSTEP_BUILD_ID) != 0) {
    *why = "the CUDA module is of another build than this program: build both";
    return nullptr;
  }
  if (missing != nullptr) {
    *why = missing;
    return nullptr;
  }
  if (library.ncclGetVersion(&api.version) != ncclSuccess || api.version < oldest_version) {
    *why = "the library NCCL here is older than 2.19: install a newer one";
    return nullptr;
  }
  api = {.version = api.version,
         .graph_capturable = true,
         .get_unique_id = get_unique_id,
         .init_rank = init_rank,
         .async_error = async_error,
         .finalize = finalize,
         .destroy = destroy,
         .abort = abort_comm,
         .group_start = group_start,
         .group_end = group_end,
         .all_reduce = all_reduce,
         .reduce = reduce,
         .reduce_scatter = reduce_scatter,
         .all_gather = all_gather,
         .broadcast = broadcast,
         .send = send,
         .receive = receive,
         .allocate = allocate,
         .deallocate = deallocate,
         .result_text = result_text,
         .last_error = last_error,
         .device_place = device_place,
         .capturing = capturing,
         .get_environment = get_environment,
         .set_environment = set_environment};
  return &api;
}
