#pragma once

// The part of cuDNN's graph API that all who compute with it share. Only where the module is built with LOCKSTEP_CUDNN.

#include <cuda_runtime_api.h>

#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#include <cudnn_frontend.h>

#include "kernels/exec.hpp"

namespace lockstep::kernels {

namespace fe = cudnn_frontend;

/// A plan of one graph, or none where cuDNN has no engine for its sizes and types on this GPU.
struct CudnnPlan {
  std::unique_ptr<fe::graph::Graph> graph;
  std::int64_t workspace = 0;
};

/// Tensors by the uids of the graph.
using CudnnTensors = std::unordered_map<std::int64_t, void*>;

/// One rank's cuDNN: its handle, and memory for plans that want more than they are given.
class CudnnGraphs {
 public:
  explicit CudnnGraphs(cudnnHandle_t handle) : handle_(handle) {}
  CudnnGraphs(const CudnnGraphs&) = delete;
  CudnnGraphs& operator=(const CudnnGraphs&) = delete;
  ~CudnnGraphs() { (void)fe::detail::destroy_handle(handle_); }

  /// A graph of tensors of `dtype` that computes in fp32.
  [[nodiscard]] static std::unique_ptr<fe::graph::Graph> graph_of(DType dtype);
  /// The engine that cuDNN thinks fastest among those without one of the `unwanted` notes.
  [[nodiscard]] CudnnPlan build(std::unique_ptr<fe::graph::Graph> graph,
                                const std::vector<fe::NumericalNote_t>& unwanted = {}) const;
  /// Starts the plan on exec.stream. `work` is used where it is large enough. ErrorKind::environment with cuDNN's words
  /// if it does not start; `what` is what failed, for people.
  void run(const Exec& exec, const CudnnPlan& plan, CudnnTensors& tensors, void* work, std::size_t work_bytes,
           const char* what);

 private:
  cudnnHandle_t handle_;
  std::optional<Arena> more_work_;
};

}  // namespace lockstep::kernels
