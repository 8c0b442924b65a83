#include "tests/kernels/cudart/double.hpp"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

namespace lockstep::testing {
CudartDouble& cudart_double() {
  static CudartDouble state;
  return state;
}
}  // namespace lockstep::testing

namespace {

using lockstep::testing::cudart_double;

/// Every error stays for cudaGetLastError, as CUDA's do.
cudaError_t answer(cudaError_t error) {
  if (error != cudaSuccess) cudart_double().pending_error = error;
  return error;
}
cudaError_t state_of_work() {
  auto& state = cudart_double();
  ++state.looks;
  if (state.broken) return answer(cudaErrorIllegalAddress);
  return answer(state.stuck || state.looks <= state.looks_until_done ? cudaErrorNotReady : cudaSuccess);
}
template <class T>
cudaError_t make(T* handle) {
  ++cudart_double().live;
  *handle = reinterpret_cast<T>(new int(0));
  return cudaSuccess;
}
template <class T>
cudaError_t destroy(T handle) {
  --cudart_double().live;
  delete reinterpret_cast<int*>(handle);
  return cudaSuccess;
}
cudaError_t allocate(void** data, std::size_t bytes) {
  auto& state = cudart_double();
  if (bytes > state.free_bytes) return answer(cudaErrorMemoryAllocation);
  *data = std::malloc(bytes);
  ++state.live;
  return cudaSuccess;
}
cudaError_t give_back(void* data) {
  ++cudart_double().blocking_calls;
  --cudart_double().live;
  std::free(data);
  return cudaSuccess;
}

}  // namespace

extern "C" {

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "an error of the double";
}
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "cudaErrorIllegalAddress" : "cudaErrorOther";
}
cudaError_t cudaGetLastError() {
  const int error = cudart_double().pending_error;
  cudart_double().pending_error = cudaSuccess;
  return static_cast<cudaError_t>(error);
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return answer(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int /*device*/) {
  *properties = {};
  std::strcpy(properties->name, "Double");
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return *least = 0, *greatest = -5, cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = cudart_double().free_bytes;
  *total = cudart_double().total_bytes;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** data, std::size_t bytes) { return allocate(data, bytes); }
cudaError_t cudaFree(void* data) { return give_back(data); }
cudaError_t cudaMallocHost(void** data, std::size_t bytes) { return allocate(data, bytes); }
cudaError_t cudaFreeHost(void* data) { return give_back(data); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  if (flags != cudaStreamNonBlocking) return answer(cudaErrorInvalidValue);
  cudart_double().priorities.push_back(priority);
  return make(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return destroy(stream); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) { return make(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return destroy(event); }
cudaError_t cudaEventRecord(cudaEvent_t /*event*/, cudaStream_t /*stream*/) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t /*stream*/, cudaEvent_t /*event*/, unsigned /*flags*/) {
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t /*event*/) { return state_of_work(); }
cudaError_t cudaStreamQuery(cudaStream_t /*stream*/) { return state_of_work(); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t /*begin*/, cudaEvent_t /*end*/) {
  return *milliseconds = 1.5F, cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t /*stream*/) {
  if (kind != cudaMemcpyDefault) return answer(cudaErrorInvalidValue);
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t /*stream*/) {
  std::memset(data, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t /*stream*/, cudaHostFn_t task, void* context) {
  return task(context), cudaSuccess;
}
// Graphs: none is ever made here.
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) { return answer(cudaErrorNotSupported); }
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) { return answer(cudaErrorNotSupported); }
cudaError_t cudaGraphGetNodes(cudaGraph_t, cudaGraphNode_t*, std::size_t*) { return answer(cudaErrorNotSupported); }
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long) {
  return answer(cudaErrorNotSupported);
}
cudaError_t cudaGraphDestroy(cudaGraph_t) { return answer(cudaErrorNotSupported); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return answer(cudaErrorNotSupported); }
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return answer(cudaErrorNotSupported); }

}  // extern "C"
