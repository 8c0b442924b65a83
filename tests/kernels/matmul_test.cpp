#include "kernels/matmul/matmul.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/error.hpp"
#include "core/isa.hpp"
#include "kernels/matmul/onednn_context.hpp"
#include "tests/support/kernel_backends.hpp"

namespace lockstep::testing {
namespace {

/// One product: sizes, layout and options. `spare` widens every leading dimension.
struct Case {
  std::int64_t m, n, k;
  bool transpose_a = false, transpose_b = false, accumulate = false, bias = false;
  std::int64_t spare = 0;
};

template <class T>
std::vector<T> random_values(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = T(normal(random));
  // Zeros, signed zeros, large and tiny values among the ordinary ones.
  const float planted[] = {0.0F, -0.0F, 8.0F, -1.0e-6F};
  for (std::size_t i = 0; i < values.size(); i += 7) values[i] = T(planted[i % 4]);
  return values;
}

double real(float x) { return static_cast<double>(x); }
double real(bf16 x) { return static_cast<double>(static_cast<float>(x)); }
double real(f16 x) { return static_cast<double>(static_cast<float>(x)); }

/// Half a unit in the last place of 1.
template <class T>
constexpr double rounding = 0.0;
template <>
constexpr double rounding<float> = 0x1p-24;
template <>
constexpr double rounding<bf16> = 0x1p-9;
template <>
constexpr double rounding<f16> = 0x1p-12;

class Matmul : public KernelTest {
 protected:
  /// Runs the case and compares every element of c with sums in double made here, within the bound of fp32 summation in
  /// any order, (k + 3) 2^-24 sum |a b|, and two roundings to the type of c (an accumulated c is rounded once more by a
  /// library that adds it after rounding). Columns past n must stay as they were.
  template <class T, class C>
  void expect_right(const Case& c) const {
    SCOPED_TRACE(fmt::format("{} x {} x {}, ta {} tb {} accumulate {} bias {} spare {}, {} -> {}", c.m, c.n, c.k,
                             c.transpose_a, c.transpose_b, c.accumulate, c.bias, c.spare, to_string(dtype_of<T>),
                             to_string(dtype_of<C>)));
    const std::int64_t lda = (c.transpose_a ? c.m : c.k) + c.spare, ldb = (c.transpose_b ? c.k : c.n) + c.spare;
    const std::int64_t ldc = c.n + c.spare;
    const auto a = random_values<T>((c.transpose_a ? c.k : c.m) * lda, 1);
    const auto b = random_values<T>((c.transpose_b ? c.n : c.k) * ldb, 2);
    const auto bias = random_values<T>(c.n, 3);
    const auto before = random_values<C>(c.m * ldc, 4);
    const Array<T> device_a(session(), a), device_b(session(), b), device_bias(session(), bias);
    const Array<C> device_c(session(), before);
    kernels::matmul(exec(), {.a = device_a.data(),
                             .b = device_b.data(),
                             .c = device_c.data(),
                             .bias = c.bias ? device_bias.data() : nullptr,
                             .m = c.m,
                             .n = c.n,
                             .k = c.k,
                             .lda = lda,
                             .ldb = ldb,
                             .ldc = ldc,
                             .transpose_a = c.transpose_a,
                             .transpose_b = c.transpose_b,
                             .accumulate = c.accumulate,
                             .dtype = dtype_of<T>,
                             .c_dtype = dtype_of<C>});
    const auto got = device_c.host();
    for (std::int64_t i = 0; i < c.m; ++i)
      for (std::int64_t j = 0; j < ldc; ++j) {
        const auto at = static_cast<std::size_t>(i * ldc + j);
        if (j >= c.n) {
          ASSERT_EQ(real(got[at]), real(before[at])) << "row " << i << ": padding column " << j << " was written";
          continue;
        }
        double sum = 0.0, size = 0.0;
        for (std::int64_t p = 0; p < c.k; ++p) {
          const double x = real(a[static_cast<std::size_t>(c.transpose_a ? p * lda + i : i * lda + p)]) *
                           real(b[static_cast<std::size_t>(c.transpose_b ? j * ldb + p : p * ldb + j)]);
          sum += x;
          size += std::fabs(x);
        }
        if (c.bias) sum += real(bias[static_cast<std::size_t>(j)]);
        if (c.accumulate) sum += real(before[at]);
        // k products and their sum in fp32 in any order (Higham, section 3.1), the result rounded to C, and a speck of
        // zero.
        const double bound = static_cast<double>(c.k + 3) * 0x1p-24 * (size + std::fabs(sum)) +
                             2.0 * rounding<C> * (std::fabs(sum) + std::fabs(real(before[at]))) + 1e-7;
        ASSERT_NEAR(real(got[at]), sum, bound) << "row " << i << " column " << j;
      }
  }

