#pragma once

#include <cublasLt.h>

#include <map>
#include <memory>
#include <string>

#include "kernels/cuda/cudnn.hpp"
#include "kernels/exec.hpp"
#include "kernels/matmul/column_major.hpp"

namespace lockstep::kernels {

/// How cuBLASLt does one kind of product.
struct MatmulPlan {
  struct Release {
    void operator()(cublasLtMatmulDescOpaque_t* desc) const noexcept { (void)cublasLtMatmulDescDestroy(desc); }
    void operator()(cublasLtMatrixLayoutOpaque_t* layout) const noexcept { (void)cublasLtMatrixLayoutDestroy(layout); }
  };
  using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Release>;

  std::unique_ptr<cublasLtMatmulDescOpaque_t, Release> desc;
  Layout left, right, out;
  cublasLtMatmulAlgo_t algo{};
};

class CudnnAttention;
class CudnnConvolution;

/// What one rank keeps between library calls on its GPU; Exec::context points at it. Its products and attentions go to
/// one stream: they share one workspace.
class CudaContext {
 public:
  /// cuBLASLt's own advice for Hopper; asked for before the first step, so that none needs to be later.
  static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;

  /// Allocates the workspace.
  explicit CudaContext(DeviceApi& device);
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;
  ~CudaContext();

  [[nodiscard]] DeviceApi& device() const { return device_; }
  [[nodiscard]] cublasLtHandle_t blas() const { return blas_; }
  [[nodiscard]] void* workspace() const { return workspace_.data(); }
  /// fp32 products in TF32: LOCKSTEP_TF32=1.
  [[nodiscard]] bool tf32() const { return tf32_; }
  /// Products are timed: Exec::tune, unless LOCKSTEP_GEMM_TUNE says 0 or 1.
  [[nodiscard]] bool tune(const Exec& exec) const { return tune_ < 0 ? exec.tune && !exec.invariant : tune_ == 1; }
  /// Null: attention is our own kernel. LOCKSTEP_ATTENTION=own asks for it.
  [[nodiscard]] CudnnAttention* attention() const { return attention_.get(); }
  /// Null: convolutions are our own kernels. LOCKSTEP_CONVOLUTION=own asks for them.
  [[nodiscard]] CudnnConvolution* convolution() const { return convolution_.get(); }

  /// "cuBLASLt 13.1.0; attention: cuDNN 9.19.0; convolutions: cuDNN 9.19.0", or why they are our own kernels.
  [[nodiscard]] const std::string& text() const { return text_; }

  std::map<MatmulKey, MatmulPlan> matmul_plans;

 private:
  DeviceApi& device_;
  Arena workspace_;
  cublasLtHandle_t blas_ = nullptr;
  bool tf32_ = false;
  int tune_ = -1;
  Cudnn cudnn_;
  std::unique_ptr<CudnnAttention> attention_;      ///< in front of cudnn_ when both go
  std::unique_ptr<CudnnConvolution> convolution_;  ///< the same
  std::string text_;
};

/// The context of an Exec on the cuda table, which must have one.
[[nodiscard]] CudaContext& cuda_context(const Exec& exec);

/// For KernelTable.
[[nodiscard]] void* create_cuda_context(DeviceApi* device);
void destroy_cuda_context(void* context);
/// For CudaModule.
[[nodiscard]] const char* describe_cuda_context(void* context);

}  // namespace lockstep::kernels
