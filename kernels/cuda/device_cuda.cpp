#include "kernels/cuda/device_cuda.hpp"

#include <cuda_runtime_api.h>

#include <string>

#include "core/error.hpp"
#include "core/text.hpp"

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
  explicit CudaDevice(int ordinal) {
    check_cuda(cudaSetDevice(ordinal), "choosing the GPU");
    cudaDeviceProp properties{};
    check_cuda(cudaGetDeviceProperties(&properties, ordinal), "asking for the GPU's properties");
    name_ = fmt::format("cuda:{} ({})", ordinal, properties.name);
  }

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] Memory memory() const noexcept override { return Memory::device; }
  [[nodiscard]] bool immediate() const noexcept override { return false; }

  [[nodiscard]] void* allocate(std::size_t bytes) override {
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, bytes > 0 ? bytes : 1);
    if (error != cudaSuccess) {
      (void)cudaGetLastError();
      fail(ErrorKind::environment,
           "out of GPU memory: {} asked for ({}); use a smaller micro-batch, a higher ZeRO stage or more ranks",
           human_bytes(static_cast<double>(bytes)), cudaGetErrorString(error));
    }
    check_cuda(cudaMemset(data, 0, bytes), "clearing memory");
    check_cuda(cudaStreamSynchronize(cudaStreamLegacy), "clearing memory");
    return data;
  }
  void deallocate(void* data, std::size_t /*bytes*/) noexcept override { (void)cudaFree(data); }
  [[nodiscard]] void* allocate_pinned(std::size_t bytes) override {
    void* data = nullptr;
    check_cuda(cudaMallocHost(&data, bytes > 0 ? bytes : 1), "allocating pinned host memory");
    check_cuda(cudaMemset(data, 0, bytes), "clearing pinned host memory");
    check_cuda(cudaStreamSynchronize(cudaStreamLegacy), "clearing pinned host memory");
    return data;
  }
  void deallocate_pinned(void* data, std::size_t /*bytes*/) noexcept override { (void)cudaFreeHost(data); }

  [[nodiscard]] StreamRef make_stream() override {
    cudaStream_t stream = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
    return {stream};
  }
  void destroy(StreamRef stream) noexcept override { (void)cudaStreamDestroy(stream_of(stream)); }
  [[nodiscard]] EventRef make_event() override {
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
    return {event};
  }
  void destroy(EventRef event) noexcept override { (void)cudaEventDestroy(event_of(event)); }

  void record(EventRef event, StreamRef stream) override {
    check_cuda(cudaEventRecord(event_of(event), stream_of(stream)), "recording an event");
  }
  void wait(StreamRef stream, EventRef event) override {
    check_cuda(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0), "making a stream wait for an event");
  }
  [[nodiscard]] bool done(EventRef event) override {
    const cudaError_t state = cudaEventQuery(event_of(event));
    if (state == cudaErrorNotReady) {
      (void)cudaGetLastError();
      return false;
    }
    check_cuda(state, "work before an event");
    return true;
  }
  void synchronize(EventRef event) override {
    check_cuda(cudaEventSynchronize(event_of(event)), "work before an event");
  }
  void synchronize(StreamRef stream) override {
    check_cuda(cudaStreamSynchronize(stream_of(stream)), "work of a stream");
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
  void destroy(GraphRef graph) noexcept override { (void)cudaGraphExecDestroy(graph_of(graph)); }

 private:
  std::string name_;
};

cudaError_t count_devices(int& count) {
  count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    count = 0;
  }
  return error;
}

}  // namespace

DeviceApi* new_cuda_device(int ordinal) { return new CudaDevice(ordinal); }

int cuda_device_count() {
  int count = 0;
  (void)count_devices(count);
  return count;
}

const char* why_no_cuda_device() {
  int count = 0;
  const cudaError_t error = count_devices(count);
  return error == cudaSuccess ? "no CUDA-capable device is detected" : cudaGetErrorString(error);
}

void check_launch(dim3 grid, dim3 block) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess)
    fail(ErrorKind::environment, "CUDA: a kernel was not launched: {} (grid {}x{}x{}, block {}x{}x{})",
         cudaGetErrorString(error), grid.x, grid.y, grid.z, block.x, block.y, block.z);
}

}  // namespace lockstep