  void expect_right_in_every_type(const Case& c) const {
    expect_right<float, float>(c);
    expect_right<bf16, float>(c);
    expect_right<bf16, bf16>(c);
    expect_right<f16, float>(c);
    expect_right<f16, f16>(c);
  }
};

TEST_P(Matmul, EqualsSumsInDoubleForEveryLayoutAndOption) {
  const std::int64_t sizes[][3] = {{1, 1, 1}, {5, 7, 3}, {31, 32, 33}, {17, 65, 129}, {33, 48, 257}};
  for (const auto& [m, n, k] : sizes)
    for (int options = 0; options < 16; ++options)
      expect_right_in_every_type({.m = m,
                                  .n = n,
                                  .k = k,
                                  .transpose_a = (options & 1) != 0,
                                  .transpose_b = (options & 2) != 0,
                                  .accumulate = (options & 4) != 0,
                                  .bias = (options & 8) != 0,
                                  .spare = options % 3});
}

TEST_P(Matmul, PassesTheBoundsOfTheWideningBlocks) {
  expect_right_in_every_type({.m = 2, .n = 1029, .k = 2051, .accumulate = true, .bias = true});
  expect_right_in_every_type({.m = 1027, .n = 3, .k = 5, .transpose_a = true, .transpose_b = true, .bias = true});
}

/// Gradients of weights: whole blocks and edges of every panel, into which our own tile kernel cuts them.
TEST_P(Matmul, GradientsOfWeightsAreRightAtTheEdgesOfPanels) {
  const bool plain = GetParam().kind != Backend::Kind::cpu;  // whose loops take long
  for (const bool accumulate : {false, true}) {
    expect_right<bf16, float>({.m = 64, .n = 96, .k = 300, .transpose_a = true, .accumulate = accumulate});
    expect_right<bf16, float>({.m = 65, .n = 33, .k = 513, .transpose_a = true, .accumulate = accumulate, .spare = 3});
    if (!plain)
      expect_right<bf16, float>({.m = 34, .n = 1570, .k = 270, .transpose_a = true, .accumulate = accumulate});
  }
}

TEST_P(Matmul, EmptySumIsTheBiasAndAnEmptyResultIsNothing) {
  expect_right_in_every_type({.m = 3, .n = 5, .k = 0, .bias = true});
  expect_right_in_every_type({.m = 3, .n = 5, .k = 0, .accumulate = true});
  expect_right_in_every_type({.m = 0, .n = 5, .k = 2});
  expect_right_in_every_type({.m = 4, .n = 0, .k = 2});
}

TEST_P(Matmul, ANewVersionOfAWeightIsSeen) {
  const std::int64_t n = 64;
  const auto a = random_values<bf16>(n * n, 1);
  const auto first = random_values<bf16>(n * n, 2), second = random_values<bf16>(n * n, 5);
  const Array<bf16> device_a(session(), a), weight(session(), first), other(session(), second);
  const Array<float> device_c(session(), static_cast<std::size_t>(n * n));
  const auto product = [&](const void* b, std::uint64_t version, bool transpose) {
    kernels::matmul(exec(), {.a = device_a.data(),
                             .b = b,
                             .c = device_c.data(),
                             .m = n,
                             .n = n,
                             .k = n,
                             .lda = n,
                             .ldb = n,
                             .ldc = n,
                             .transpose_b = transpose,
                             .dtype = DType::bf16,
                             .c_dtype = DType::f32,
                             .b_param = 0,
                             .b_version = version});
    return device_c.host();
  };
  for (const bool transpose : {false, true}) {
    const auto old_values = product(weight.data(), 1, transpose);
    EXPECT_EQ(product(weight.data(), 1, transpose), old_values);
    // The same memory with new contents, in both directions as a training step uses it.
    session().device().copy(weight.data(), second.data(), second.size() * sizeof(bf16), exec().stream);
    session().device().synchronize(exec().stream);
    const auto new_values = product(weight.data(), 2, transpose);
    EXPECT_EQ(new_values, product(other.data(), 7, transpose));
    EXPECT_NE(new_values, old_values);
    session().device().copy(weight.data(), first.data(), first.size() * sizeof(bf16), exec().stream);
    session().device().synchronize(exec().stream);
    EXPECT_EQ(product(weight.data(), 3, transpose), old_values);
  }
}

/// A store that gathers weights for each use puts one where another was.
TEST_P(Matmul, WeightsThatTakeTurnsAtOneAddressAreNotMixedUp) {
  const std::int64_t n = 64;
  const Array<bf16> a(session(), random_values<bf16>(n * n, 1));
  const std::vector<bf16> weights[] = {random_values<bf16>(n * n, 2), random_values<bf16>(n * n, 5)};
  const Array<bf16> place(session(), weights[0]);
  const Array<float> c(session(), static_cast<std::size_t>(n * n));
  const auto product = [&](int weight, bool known) {
    session().device().copy(place.data(), weights[weight].data(), place.size() * sizeof(bf16), exec().stream);
    kernels::matmul(exec(), {.a = a.data(),
                             .b = place.data(),
                             .c = c.data(),
                             .m = n,
                             .n = n,
                             .k = n,
                             .lda = n,
                             .ldb = n,
                             .ldc = n,
                             .dtype = DType::bf16,
                             .c_dtype = DType::f32,
                             .b_param = known ? weight : -1,
                             .b_version = 1});
    return c.host();
  };
  for (int use = 0; use < 2; ++use)
    for (const int weight : {0, 1})
      // A library may sum in another order over a packed copy.
      EXPECT_THAT(product(weight, true), ::testing::Pointwise(::testing::FloatNear(1e-3F), product(weight, false)))
          << use << ", " << weight;
}

TEST_P(Matmul, PackedWeightsTakeWhatWasSaidBefore) {
  const std::int64_t n = 64;
  const Array<bf16> data(session(), random_values<bf16>(n * n, 1));
  const Array<float> c(session(), static_cast<std::size_t>(n * n));
  const MatmulArgs planned = {
      .m = n, .n = n, .k = n, .lda = n, .ldb = n, .ldc = n, .dtype = DType::bf16, .c_dtype = DType::f32, .b_param = 3};

  Exec invariant = exec();
  invariant.invariant = true;
  EXPECT_EQ(kernels::packed_weight_bytes(invariant, {planned}), 0U) << "their products are not the library's";

  const std::size_t bytes = kernels::packed_weight_bytes(exec(), {planned, planned});
  MatmulArgs args = planned;
  args.a = args.b = data.data();
  args.c = c.data();
  kernels::matmul(exec(), args);

  const bool packs =
      current_bf16_products() != Bf16Products::widened && exec().table == &kernels::cpu_table(Isa::avx512);
  EXPECT_EQ(bytes > 0, packs) << "elsewhere nothing is packed";
  if (exec().context != nullptr && !session().on_gpu()) {
    EXPECT_EQ(static_cast<const kernels::OnednnContext*>(exec().context)->packed_bytes(), bytes);
  }
}

TEST_P(Matmul, RepeatsItselfBitForBit) {
  const std::int64_t m = 96, n = 130, k = 700;
  const Array<bf16> a(session(), random_values<bf16>(m * k, 1)), b(session(), random_values<bf16>(k * n, 2));
  std::vector<float> first;
  for (int round = 0; round < 3; ++round) {
    const Array<float> c(session(), static_cast<std::size_t>(m * n));
    kernels::matmul(exec(), {.a = a.data(),
                             .b = b.data(),
                             .c = c.data(),
                             .m = m,
                             .n = n,
                             .k = k,
                             .lda = m,
                             .ldb = n,
                             .ldc = n,
                             .transpose_a = 1,
                             .accumulate = 1,
                             .dtype = DType::bf16,
                             .c_dtype = DType::f32});
    if (round == 0) first = c.host();
    EXPECT_EQ(c.host(), first);
  }
}

/// A product of random values, accumulated to ones, with as many threads as `exec` has.
template <class T>
std::vector<float> product_of(const Session& session, const Exec& exec, std::int64_t m, std::int64_t n, std::int64_t k,
                              bool transpose_a, bool transpose_b) {
  const Array<T> a(session, random_values<T>(m * k, 1)), b(session, random_values<T>(k * n, 2));
  const Array<float> c(session, std::vector<float>(static_cast<std::size_t>(m * n), 1.0F));
  kernels::matmul(exec, {.a = a.data(),
                         .b = b.data(),
                         .c = c.data(),
                         .m = m,
                         .n = n,
                         .k = k,
                         .lda = transpose_a ? m : k,
                         .ldb = transpose_b ? k : n,
                         .ldc = n,
                         .transpose_a = transpose_a ? 1 : 0,
                         .transpose_b = transpose_b ? 1 : 0,
                         .accumulate = 1,
                         .dtype = dtype_of<T>,
                         .c_dtype = DType::f32});
  return c.host();
}

TEST_P(Matmul, GradientsOfWeightsInTilesHaveTheSameBitsOnAnyNumberOfThreads) {
  if (!has_amx_bf16() || exec().table != &kernels::cpu_table(Isa::avx512)) GTEST_SKIP() << "no tiles here";
  Exec exec = session().exec();
  exec.threads = 1;
  const auto first = product_of<bf16>(session(), exec, 200, 130, 700, true, false);
  for (const int threads : {2, 3, 8}) {
    exec.threads = threads;
    EXPECT_EQ(product_of<bf16>(session(), exec, 200, 130, 700, true, false), first) << threads << " threads";
  }
}

template <class T>
void expect_invariant_products(const Session& session, bool library) {
  struct Sizes {
    std::int64_t m, n, k;
  };
  // The last two are what a library cuts in k: a small result with a long sum. Plain loops take long for them.
  std::vector<Sizes> sizes = {{1, 1, 3}, {130, 515, 64}, {384, 384, 2048}, {33, 65, 5000}};
  if (!library) sizes.resize(2);
  for (const Sizes& size : sizes)
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true}) {
        SCOPED_TRACE(fmt::format("{} x {} x {}, {}, {}", size.m, size.n, size.k, transpose_a, transpose_b));
        Exec exec = session.exec();
        exec.threads = 1;
        const auto plain = product_of<T>(session, exec, size.m, size.n, size.k, transpose_a, transpose_b);
        exec.invariant = true;
        const auto first = product_of<T>(session, exec, size.m, size.n, size.k, transpose_a, transpose_b);
        // Both are sums of k terms in fp32, in another order: terms of about 1, and up to 64 where the planted 8 meet.
        const double tolerance = 4 * static_cast<double>(size.k) * 1.2e-7 * std::sqrt(static_cast<double>(size.k));
        for (std::size_t i = 0; i < first.size(); ++i) ASSERT_NEAR(first[i], plain[i], tolerance) << "element " << i;

        for (const int threads : {2, 3, 8}) {
          exec.threads = threads;
          EXPECT_EQ(product_of<T>(session, exec, size.m, size.n, size.k, transpose_a, transpose_b), first)
              << threads << " threads";
        }
      }
}

