#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "core/error.hpp"
#include "core/out_of_memory.hpp"
#include "kernels/cuda/cuda_context.hpp"
#include "kernels/declare.hpp"
#include "kernels/matmul/matmul_start.hpp"

namespace lockstep::kernels::cuda {
namespace {

constexpr int most_candidates = 8;

cudaDataType_t data_type(DType dtype) {
  if (dtype == DType::bf16) return CUDA_R_16BF;
  if (dtype == DType::f16) return CUDA_R_16F;
  return CUDA_R_32F;
}

void check(cublasStatus_t status, const char* what, const MatmulKey& key) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(ErrorKind::environment, "cuBLASLt: {} of a {} x {} x {} product in {} failed: {}", what, key.cols, key.rows,
         key.depth, to_string(key.dtype), cublasLtGetStatusString(status));
}

MatmulPlan::Layout layout(cudaDataType_t type, std::int64_t rows, std::int64_t cols, std::int64_t ld,
                          const MatmulKey& key) {
  cublasLtMatrixLayout_t result = nullptr;
  check(
      cublasLtMatrixLayoutCreate(&result, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols), ld),
      "the layout of a matrix", key);
  return MatmulPlan::Layout(result);
}

template <class T>
void set(MatmulPlan& plan, cublasLtMatmulDescAttributes_t attribute, T value, const MatmulKey& key) {
  check(cublasLtMatmulDescSetAttribute(plan.desc.get(), attribute, &value, sizeof value), "an option", key);
}

/// The description, without an algorithm.
MatmulPlan describe(const MatmulKey& key, bool tf32) {
  MatmulPlan plan;
  cublasLtMatmulDesc_t desc = nullptr;
  // Sums are fp32 in both; the second may cut fp32 factors to 11 bits.
  const cublasComputeType_t compute =
      key.dtype == DType::f32 && tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  check(cublasLtMatmulDescCreate(&desc, compute, CUDA_R_32F), "the description", key);
  plan.desc.reset(desc);
  set(plan, CUBLASLT_MATMUL_DESC_TRANSA, key.left_transpose ? CUBLAS_OP_T : CUBLAS_OP_N, key);
  set(plan, CUBLASLT_MATMUL_DESC_TRANSB, key.right_transpose ? CUBLAS_OP_T : CUBLAS_OP_N, key);
  const cudaDataType_t type = data_type(key.dtype);
  if (key.bias) {
    set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS, key);
    set(plan, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type, key);
  }
  const bool lt = key.left_transpose, rt = key.right_transpose;
  plan.left = layout(type, lt ? key.depth : key.rows, lt ? key.rows : key.depth, key.left_ld, key);
  plan.right = layout(type, rt ? key.cols : key.depth, rt ? key.depth : key.cols, key.right_ld, key);
  plan.out = layout(data_type(key.out_dtype), key.rows, key.cols, key.out_ld, key);
  return plan;
}

class Preference {
 public:
  explicit Preference(const MatmulKey& key) {
    check(cublasLtMatmulPreferenceCreate(&handle_), "the preferences", key);
    put(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{CudaContext::workspace_bytes}, key);
    put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(key.left_alignment), key);
    put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(key.right_alignment), key);
    put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(key.out_alignment), key);
    put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(key.out_alignment), key);
    // Where k is split, the parts are added in fp32, not in the type of c.
    put(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE),
        key);
  }
  Preference(const Preference&) = delete;
  Preference& operator=(const Preference&) = delete;
  ~Preference() { (void)cublasLtMatmulPreferenceDestroy(handle_); }
  [[nodiscard]] cublasLtMatmulPreference_t get() const { return handle_; }

 private:
  template <class T>
  void put(cublasLtMatmulPreferenceAttributes_t attribute, T value, const MatmulKey& key) {
    check(cublasLtMatmulPreferenceSetAttribute(handle_, attribute, &value, sizeof value), "a preference", key);
  }
  cublasLtMatmulPreference_t handle_ = nullptr;
};

cublasStatus_t enqueue(const CudaContext& context, const MatmulPlan& plan, const cublasLtMatmulAlgo_t& algo,
                       const ColumnMajorProduct& product, void* out, bool accumulate, cudaStream_t stream) {
  const float one = 1.0F, beta = accumulate ? 1.0F : 0.0F;
  return cublasLtMatmul(context.blas(), plan.desc.get(), &one, product.left.data, plan.left.get(), product.right.data,
                        plan.right.get(), &beta, out, plan.out.get(), out, plan.out.get(), &algo, context.workspace(),
                        CudaContext::workspace_bytes, stream);
}

