#include "kernels/cuda/cudnn.hpp"

#if !defined(LOCKSTEP_CUDNN)

namespace lockstep::kernels {

class CudnnGraphs {};
void CudnnRelease::operator()(CudnnGraphs* graphs) const noexcept { delete graphs; }
Cudnn open_cudnn(std::string& text) {
  text = "built without cuDNN's headers";
  return nullptr;
}

}  // namespace lockstep::kernels

#else

#include <dlfcn.h>

#include <cstdlib>

#include "core/error.hpp"
#include "kernels/cuda/cudnn_graphs.hpp"

/// Where cudnn_frontend looks its functions up.
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace lockstep::kernels {

std::unique_ptr<fe::graph::Graph> CudnnGraphs::graph_of(DType dtype) {
  auto graph = std::make_unique<fe::graph::Graph>();
  graph
      ->set_io_data_type(dtype == DType::bf16  ? fe::DataType_t::BFLOAT16
                         : dtype == DType::f16 ? fe::DataType_t::HALF
                                               : fe::DataType_t::FLOAT)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  return graph;
}

CudnnPlan CudnnGraphs::build(std::unique_ptr<fe::graph::Graph> graph,
                             const std::vector<fe::NumericalNote_t>& unwanted) const {
  std::int64_t workspace = 0;
  // It has engines for some sizes and some GPUs only.
  if (graph->validate().is_bad() || graph->build_operation_graph(handle_).is_bad() ||
      graph->create_execution_plans({fe::HeurMode_t::A}).is_bad())
    return {};
  if (!unwanted.empty()) graph->deselect_numeric_notes(unwanted);
  if (graph->check_support(handle_).is_bad() || graph->build_plans(handle_).is_bad() ||
      graph->get_workspace_size(workspace).is_bad())
    return {};
  return {.graph = std::move(graph), .workspace = workspace};
}

void CudnnGraphs::run(const Exec& exec, const CudnnPlan& plan, CudnnTensors& tensors, void* work,
                      std::size_t work_bytes, const char* what) {
  const auto wanted = static_cast<std::size_t>(plan.workspace);
  if (wanted > work_bytes) {
    if (!more_work_ || more_work_->bytes() < wanted) {
      more_work_.reset();
      more_work_.emplace(*exec.device, wanted);
    }
    work = more_work_->data();
  }
  const cudnnStatus_t chosen = fe::detail::set_stream(handle_, static_cast<cudaStream_t>(exec.stream.handle));
  if (chosen != CUDNN_STATUS_SUCCESS)
    fail(ErrorKind::environment, "cuDNN: choosing the stream failed: {}", fe::detail::get_error_string(chosen));
  fe::error_t error = plan.graph->execute(handle_, tensors, work);
  if (error.is_bad()) fail(ErrorKind::environment, "cuDNN: {} was not started: {}", what, error.get_message());
}

void CudnnRelease::operator()(CudnnGraphs* graphs) const noexcept { delete graphs; }

Cudnn open_cudnn(std::string& text) {
  if (fe::cudnn_dlhandle == nullptr) fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
  if (fe::cudnn_dlhandle == nullptr) {
    text = dlerror();
    return nullptr;
  }
  // Else it looks for the runtimes of several CUDA versions, and prints what it finds.
  const std::string runtime = "libcudart.so." + std::to_string(CUDART_VERSION / 1000);
  (void)setenv("CUDNN_FRONTEND_CUDART_LIB_NAME", runtime.c_str(), 0);
  try {
    cudnnHandle_t handle = nullptr;
    const cudnnStatus_t status = fe::detail::create_handle(&handle);
    const std::size_t version = fe::detail::get_backend_version();
    text = fmt::format("cuDNN {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
    if (status == CUDNN_STATUS_SUCCESS) return Cudnn(new CudnnGraphs(handle));
    text += fmt::format(" does not start: {}", fe::detail::get_error_string(status));
  } catch (const std::exception& error) {
    text = error.what();
  }
  return nullptr;
}

}  // namespace lockstep::kernels

#endif