TEST_P(Matmul, AnInvariantProductHasTheSameBitsOnAnyNumberOfThreads) {
  const bool library = GetParam().kind == Backend::Kind::cpu;
  expect_invariant_products<float>(session(), library);
  expect_invariant_products<bf16>(session(), library);
  expect_invariant_products<f16>(session(), library);
}

template <class T>
void expect_overflow_reaches_its_row(const Session& session, float planted) {
  const std::int64_t n = 48;
  auto a = std::vector<T>(static_cast<std::size_t>(n * n), T(0.5F));
  const std::vector<T> b = a;
  a[static_cast<std::size_t>(5 * n + 11)] = T(planted);
  const Array<T> device_a(session, a), device_b(session, b);
  const Array<float> c(session, static_cast<std::size_t>(n * n));
  kernels::matmul(session.exec(), {.a = device_a.data(),
                                   .b = device_b.data(),
                                   .c = c.data(),
                                   .m = n,
                                   .n = n,
                                   .k = n,
                                   .lda = n,
                                   .ldb = n,
                                   .ldc = n,
                                   .dtype = dtype_of<T>,
                                   .c_dtype = DType::f32});
  const auto got = c.host();
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      ASSERT_EQ(std::isfinite(got[static_cast<std::size_t>(i * n + j)]), i != 5) << "row " << i << " column " << j;
}

