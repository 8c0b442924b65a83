// kernels/matmul/matmul_cuda.cpp without a GPU: what it asks of cuBLASLt, answered by the double on the host.
#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "core/error.hpp"
#include "kernels/attention/cudnn_attention.hpp"
#include "kernels/convolution/cudnn_convolution.hpp"
#include "kernels/cuda/cuda_context.hpp"
#include "kernels/declare.hpp"
#include "kernels/matmul/matmul_start.hpp"
#include "tests/kernels/cublaslt/double.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep::kernels {
// The module's other parts: the emulated kernel, and no cuDNN.
namespace cuda {
void matmul_start(const Exec& exec, const MatmulArgs& args) { emu::matmul_start(exec, args); }
}  // namespace cuda
class CudnnGraphs {};
void CudnnRelease::operator()(CudnnGraphs* graphs) const noexcept { delete graphs; }
Cudnn open_cudnn(std::string& text) {
  text = "a test";
  return nullptr;
}
std::unique_ptr<CudnnAttention> CudnnAttention::with(CudnnGraphs& /*graphs*/) { return nullptr; }
std::unique_ptr<CudnnConvolution> CudnnConvolution::with(CudnnGraphs& /*graphs*/) { return nullptr; }
}  // namespace lockstep::kernels

namespace lockstep::testing {
namespace {

/// Integers, whose products and sums are exact in every type here, in memory on a multiple of 256 bytes.
template <class T>
class Matrix {
 public:
  Matrix(DeviceApi& device, std::int64_t count, int seed, std::int64_t offset = 0)
      : arena_(device, static_cast<std::size_t>(count + offset) * sizeof(T)),
        data_(reinterpret_cast<T*>(arena_.data()) + offset),
        count_(count) {
    for (std::int64_t i = 0; i < count; ++i) data_[i] = T(static_cast<float>((i * 7 + seed * 3) % 5 - 2));
  }
  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] std::vector<T> values() const { return {data_, data_ + count_}; }

 private:
  Arena arena_;
  T* data_;
  std::int64_t count_;
};

class MatmulCuda : public ::testing::Test {
 protected:
  MatmulCuda() { cublaslt_double() = {}; }
  void TearDown() override {
    for (const char* name : {"LOCKSTEP_TF32", "LOCKSTEP_GEMM_TUNE", "LOCKSTEP_ATTENTION", "LOCKSTEP_CONVOLUTION"})
      unsetenv(name);
  }
  [[nodiscard]] Exec exec(kernels::CudaContext& context) const {
    return {.device = device_.get(), .context = &context};
  }
  /// A product of fixed sizes; options as bits: transpose a, transpose b, accumulate, bias, spare columns, odd
  /// addresses.
  template <class T, class C>
  void expect_right(kernels::CudaContext& context, int options) const {
    const bool ta = (options & 1) != 0, tb = (options & 2) != 0;
    const std::int64_t spare = (options & 16) != 0 ? 3 : 0, offset = (options & 32) != 0 ? 1 : 0;
    const std::int64_t m = 6, n = 16, k = 8;
    const std::int64_t lda = (ta ? m : k) + spare, ldb = (tb ? k : n) + spare, ldc = n + spare;
    const Matrix<T> a(*device_, (ta ? k : m) * lda, 1, offset), b(*device_, (tb ? n : k) * ldb, 2, offset);
    const Matrix<T> bias(*device_, n, 3, offset);
    const Matrix<C> c(*device_, m * ldc, 4, offset), wanted(*device_, m * ldc, 4, offset);
    MatmulArgs args = {.a = a.data(),
                       .b = b.data(),
                       .c = c.data(),
                       .bias = (options & 8) != 0 ? bias.data() : nullptr,
                       .m = m,
                       .n = n,
                       .k = k,
                       .lda = lda,
                       .ldb = ldb,
                       .ldc = ldc,
                       .transpose_a = ta,
                       .transpose_b = tb,
                       .accumulate = (options & 4) != 0,
                       .dtype = dtype_of<T>,
                       .c_dtype = dtype_of<C>};
    kernels::cuda::matmul(exec(context), args);
    args.c = wanted.data();
    kernels::reference::matmul({}, args);
    EXPECT_EQ(c.values(), wanted.values()) << "options " << options;
  }
  void expect_all_right(kernels::CudaContext& context) const {
    for (int options = 0; options < 64; ++options) {
      expect_right<float, float>(context, options);
      expect_right<bf16, float>(context, options);
      expect_right<bf16, bf16>(context, options);
      expect_right<f16, float>(context, options);
      expect_right<f16, f16>(context, options);
    }
  }

