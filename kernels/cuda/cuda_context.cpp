#include "kernels/cuda/cuda_context.hpp"

#include <cstdlib>
#include <string_view>

#include "core/error.hpp"
#include "kernels/attention/cudnn_attention.hpp"
#include "kernels/convolution/cudnn_convolution.hpp"

namespace lockstep::kernels {
namespace {

std::string_view setting(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// -1: nothing is set
int switch_of(const char* name) {
  const std::string_view value = setting(name);
  if (value.empty()) return -1;
  if (value != "0" && value != "1") fail(ErrorKind::environment, "{}={}: only 0 and 1 are known", name, value);
  return value == "1" ? 1 : 0;
}

/// Whether the setting leaves the choice to us: it says auto, or nothing.
bool wants_cudnn(const char* name) {
  const std::string_view value = setting(name);
  if (!value.empty() && value != "auto" && value != "own")
    fail(ErrorKind::environment, "{}={}: only auto and own are known", name, value);
  return value != "own";
}

}  // namespace

CudaContext::CudaContext(DeviceApi& device)
    : device_(device),
      workspace_(device, workspace_bytes),
      tf32_(switch_of("LOCKSTEP_TF32") == 1),
      tune_(switch_of("LOCKSTEP_GEMM_TUNE")) {
  if (const cublasStatus_t status = cublasLtCreate(&blas_); status != CUBLAS_STATUS_SUCCESS)
    fail(ErrorKind::environment, "cuBLASLt cannot start on {}: {}", device.name(), cublasLtGetStatusString(status));
  const bool attention = wants_cudnn("LOCKSTEP_ATTENTION"), convolution = wants_cudnn("LOCKSTEP_CONVOLUTION");
  std::string found;
  if (attention || convolution) cudnn_ = open_cudnn(found);
  if (cudnn_ != nullptr && attention) attention_ = CudnnAttention::with(*cudnn_);
  if (cudnn_ != nullptr && convolution) convolution_ = CudnnConvolution::with(*cudnn_);
  const auto by = [&](const char* what, const char* own, bool wanted, bool has) {
    if (has) return fmt::format("; {}: {}", what, found);
    return fmt::format("; {}: {} ({})", what, own, wanted ? found : "asked for");
  };
  const std::size_t version = cublasLtGetVersion();
  text_ = fmt::format("cuBLASLt {}.{}.{}", version / 10000, version / 100 % 100, version % 100) +
          by("attention", "our own kernel", attention, attention_ != nullptr) +
          by("convolutions", "our own kernels", convolution, convolution_ != nullptr);
}

CudaContext::~CudaContext() {
  matmul_plans.clear();
  (void)cublasLtDestroy(blas_);
}

CudaContext& cuda_context(const Exec& exec) {
  require(exec.context != nullptr, "the cuda table: exec has no context");
  return *static_cast<CudaContext*>(exec.context);
}

void* create_cuda_context(DeviceApi* device) { return new CudaContext(*device); }
void destroy_cuda_context(void* context) { delete static_cast<CudaContext*>(context); }
const char* describe_cuda_context(void* context) { return static_cast<CudaContext*>(context)->text().c_str(); }

}  // namespace lockstep::kernels