TEST_P(Matmul, InfinityAndNanReachExactlyTheirRow) {
  for (const float planted : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    expect_overflow_reaches_its_row<float>(session(), planted);
    expect_overflow_reaches_its_row<bf16>(session(), planted);
    expect_overflow_reaches_its_row<f16>(session(), planted);
  }
}

TEST_P(Matmul, RefusesImpossibleArguments) {
  const Array<float> data(session(), std::size_t{16});
  const MatmulArgs good = {
      .a = data.data(), .b = data.data(), .c = data.data(), .m = 2, .n = 2, .k = 2, .lda = 2, .ldb = 2, .ldc = 2};
  MatmulArgs narrow = good;
  narrow.ldb = 1;
  EXPECT_THROW(kernels::matmul(exec(), narrow), Error);
  MatmulArgs mixed = good;
  mixed.c_dtype = DType::bf16;
  EXPECT_THROW(kernels::matmul(exec(), mixed), Error);
  MatmulArgs missing = good;
  missing.c = nullptr;
  EXPECT_THROW(kernels::matmul(exec(), missing), Error);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Matmul, all_backends(), backend_name);

/// The library packs bf16 weights on every CPU with AVX-512; our products ask it to where it multiplies bf16 as such.
class PackedWeights : public ::testing::Test {
 protected:
  void SetUp() override {
    if (current_isa() != Isa::avx512) GTEST_SKIP() << "the library has no bf16 products below AVX-512";
  }
  /// The product [32, 64] [64, 96] with a weight.
  static MatmulArgs product(const std::vector<bf16>& b, std::int32_t param) {
    return {.b = b.data(),
            .m = 32,
            .n = 96,
            .k = 64,
            .lda = 64,
            .ldb = 96,
            .ldc = 96,
            .dtype = DType::bf16,
            .c_dtype = DType::f32,
            .b_param = param,
            .b_version = 1};
  }
  bool pack(const MatmulArgs& args) {
    return context_.packed_weight(args, context_.product(args, 1)).get(true) != nullptr;
  }
  /// The packed copy, back in rows.
  std::vector<float> unpacked(const MatmulArgs& args) {
    dnnl::memory packed = context_.packed_weight(args, context_.product(args, 1));
    std::vector<bf16> rows(static_cast<std::size_t>(args.k * args.n));
    dnnl::memory to(kernels::weight_desc(args, false), packed.get_engine(), rows.data());
    dnnl::reorder(packed, to).execute(context_.stream(), packed, to);
    context_.stream().wait();
    return widened(rows);
  }
  static std::vector<float> widened(const std::vector<bf16>& values) { return {values.begin(), values.end()}; }