/// Milliseconds of one product that goes elsewhere than into c, the least of three; nothing if it cannot be run.
std::optional<double> time_of(const CudaContext& context, const MatmulPlan& plan, const cublasLtMatmulAlgo_t& algo,
                              const ColumnMajorProduct& product, void* elsewhere, bool accumulate, StreamRef stream) {
  DeviceApi& device = context.device();
  const EventRef begin = device.make_timed_event(), end = device.make_timed_event();
  std::optional<double> best;
  for (int round = 0; round < 4; ++round) {  // the first one warms up
    device.record(begin, stream);
    const cublasStatus_t status =
        enqueue(context, plan, algo, product, elsewhere, accumulate, static_cast<cudaStream_t>(stream.handle));
    device.record(end, stream);
    device.synchronize(end);
    if (status != CUBLAS_STATUS_SUCCESS) {
      best.reset();
      break;
    }
    const double time = device.elapsed_ms(begin, end);
    if (round > 0) best = best ? std::min(*best, time) : time;
  }
  device.destroy(begin);
  device.destroy(end);
  return best;
}

bool is_capturing(StreamRef stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(static_cast<cudaStream_t>(stream.handle), &status) != cudaSuccess ||
         status != cudaStreamCaptureStatusNone;
}

/// The fastest of the candidates; the library's own favourite where there is no memory to try them in.
cublasLtMatmulAlgo_t fastest(const Exec& exec, const MatmulPlan& plan, const MatmulKey& key,
                             const ColumnMajorProduct& product,
                             const std::vector<cublasLtMatmulHeuristicResult_t>& candidates) {
  const CudaContext& context = cuda_context(exec);
  cublasLtMatmulAlgo_t chosen = candidates.front().algo;
  try {
    const Arena elsewhere(context.device(),
                          static_cast<std::size_t>(product.out_ld * product.cols) * size_of(key.out_dtype));
    std::optional<double> least;
    for (const cublasLtMatmulHeuristicResult_t& candidate : candidates) {
      const auto time = time_of(context, plan, candidate.algo, product, elsewhere.data(), key.accumulate, exec.stream);
      if (time && (!least || *time < *least)) {
        least = time;
        chosen = candidate.algo;
      }
    }
  } catch (const OutOfMemory&) {
  }
  return chosen;
}

/// Nothing if the library has no way to do such a product.
std::optional<MatmulPlan> make_plan(const Exec& exec, const MatmulKey& key, const ColumnMajorProduct& product) {
  const bool time_them = key.tuned && !is_capturing(exec.stream);
  const CudaContext& context = cuda_context(exec);
  MatmulPlan plan = describe(key, context.tf32());
  if (key.bias) set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias, key);
  const Preference preference(key);
  std::vector<cublasLtMatmulHeuristicResult_t> candidates(most_candidates);
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      context.blas(), plan.desc.get(), plan.left.get(), plan.right.get(), plan.out.get(), plan.out.get(),
      preference.get(), time_them ? most_candidates : 1, candidates.data(), &found);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "a way", key);
  candidates.resize(static_cast<std::size_t>(found));
  std::erase_if(candidates, [](const auto& candidate) { return candidate.state != CUBLAS_STATUS_SUCCESS; });
  if (candidates.empty()) return std::nullopt;
  plan.algo = candidates.size() == 1 ? candidates.front().algo : fastest(exec, plan, key, product, candidates);
  return plan;
}

/// Whether it could be done; what it needs is made when such a product is met first.
bool multiply(const Exec& exec, const MatmulArgs& args, bool fused_bias) {
  CudaContext& context = cuda_context(exec);
  const ColumnMajorProduct product = column_major(args);
  const MatmulKey key = matmul_key(args, fused_bias, context.tune(exec));
  auto found = context.matmul_plans.find(key);
  if (found == context.matmul_plans.end()) {
    std::optional<MatmulPlan> plan = make_plan(exec, key, product);
    if (!plan) return false;
    found = context.matmul_plans.emplace(key, std::move(*plan)).first;
  }
  MatmulPlan& plan = found->second;
  if (fused_bias) set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias, key);
  check(enqueue(context, plan, plan.algo, product, product.out, key.accumulate,
                static_cast<cudaStream_t>(exec.stream.handle)),
        "the start", key);
  return true;
}

}  // namespace

void matmul(const Exec& exec, const MatmulArgs& args) {
  if (args.k == 0) return matmul_start(exec, args);
  if (can_fuse_bias(args) && multiply(exec, args, true)) return;
  MatmulArgs rest = args;
  if (args.bias != nullptr) {
    matmul_start(exec, args);
    rest.bias = nullptr;
    rest.accumulate = 1;
  }
  if (!multiply(exec, rest, false))
    fail(ErrorKind::environment, "cuBLASLt has no way to do a {} x {} x {} product of {} into {} (transposed: {} {})",
         args.m, args.n, args.k, to_string(args.dtype), to_string(args.c_dtype), args.transpose_a, args.transpose_b);
}

}  // namespace lockstep::kernels::cuda
