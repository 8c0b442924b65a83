// What every implementation promises about scratch: it stays inside what its table asks for, and reads nothing there
// that it did not write.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "core/error.hpp"
#include "tests/support/activations.hpp"

namespace lockstep::testing {
namespace {

constexpr std::size_t guard = 4096;  // bytes on either side

/// Runs a kernel, whose results replace what was in `outputs`, in scratch of different surroundings and contents.
template <class Args>
void expect_inside(const Session& session, void (*kernel)(const Exec&, const Args&), Args args,
                   const std::vector<const Tensor*>& outputs) {
  const std::size_t bytes = kernels::scratch_bytes(session.exec(), args);
  const auto results_in = [&](void* scratch) {
    args.scratch = scratch;
    kernel(session.exec(), args);
    Results results;
    for (const Tensor* output : outputs) results.list.emplace_back("output", output->host());
    return results;
  };
  const auto guarded_results = [&](std::byte fill) {
    const Array<std::byte> block(session, std::vector<std::byte>(guard + bytes + guard, fill));
    const Results results = results_in(block.data() + guard);
    const std::vector<std::byte> after = block.host();
    const auto untouched = [&](std::size_t begin) {
      return std::all_of(after.begin() + static_cast<std::ptrdiff_t>(begin),
                         after.begin() + static_cast<std::ptrdiff_t>(begin + guard),
                         [&](std::byte b) { return b == fill; });
    };
    EXPECT_TRUE(untouched(0)) << "wrote before its " << bytes << " bytes";
    EXPECT_TRUE(untouched(guard + bytes)) << "wrote behind its " << bytes << " bytes";
    return results;
  };

  const Results zeros = guarded_results(std::byte{0x00}), not_numbers = guarded_results(std::byte{0xff});
  expect_same(not_numbers, zeros);
  if (session.device().memory() != Memory::host) return;
  const std::unique_ptr<std::byte[]> exact(new std::byte[bytes]);  // a sanitizer sees what goes beyond it
  expect_same(results_in(exact.get()), zeros);
}

struct Size {
  std::int64_t rows, cols;
};
// At, below and above the rows that implementations take together, and a row of packs and of single elements.
constexpr Size sizes[] = {{1, 1}, {15, 33}, {16, 8}, {17, 40}, {31, 5}, {32, 32}, {33, 257}, {70, 24}};

class ScratchTest : public KernelTest {
 protected:
  [[nodiscard]] Tensor values(DType dtype, std::int64_t count, std::uint64_t seed) const {
    return {session(), dtype, random_values(static_cast<std::size_t>(count), seed)};
  }
};

TEST_P(ScratchTest, BiasGradStaysInside) {
  for (const DType dtype : activation_dtypes)
    for (const auto [rows, cols] : sizes) {
      SCOPED_TRACE(fmt::format("{} {} x {}", to_string(dtype), rows, cols));
      const Tensor dy = values(dtype, rows * cols, 1), dbias = values(DType::f32, cols, 2);
      expect_inside(session(), kernels::bias_grad,
                    {.dy = dy.data(), .dbias = dbias.floats(), .rows = rows, .cols = cols, .dtype = dtype}, {&dbias});
    }
}

TEST_P(ScratchTest, GeluBackwardStaysInside) {
  for (const DType dtype : activation_dtypes)
    for (const auto [rows, cols] : sizes) {
      SCOPED_TRACE(fmt::format("{} {} x {}", to_string(dtype), rows, cols));
      const Tensor dy = values(dtype, rows * cols, 1), pre = values(dtype, rows * cols, 2);
      const Tensor dx = values(dtype, rows * cols, 3), dbias = values(DType::f32, cols, 4);
      expect_inside(session(), kernels::gelu_backward,
                    {.dy = dy.data(),
                     .pre = pre.data(),
                     .dx = dx.data(),
                     .dbias = dbias.floats(),
                     .rows = rows,
                     .cols = cols,
                     .dtype = dtype},
                    {&dx, &dbias});
    }
}

TEST_P(ScratchTest, LayernormBackwardStaysInside) {
  for (const DType dtype : activation_dtypes)
    for (const auto [rows, cols] : sizes) {
      SCOPED_TRACE(fmt::format("{} {} x {}", to_string(dtype), rows, cols));
      const Tensor dy = values(dtype, rows * cols, 1), x = values(dtype, rows * cols, 2);
      const Tensor gamma = values(dtype, cols, 3), mean = values(DType::f32, rows, 4);
      const Tensor rstd = values(DType::f32, rows, 5), dx = values(dtype, rows * cols, 6);
      const Tensor dgamma = values(DType::f32, cols, 7), dbeta = values(DType::f32, cols, 8);
      expect_inside(session(), kernels::layernorm_backward,
                    {.dy = dy.data(),
                     .x = x.data(),
                     .gamma = gamma.data(),
                     .mean = mean.floats(),
                     .rstd = rstd.floats(),
                     .dx = dx.data(),
                     .dgamma = dgamma.floats(),
                     .dbeta = dbeta.floats(),
                     .rows = rows,
                     .cols = cols,
                     .dtype = dtype},
                    {&dx, &dgamma, &dbeta});
    }
}

TEST_P(ScratchTest, EmbeddingBackwardStaysInside) {
  for (const std::int64_t vocabulary : {1, 511, 512, 513, 1030})
    for (const std::int64_t length : {0, 1, 37}) {
      SCOPED_TRACE(fmt::format("{} tokens, length {}", vocabulary, length));
      constexpr std::int64_t batch = 3, cols = 5;
      const auto positions = static_cast<std::size_t>(batch * length);
      const Array<std::int32_t> tokens(session(), random_tokens(positions, 1, static_cast<std::int32_t>(vocabulary)));
      const Tensor dy = values(DType::f32, batch * length * cols, 2);
      const Tensor dwte = values(DType::f32, vocabulary * cols, 3), dwpe = values(DType::f32, 40 * cols, 4);
      expect_inside(session(), kernels::embedding_backward,
                    {.tokens = tokens.data(),
                     .dy = dy.data(),
                     .dwte = dwte.floats(),
                     .dwpe = dwpe.floats(),
                     .batch = batch,
                     .length = length,
                     .cols = cols,
                     .vocabulary = vocabulary,
                     .wte_rows = vocabulary,
                     .wpe_rows = 40},
                    {&dwte, &dwpe});
    }
}

class AttentionScratch : public ScratchTest {};

TEST_P(AttentionScratch, BackwardStaysInside) {
  for (const DType dtype : activation_dtypes)
    for (const auto [length, head_size] : {Size{1, 8}, Size{31, 16}, Size{33, 40}, Size{50, 64}}) {
      SCOPED_TRACE(fmt::format("{} length {} head size {}", to_string(dtype), length, head_size));
      constexpr std::int64_t batch = 2, heads = 3;
      const std::int64_t plain = batch * length * heads * head_size;
      const Tensor qkv = values(dtype, 3 * plain, 1), dy = values(dtype, plain, 2), y = values(dtype, plain, 3);
      const Tensor lse(session(), DType::f32, Doubles(static_cast<std::size_t>(batch * heads * length), 4.0));
      const Tensor dqkv = values(dtype, 3 * plain, 5);
      expect_inside(session(), kernels::attention_backward,
                    {.dy = dy.data(),
                     .qkv = qkv.data(),
                     .y = y.data(),
                     .lse = lse.floats(),
                     .dqkv = dqkv.data(),
                     .batch = batch,
                     .length = length,
                     .heads = heads,
                     .head_size = head_size,
                     .dtype = dtype},
                    {&dqkv});
    }
}

TEST_P(ScratchTest, ConvolutionsStayInside) {
  for (const DType dtype : activation_dtypes)
    for (const ConvolutionShape& s : {ConvolutionShape{.batch = 1, .height = 1, .width = 1, .in = 1, .out = 1},
                                      ConvolutionShape{.batch = 2, .height = 5, .width = 4, .in = 3, .out = 7}}) {
      SCOPED_TRACE(fmt::format("{} {} to {} channels", to_string(dtype), s.in, s.out));
      const Tensor x = values(dtype, s.pixels() * s.in, 1), weight = values(dtype, s.taps() * s.in * s.out, 2);
      const Tensor dy = values(dtype, s.pixels() * s.out, 3), y = values(dtype, s.pixels() * s.out, 4);
      const Tensor dx = values(dtype, s.pixels() * s.in, 5), dweight = values(DType::f32, s.taps() * s.in * s.out, 6);
      expect_inside(session(), kernels::convolution_forward,
                    {.x = x.data(), .weight = weight.data(), .y = y.data(), .shape = s, .dtype = dtype}, {&y});
      expect_inside(session(), kernels::convolution_input_grad,
                    {.dy = dy.data(), .weight = weight.data(), .dx = dx.data(), .shape = s, .dtype = dtype}, {&dx});
      expect_inside(
          session(), kernels::convolution_weight_grad,
          {.x = x.data(), .dy = dy.data(), .dweight = dweight.floats(), .shape = s, .accumulate = 0, .dtype = dtype},
          {&dweight});
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, ScratchTest, all_backends(), backend_name);
INSTANTIATE_TEST_SUITE_P(Kernels, AttentionScratch, ::testing::ValuesIn(attention_backend_list()), backend_name);

TEST(Scratch, IsEachImplementationsOwnChoice) {
  const Exec reference = {.table = &kernels::reference_table()}, cpu = {.table = &kernels::cpu_table(Isa::baseline)};
  const Exec emulated = {.table = &kernels::emulated_table()};
  const EmbeddingBackwardArgs embedding = {.batch = 2, .length = 5, .cols = 8, .vocabulary = 600};
  const AttentionBackwardArgs attention = {.batch = 2, .length = 5, .heads = 3, .head_size = 8};
  const BiasGradArgs bias = {.rows = 5, .cols = 8};

  EXPECT_EQ(kernels::scratch_bytes(reference, embedding), 0U);
  EXPECT_EQ(kernels::scratch_bytes(reference, attention), 0U);
  EXPECT_EQ(kernels::scratch_bytes(reference, bias), 0U);
  EXPECT_EQ(kernels::scratch_bytes(cpu, embedding), 0U) << "a thread walks all positions";
  EXPECT_GE(kernels::scratch_bytes(emulated, embedding), 2 * 5 * sizeof(std::int32_t)) << "lists of positions";
  EXPECT_EQ(kernels::scratch_bytes(cpu, attention), 2 * 3 * 5 * sizeof(float)) << "a number a query";
  EXPECT_EQ(kernels::scratch_bytes(emulated, attention), 0U) << "the reference's";
  EXPECT_EQ(kernels::scratch_bytes(cpu, bias), 8 * sizeof(float)) << "one block";
}

}  // namespace
}  // namespace lockstep::testing
