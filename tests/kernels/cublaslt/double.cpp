#include "tests/kernels/cublaslt/double.hpp"

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "kernels/element.hpp"

namespace {

using lockstep::DType;
using lockstep::testing::cublaslt_double;

constexpr std::uint64_t algorithm_mark = 0x6c74;  // an algorithm that was never proposed has none
constexpr int known_algorithms = 5;

struct Desc {
  cublasComputeType_t compute;
  std::int32_t transpose_a, transpose_b, bias_type;
  std::uint32_t epilogue;
  const void* bias;
};
struct Layout {
  std::int32_t type;
  std::int64_t rows, cols, ld;
};
struct Preference {
  std::uint64_t workspace;
  std::uint32_t a, b, c, d, reduction;
};

// The opaque structs hold ours.
template <class T, class Opaque>
T& as(Opaque* opaque) {
  static_assert(sizeof(T) <= sizeof(Opaque));
  return *static_cast<T*>(static_cast<void*>(opaque->data));
}
template <class T, class Opaque>
cublasStatus_t make(Opaque** to, const T& value) {
  *to = new Opaque{};
  std::memcpy((*to)->data, &value, sizeof value);
  return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t set(T& to, const void* from, std::size_t bytes) {
  if (from == nullptr || bytes != sizeof to) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

bool known(std::int32_t type) { return type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF; }
DType dtype_of_cuda(std::int32_t type) {
  if (type == CUDA_R_16BF) return DType::bf16;
  return type == CUDA_R_16F ? DType::f16 : DType::f32;
}
double at(const void* data, const Layout& layout, std::int64_t i, std::int64_t j, bool transpose) {
  if (transpose) std::swap(i, j);
  return lockstep::kernels::element(data, dtype_of_cuda(layout.type), i + j * layout.ld);
}
bool on_grid(const void* data, std::size_t bytes) { return reinterpret_cast<std::uintptr_t>(data) % bytes == 0; }

/// The manual's conditions on the shapes and types of a product.
bool allowed(const Desc& desc, const Layout& a, const Layout& b, const Layout& d) {
  const bool ta = desc.transpose_a == CUBLAS_OP_T, tb = desc.transpose_b == CUBLAS_OP_T;
  const bool shapes = (ta ? a.cols : a.rows) == d.rows && (ta ? a.rows : a.cols) == (tb ? b.cols : b.rows) &&
                      (tb ? b.rows : b.cols) == d.cols && a.ld >= a.rows && b.ld >= b.rows && d.ld >= d.rows &&
                      a.rows > 0 && a.cols > 0 && d.rows > 0 && d.cols > 0;
  const bool types = known(a.type) && a.type == b.type && (d.type == a.type || d.type == CUDA_R_32F);
  const bool tf32 = desc.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && a.type == CUDA_R_32F;
  const bool bias = desc.epilogue == CUBLASLT_EPILOGUE_DEFAULT ||
                    (desc.epilogue == CUBLASLT_EPILOGUE_BIAS && desc.bias_type == d.type && desc.bias != nullptr &&
                     on_grid(desc.bias, 16));
  return shapes && types && bias && (desc.compute == CUBLAS_COMPUTE_32F || tf32);
}

}  // namespace

namespace lockstep::testing {
CublasLtDouble& cublaslt_double() {
  static CublasLtDouble state;
  return state;
}
}  // namespace lockstep::testing

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new int(0));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<int*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
std::size_t cublasLtGetVersion() { return 130100; }
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : "a status of the double";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_INVALID_VALUE;
  return make(desc, Desc{compute, CUBLAS_OP_N, CUBLAS_OP_N, CUDA_R_32F, CUBLASLT_EPILOGUE_DEFAULT, nullptr});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete desc;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* from, std::size_t bytes) {
  Desc& to = as<Desc>(desc);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(to.transpose_a, from, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(to.transpose_b, from, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(to.epilogue, from, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return set(to.bias_type, from, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(to.bias, from, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t cols, std::int64_t ld) {
  return make(layout, Layout{type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols), ld});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return make(preference, Preference{0, 256, 256, 256, 256, CUBLASLT_REDUCTION_SCHEME_MASK});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* from,
                                                    std::size_t bytes) {
  Preference& to = as<Preference>(preference);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set(to.workspace, from, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set(to.reduction, from, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set(to.a, from, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set(to.b, from, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set(to.c, from, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set(to.d, from, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

// An algorithm remembers which alignments it was promised.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t /*handle*/, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t /*c*/, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  *found = 0;
  ++cublaslt_double().heuristics;
  cublaslt_double().requested.push_back(requested);
  const Desc& product = as<Desc>(desc);
  const Preference& promised = as<Preference>(preference);
  if (!allowed(product, as<Layout>(a), as<Layout>(b), as<Layout>(d)) || promised.c != promised.d ||
      promised.reduction != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (cublaslt_double().no_bias && product.epilogue != CUBLASLT_EPILOGUE_DEFAULT) return CUBLAS_STATUS_NOT_SUPPORTED;
  for (; *found < requested && *found < known_algorithms; ++*found) {
    cublasLtMatmulHeuristicResult_t& result = results[*found];
    result = {};
    result.state = CUBLAS_STATUS_SUCCESS;
    result.workspaceSize = promised.workspace;
    const std::uint64_t data[] = {algorithm_mark, static_cast<std::uint64_t>(*found), promised.a, promised.b,
                                  promised.d};
    std::memcpy(result.algo.data, data, sizeof data);
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t /*handle*/, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t /*stream*/) {
  const Desc& product = as<Desc>(desc);
  const Layout &left = as<Layout>(a_layout), &right = as<Layout>(b_layout), &out = as<Layout>(d_layout);
  if (algo == nullptr || algo->data[0] != algorithm_mark || !allowed(product, left, right, out) || c != d ||
      c_layout != d_layout || workspace == nullptr || workspace_bytes != std::size_t{32} << 20)
    return CUBLAS_STATUS_INVALID_VALUE;
  const auto every_column = [](const void* data, const Layout& layout, std::uint64_t promised) {
    const auto step = static_cast<std::size_t>(layout.ld) * lockstep::size_of(dtype_of_cuda(layout.type));
    return on_grid(data, promised) && step % promised == 0;
  };
  if (!every_column(a, left, algo->data[2]) || !every_column(b, right, algo->data[3]) ||
      !every_column(d, out, algo->data[4]))
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool ta = product.transpose_a == CUBLAS_OP_T, tb = product.transpose_b == CUBLAS_OP_T;
  const double alpha_value = static_cast<double>(*static_cast<const float*>(alpha));
  const double beta_value = static_cast<double>(*static_cast<const float*>(beta));
  const std::int64_t depth = ta ? left.rows : left.cols;
  for (std::int64_t j = 0; j < out.cols; ++j)
    for (std::int64_t i = 0; i < out.rows; ++i) {
      double sum = 0.0;
      for (std::int64_t p = 0; p < depth; ++p) sum += at(a, left, i, p, ta) * at(b, right, p, j, tb);
      sum *= alpha_value;
      // The manual: with beta = 0 c is not read.
      if (beta_value != 0.0) sum += beta_value * at(d, out, i, j, false);
      if (product.epilogue == CUBLASLT_EPILOGUE_BIAS)
        sum += lockstep::kernels::element(product.bias, dtype_of_cuda(product.bias_type), i);
      lockstep::kernels::set_element(d, dtype_of_cuda(out.type), i + j * out.ld, sum);
    }
  auto& state = cublaslt_double();
  ++state.products;
  state.last_algorithm = static_cast<int>(algo->data[1]);
  state.last_compute = product.compute;
  if (state.last_algorithm != state.fast_algorithm) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return CUBLAS_STATUS_SUCCESS;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t /*stream*/, cudaStreamCaptureStatus* status) {
  *status = cublaslt_double().capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

}  // extern "C"
