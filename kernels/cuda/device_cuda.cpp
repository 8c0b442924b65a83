#include "kernels/cuda/device_cuda.hpp"

#include <cuda_runtime_api.h>

#include <cstring>
#include <functional>
#include <string>

#include "core/error.hpp"
#include "core/out_of_memory.hpp"

namespace lockstep {
namespace {

void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    fail(ErrorKind::environment, "CUDA: {} failed: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

cudaStream_t stream_of(StreamRef stream) { return static_cast<cudaStream_t>(stream.handle); }
cudaEvent_t event_of(EventRef event) { return static_cast<cudaEvent_t>(event.handle); }
cudaGraphExec_t graph_of(GraphRef graph) { return static_cast<cudaGraphExec_t>(graph.handle); }

class CudaDevice final : public DeviceApi {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal) {
    CudaDevice::use_here();
    cudaDeviceProp properties{};
    check_cuda(cudaGetDeviceProperties(&properties, ordinal), "asking for the GPU's properties");
    name_ = fmt::format("cuda:{} ({})", ordinal, properties.name);
    int lowest = 0;
    check_cuda(cudaDeviceGetStreamPriorityRange(&lowest, &highest_priority_), "asking for the priorities of streams");
    clearing_ = new_stream(0);
  }
  ~CudaDevice() override { destroy(StreamRef{clearing_}); }

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] Memory memory() const noexcept override { return Memory::device; }
  [[nodiscard]] bool immediate() const noexcept override { return false; }
  void use_here() override { check_cuda(cudaSetDevice(ordinal_), "choosing the GPU"); }

  [[nodiscard]] MemoryInfo memory_info() override {
    MemoryInfo info;
    check_cuda(cudaMemGetInfo(&info.free, &info.total), "asking for the free memory");
    return info;
  }
  [[nodiscard]] void* allocate(std::size_t bytes) override {
    void* data = nullptr;
    check_memory(cudaMalloc(&data, bytes > 0 ? bytes : 1), Memory::device, bytes, "allocating memory");
    return cleared(data, bytes);
  }
  void deallocate(void* data, std::size_t /*bytes*/) noexcept override {
    // Freeing waits for all work of the device, with no way to end that wait.
    if (!abandoned_) (void)cudaFree(data);
  }
  [[nodiscard]] void* allocate_pinned(std::size_t bytes) override {
    void* data = nullptr;
    check_memory(cudaMallocHost(&data, bytes > 0 ? bytes : 1), Memory::host, bytes, "allocating pinned host memory");
    std::memset(data, 0, bytes);
    return data;
  }
  void deallocate_pinned(void* data, std::size_t /*bytes*/) noexcept override {
    if (!abandoned_) (void)cudaFreeHost(data);
  }

  [[nodiscard]] StreamRef make_stream() override { return {new_stream(0)}; }
  [[nodiscard]] StreamRef make_urgent_stream() override { return {new_stream(highest_priority_)}; }
  void destroy(StreamRef stream) noexcept override {
    if (!abandoned_) (void)cudaStreamDestroy(stream_of(stream));
  }
  [[nodiscard]] EventRef make_event() override { return {new_event(cudaEventDisableTiming)}; }
  [[nodiscard]] EventRef make_timed_event() override { return {new_event(cudaEventDefault)}; }
  void destroy(EventRef event) noexcept override {
    if (!abandoned_) (void)cudaEventDestroy(event_of(event));
  }

  void record(EventRef event, StreamRef stream) override {
    check_cuda(cudaEventRecord(event_of(event), stream_of(stream)), "recording an event");
  }
  void wait(StreamRef stream, EventRef event) override {
    check_cuda(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0), "making a stream wait for an event");
  }
  [[nodiscard]] bool done(EventRef event) override { return ready(cudaEventQuery(event_of(event)), before_an_event); }
  void synchronize(EventRef event) override {
    wait_for([&] { return done(event); }, before_an_event);
  }
  void synchronize(StreamRef stream) override {
    wait_for([&] { return ready(cudaStreamQuery(stream_of(stream)), of_a_stream); }, of_a_stream);
  }
  [[nodiscard]] double elapsed_ms(EventRef from, EventRef to) override {
    float milliseconds = 0.0F;
    check_cuda(cudaEventElapsedTime(&milliseconds, event_of(from), event_of(to)), "asking for the time between events");
    return static_cast<double>(milliseconds);
  }