  const std::vector<bf16> first_ = random_values<bf16>(64 * 96, 1), second_ = random_values<bf16>(64 * 96, 2);
  kernels::OnednnContext context_;
};

TEST_F(PackedWeights, AreMadeOncePerVersion) {
  MatmulArgs args = product(first_, 0);
  EXPECT_TRUE(pack(args));
  EXPECT_TRUE(pack(args));
  EXPECT_EQ(context_.packings(), 1U);
  args.b_version = 2;
  EXPECT_TRUE(pack(args));
  EXPECT_EQ(context_.packings(), 2U);
  const std::size_t bytes = context_.packed_bytes();
  EXPECT_GE(bytes, first_.size() * sizeof(bf16));
  // A new version takes the place of the old one.
  args.b_version = 3;
  EXPECT_TRUE(pack(args));
  EXPECT_EQ(context_.packed_bytes(), bytes);
}

TEST_F(PackedWeights, AreFoundByNumberWhateverLiesWhere) {
  std::vector<bf16> place = first_;
  EXPECT_EQ(unpacked(product(place, 0)), widened(first_));

  // Another weight of the same shape and version where the first one was.
  place = second_;
  EXPECT_EQ(unpacked(product(place, 1)), widened(second_));
  EXPECT_EQ(context_.packings(), 2U);

  // The first one again, elsewhere: known.
  const std::vector<bf16> elsewhere = first_;
  EXPECT_EQ(unpacked(product(elsewhere, 0)), widened(first_));
  EXPECT_EQ(context_.packings(), 2U);

  // And in a new version from there.
  MatmulArgs changed = product(second_, 0);
  changed.b_version = 2;
  EXPECT_EQ(unpacked(changed), widened(second_));
}

TEST_F(PackedWeights, TakeAsManyBytesAsTheListOfProductsSays) {
  MatmulArgs back = product(first_, 0);  // the same weight transposed, as in the backward pass
  back.n = 64;
  back.k = 96;
  back.lda = 96;
  back.ldc = 64;
  back.transpose_b = 1;
  MatmulArgs single = product(first_, 5);
  single.dtype = DType::f32;
  const std::vector<MatmulArgs> products = {product(first_, 0), product(second_, 1), back,
                                            product(first_, 0), product(first_, -1), single};

  const std::size_t said = context_.packed_bytes_of(products, 1);

  EXPECT_EQ(context_.packed_bytes(), 0U) << "nothing is packed by asking";
  for (const MatmulArgs& args : {product(first_, 0), product(second_, 1), back}) EXPECT_TRUE(pack(args));
  EXPECT_EQ(context_.packed_bytes(), said);
  EXPECT_GE(said, 3 * first_.size() * sizeof(bf16));
}

}  // namespace
}  // namespace lockstep::testing