  std::unique_ptr<DeviceApi> device_ = make_cpu_device();
};

TEST_F(MatmulCuda, AsksForTheReferencesProductInEveryLayoutTypeAndAlignment) {
  kernels::CudaContext context(*device_);
  expect_all_right(context);
}

TEST_F(MatmulCuda, DoesWithoutABiasInTheLibrary) {
  cublaslt_double().no_bias = true;
  kernels::CudaContext context(*device_);
  expect_all_right(context);
}

TEST_F(MatmulCuda, AsksOncePerKindOfProduct) {
  kernels::CudaContext context(*device_);
  for (int round = 0; round < 3; ++round) expect_right<bf16, bf16>(context, 8);
  EXPECT_EQ(cublaslt_double().heuristics, 1);
  EXPECT_EQ(cublaslt_double().products, 3);
  expect_right<bf16, bf16>(context, 8 + 4);
  EXPECT_EQ(cublaslt_double().heuristics, 2);
  EXPECT_EQ(cublaslt_double().requested, (std::vector<int>{1, 1})) << "the library's favourite";
}

TEST_F(MatmulCuda, ASumOfNoTermsNeedsNoLibrary) {
  kernels::CudaContext context(*device_);
  const Matrix<float> c(*device_, 6, 1), bias(*device_, 3, 2);
  MatmulArgs args = {.c = c.data(), .bias = bias.data(), .m = 2, .n = 3, .ldb = 3, .ldc = 3, .accumulate = 1};
  auto wanted = c.values();
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += bias.values()[i % 3];
  kernels::cuda::matmul(exec(context), args);
  EXPECT_EQ(c.values(), wanted);
  EXPECT_EQ(cublaslt_double().products, 0);
}

TEST_F(MatmulCuda, KeepsTheFastestOnlyWhereItMay) {
  cublaslt_double().fast_algorithm = 3;
  kernels::CudaContext context(*device_);
  Exec tuned = exec(context);
  tuned.tune = true;
  const Matrix<float> a(*device_, 64, 1), b(*device_, 64, 2), c(*device_, 64, 3), wanted(*device_, 64, 3);
  MatmulArgs args = {.a = a.data(),
                     .b = b.data(),
                     .c = c.data(),
                     .m = 8,
                     .n = 8,
                     .k = 8,
                     .lda = 8,
                     .ldb = 8,
                     .ldc = 8,
                     .accumulate = 1};

  kernels::cuda::matmul(tuned, args);
  EXPECT_EQ(cublaslt_double().last_algorithm, 3);
  EXPECT_EQ(cublaslt_double().requested.back(), 8);
  MatmulArgs other = args;
  other.c = wanted.data();
  kernels::reference::matmul({}, other);
  EXPECT_EQ(c.values(), wanted.values()) << "trying must not touch c";

  Exec invariant = tuned;
  invariant.invariant = true;
  kernels::cuda::matmul(invariant, args);
  EXPECT_EQ(cublaslt_double().last_algorithm, 0) << "the same in every run";
  kernels::cuda::matmul(exec(context), args);
  EXPECT_EQ(cublaslt_double().last_algorithm, 0);
}

TEST_F(MatmulCuda, TimesNothingDuringACapture) {
  cublaslt_double().fast_algorithm = 3;
  cublaslt_double().capturing = true;
  kernels::CudaContext context(*device_);
  Exec tuned = exec(context);
  tuned.tune = true;
  const Matrix<float> a(*device_, 64, 1), b(*device_, 64, 2), c(*device_, 64, 3);
  const MatmulArgs args = {
      .a = a.data(), .b = b.data(), .c = c.data(), .m = 8, .n = 8, .k = 8, .lda = 8, .ldb = 8, .ldc = 8};
  kernels::cuda::matmul(tuned, args);
  EXPECT_EQ(cublaslt_double().products, 1);
  EXPECT_EQ(cublaslt_double().requested, std::vector<int>{1});
}

TEST_F(MatmulCuda, RoundsToTf32OnlyWhenAsked) {
  {
    kernels::CudaContext context(*device_);
    expect_right<float, float>(context, 0);
    EXPECT_EQ(cublaslt_double().last_compute, CUBLAS_COMPUTE_32F);
  }
  setenv("LOCKSTEP_TF32", "1", 1);
  kernels::CudaContext context(*device_);
  expect_right<float, float>(context, 0);
  EXPECT_EQ(cublaslt_double().last_compute, CUBLAS_COMPUTE_32F_FAST_TF32);
  expect_right<bf16, float>(context, 0);
  EXPECT_EQ(cublaslt_double().last_compute, CUBLAS_COMPUTE_32F);
}

TEST_F(MatmulCuda, SettingsThatAreNotKnownAreRefused) {
  const auto refused = [&](const char* name, const char* value) {
    setenv(name, value, 1);
    const std::string text = error_text(ErrorKind::environment, [&] { const kernels::CudaContext context(*device_); });
    EXPECT_EQ(text.rfind(std::string(name) + "=" + value + ": only ", 0), 0U) << text;
    unsetenv(name);
  };
  refused("LOCKSTEP_TF32", "yes");
  refused("LOCKSTEP_GEMM_TUNE", "2");
  refused("LOCKSTEP_ATTENTION", "flash");
  refused("LOCKSTEP_CONVOLUTION", "direct");
}

TEST_F(MatmulCuda, TheContextSaysWhatItUses) {
  {
    const kernels::CudaContext context(*device_);
    EXPECT_EQ(context.text(),
              "cuBLASLt 13.1.0; attention: our own kernel (a test); convolutions: our own kernels (a test)");
  }
  setenv("LOCKSTEP_CONVOLUTION", "own", 1);
  const kernels::CudaContext context(*device_);
  EXPECT_EQ(context.text(),
            "cuBLASLt 13.1.0; attention: our own kernel (a test); convolutions: our own kernels (asked for)");
}

}  // namespace
}  // namespace lockstep::testing