  void copy(void* to, const void* from, std::size_t bytes, StreamRef stream) override {
    if (bytes > 0) check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream)), "copying");
  }
  void fill_zero(void* data, std::size_t bytes, StreamRef stream) override {
    if (bytes > 0) check_cuda(cudaMemsetAsync(data, 0, bytes, stream_of(stream)), "filling with zero");
  }
  void call_host(void (*task)(void*), void* context, StreamRef stream) override {
    check_cuda(cudaLaunchHostFunc(stream_of(stream), task, context), "enqueueing a host call");
  }

  [[nodiscard]] bool can_capture() const noexcept override { return true; }
  void begin_capture(StreamRef stream) override {
    // Other ranks' threads go on with their own work meanwhile.
    check_cuda(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal), "beginning a capture");
  }
  [[nodiscard]] GraphRef end_capture(StreamRef stream) override {
    cudaGraph_t captured = nullptr;
    check_cuda(cudaStreamEndCapture(stream_of(stream), &captured), "ending a capture");
    cudaGraphExec_t graph = nullptr;
    std::size_t nodes = 0;
    cudaError_t error = cudaGraphGetNodes(captured, nullptr, &nodes);
    if (error == cudaSuccess && nodes > 0) error = cudaGraphInstantiate(&graph, captured, 0);
    (void)cudaGraphDestroy(captured);
    check_cuda(error, "making a graph of what was captured");
    return {graph};
  }
  void launch(GraphRef graph, StreamRef stream) override {
    check_cuda(cudaGraphLaunch(graph_of(graph), stream_of(stream)), "launching a graph");
  }
  void destroy(GraphRef graph) noexcept override {
    if (!abandoned_) (void)cudaGraphExecDestroy(graph_of(graph));
  }

 private:
  static constexpr const char* before_an_event = "the work before an event";
  static constexpr const char* of_a_stream = "the work of a stream";

  int ordinal_;
  std::string name_;
  int highest_priority_ = 0;
  cudaStream_t clearing_ = nullptr;
  bool abandoned_ = false;  ///< a wait was given up: work is still under way, and may be for ever

  static cudaStream_t new_stream(int priority) {
    cudaStream_t stream = nullptr;
    check_cuda(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority), "making a stream");
    return stream;
  }
  static cudaEvent_t new_event(unsigned flags) {
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreateWithFlags(&event, flags), "making an event");
    return event;
  }

  void check_memory(cudaError_t error, Memory kind, std::size_t bytes, const char* what) {
    if (error == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      throw OutOfMemory(kind, bytes, kind == Memory::device ? memory_info() : DeviceApi::memory_info());
    }
    check_cuda(error, what);
  }
  void* cleared(void* data, std::size_t bytes) {
    check_cuda(cudaMemsetAsync(data, 0, bytes, clearing_), "clearing memory");
    synchronize(StreamRef{clearing_});
    return data;
  }

  static bool ready(cudaError_t state, const char* what) {
    if (state == cudaErrorNotReady) {
      (void)cudaGetLastError();
      return false;
    }
    check_cuda(state, what);
    return true;
  }
  void wait_for(const std::function<bool()>& finished, const char* what) {
    try {
      wait_until(finished, what);
    } catch (...) {
      abandoned_ = true;
      throw;
    }
  }
};

}  // namespace

DeviceApi* new_cuda_device(int ordinal) { return new CudaDevice(ordinal); }

CudaStatus cuda_status() {
  CudaStatus status;
  if (cudaDriverGetVersion(&status.driver) != cudaSuccess) status.driver = 0;
  (void)cudaRuntimeGetVersion(&status.runtime);
  const cudaError_t error = cudaGetDeviceCount(&status.devices);
  if (error != cudaSuccess) status.devices = 0;
  status.reason = error == cudaSuccess ? "" : cudaGetErrorString(error);
  (void)cudaGetLastError();
  return status;
}

void check_launch(dim3 grid, dim3 block) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess)
    fail(ErrorKind::environment, "CUDA: a kernel was not launched: {} (grid {}x{}x{}, block {}x{}x{})",
         cudaGetErrorString(error), grid.x, grid.y, grid.z, block.x, block.y, block.z);
}

}  // namespace lockstep
