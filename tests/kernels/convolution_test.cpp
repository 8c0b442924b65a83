#include "kernels/convolution/convolution.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "kernels/convolution/direct_convolution.hpp"
#include "tests/support/activations.hpp"

namespace lockstep::testing {
namespace {

struct Case {
  ConvolutionShape shape;
  [[nodiscard]] std::size_t inputs() const { return static_cast<std::size_t>(shape.pixels() * shape.in); }
  [[nodiscard]] std::size_t outputs() const { return static_cast<std::size_t>(shape.pixels() * shape.out); }
  [[nodiscard]] std::size_t weights() const { return static_cast<std::size_t>(shape.taps() * shape.in * shape.out); }
};

ConvolutionShape sized(std::int64_t batch, std::int64_t height, std::int64_t width, std::int64_t in, std::int64_t out,
                       std::int64_t kernel = 3) {
  return {.batch = batch, .height = height, .width = width, .in = in, .out = out, .kernel = kernel};
}

/// y, dx and dweight of one set of operands.
Results all_of(const Session& session, const ConvolutionShape& shape, DType dtype, const Doubles& x, const Doubles& w,
               const Doubles& dy, const Doubles& dweight_before, bool accumulate) {
  const Case sizes{shape};
  const Tensor tx(session, dtype, x), tw(session, dtype, w), tdy(session, dtype, dy);
  const Tensor y(session, dtype, Doubles(sizes.outputs(), 7)), dx(session, dtype, Doubles(sizes.inputs(), 7));
  const Tensor dweight(session, DType::f32, dweight_before);
  run_with_scratch(
      session, kernels::convolution_forward,
      ConvolutionForwardArgs{.x = tx.data(), .weight = tw.data(), .y = y.data(), .shape = shape, .dtype = dtype});
  run_with_scratch(
      session, kernels::convolution_input_grad,
      ConvolutionInputGradArgs{.dy = tdy.data(), .weight = tw.data(), .dx = dx.data(), .shape = shape, .dtype = dtype});
  run_with_scratch(session, kernels::convolution_weight_grad,
                   ConvolutionWeightGradArgs{.x = tx.data(),
                                             .dy = tdy.data(),
                                             .dweight = dweight.floats(),
                                             .shape = shape,
                                             .accumulate = accumulate ? 1 : 0,
                                             .dtype = dtype});
  return {{{"y", y.host()}, {"dx", dx.host()}, {"dweight", dweight.host()}}, dtype};
}

Results random_case(const Session& session, const ConvolutionShape& shape, DType dtype, bool accumulate = true) {
  const Case sizes{shape};
  return all_of(session, shape, dtype, random_values(sizes.inputs(), 1), random_values(sizes.weights(), 2),
                random_values(sizes.outputs(), 3), random_values(sizes.weights(), 4), accumulate);
}

class ConvolutionTest : public KernelTest {};

TEST_P(ConvolutionTest, ASmallOneDoneByHand) {
  // One image of 2 x 3 and one channel each way.
  const Doubles x = {1, 2, 3, 4, 5, 6}, w = {1, 0, 2, 0, -1, 0, 3, 0, 1};
  const Doubles dy = {1, 0, 0, 0, 0, 0};  // only the upper left pixel
  const Results got = all_of(session(), sized(1, 2, 3, 1, 1), DType::f32, x, w, dy, Doubles(9), true);

  // y(0, 0) = -x(0, 0) + w(2, 0) x(1, -1) + w(2, 2) x(1, 1) = -1 + 0 + 5, and so on.
  expect_same(got.list[0].second, {-1 + 5, -2 + 3 * 4 + 6, -3 + 3 * 5, -4 + 2 * 2, -5 + 1 + 2 * 3, -6 + 2}, "y");
  // The taps that lie inside of the image: (1, 1) on itself, (1, 2), (2, 1), (2, 2).
  expect_same(got.list[1].second, {-1, 0, 0, 0, 1, 0}, "dx");
  expect_same(got.list[2].second, {0, 0, 0, 0, 1, 2, 0, 4, 5}, "dweight");
}

TEST_P(ConvolutionTest, AgreesWithTheReference) {
  std::vector<ConvolutionShape> shapes = {sized(2, 5, 4, 3, 6), sized(1, 1, 1, 1, 1), sized(3, 7, 7, 1, 33, 5),
                                          sized(1, 4, 9, 16, 8, 1), sized(2, 3, 3, 33, 31, 5)};
  if (!session().emulated()) shapes.push_back(sized(4, 28, 28, 1, 32));
  if (!session().emulated()) shapes.push_back(sized(3, 14, 14, 32, 64));
  for (const DType dtype : activation_dtypes)
    for (const ConvolutionShape& s : shapes)
      for (const bool accumulate : {false, true}) {
        const Results got = random_case(session(), s, dtype, accumulate);
        const Results want = random_case(reference_session(), s, dtype, accumulate);
        // Sums of up to pixels or taps x channels products of about 1/3, in fp32 and another order.
        const auto terms = static_cast<double>(std::max(s.pixels(), s.taps() * std::max(s.in, s.out)));
        for (std::size_t i = 0; i < 3; ++i)
          expect_close(got.list[i].second, want.list[i].second, i == 2 ? DType::f32 : dtype, 1e-5, 2e-7 * terms,
                       fmt::format("{} {} of {} x {} x {} x {} to {}", to_string(dtype), got.list[i].first, s.batch,
                                   s.height, s.width, s.in, s.out));
      }
}

TEST_P(ConvolutionTest, InvariantResultsDoNotDependOnThreads) {
  const ConvolutionShape s = session().emulated() ? sized(2, 5, 5, 3, 4) : sized(8, 14, 14, 16, 24);
  const auto with_threads = [&](int threads) {
    session().set_threads(threads);
    const Case sizes{s};
    const Tensor x(session(), DType::f32, random_values(sizes.inputs(), 1));
    const Tensor dy(session(), DType::f32, random_values(sizes.outputs(), 3));
    const Tensor dweight(session(), DType::f32, Doubles(sizes.weights()));
    Exec invariant = exec();
    invariant.invariant = true;
    invariant.threads = threads;
    kernels::convolution_weight_grad(
        invariant, {.x = x.data(), .dy = dy.data(), .dweight = dweight.floats(), .shape = s, .dtype = DType::f32});
    return dweight.host();
  };
  const Doubles one = with_threads(1);
  for (const int threads : {2, 3}) expect_same(with_threads(threads), one, "dweight");
}

TEST_P(ConvolutionTest, ThreadOrdersDoNotMatter) {
  under_thread_orders(
      session(), [&] { return random_case(session(), sized(2, 5, 4, 3, 6), DType::f32); },
      [](const Results& got, const Results& want) { expect_same(got, want); });
}

TEST_P(ConvolutionTest, OfNoImagesTheWeightsGradientIsZero) {
  const Tensor dweight(session(), DType::f32, Doubles(9 * 2 * 3, 5));
  const ConvolutionShape none = sized(0, 4, 4, 2, 3);
  run_with_scratch(session(), kernels::convolution_weight_grad,
                   ConvolutionWeightGradArgs{.dweight = dweight.floats(), .shape = none, .accumulate = 1});
  expect_same(dweight.host(), Doubles(9 * 2 * 3, 5), "added nothing");
  run_with_scratch(session(), kernels::convolution_weight_grad,
                   ConvolutionWeightGradArgs{.dweight = dweight.floats(), .shape = none, .accumulate = 0});
  expect_same(dweight.host(), Doubles(9 * 2 * 3), "written");
}

/// cuDNN's part of the module is not here, but the kernels around it are: weights there and gradients back.
TEST(ConvolutionFilterTest, IsTheWeightsWithTheOutputChannelsFirst) {
  const Session session({.name = "emulated", .kind = Backend::Kind::emulated});
  const ConvolutionShape s = sized(1, 3, 3, 5, 7);
  const Case sizes{s};
  Doubles numbers(sizes.weights());
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<double>(i) / 4;
  Doubles turned(numbers.size());
  for (std::size_t tap = 0; tap < 9; ++tap)
    for (std::size_t c = 0; c < 5; ++c)
      for (std::size_t o = 0; o < 7; ++o) turned[(o * 9 + tap) * 5 + c] = numbers[(tap * 5 + c) * 7 + o];
  for (const DType dtype : activation_dtypes) {
    const Tensor weight(session, dtype, numbers), filter(session, dtype, Doubles(numbers.size()));
    kernels::emu::convolution_filter(session.exec(), {weight.data(), filter.data(), s, dtype});
    expect_same(filter.host(), Tensor(session, dtype, turned).host(), "filter");

    const Tensor dweight(session, DType::f32, numbers);
    kernels::emu::convolution_filter_grad(session.exec(), {filter.data(), dweight.floats(), s, 1, dtype});
    kernels::emu::convolution_filter_grad(session.exec(), {filter.data(), dweight.floats(), s, 1, dtype});
    const Doubles rounded = weight.host();
    Doubles sum(numbers.size());
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = numbers[i] + 2 * rounded[i];
    expect_same(dweight.host(), sum, "added twice");
    kernels::emu::convolution_filter_grad(session.exec(), {filter.data(), dweight.floats(), s, 0, dtype});
    expect_same(dweight.host(), rounded, "written");
  }
}

TEST_P(ConvolutionTest, BadArgumentsAreRefused) {
  float number = 0;
  ConvolutionForwardArgs args{.x = &number, .weight = &number, .y = &number, .shape = sized(1, 1, 1, 1, 1, 2)};
  EXPECT_THROW(kernels::convolution_forward(exec(), args), Error) << "even";
  args.shape = sized(1, 0, 1, 1, 1);
  EXPECT_THROW(kernels::convolution_forward(exec(), args), Error) << "no height";
  args.shape = sized(1, 1, 1, 1, 1);
  args.x = nullptr;
  EXPECT_THROW(kernels::convolution_forward(exec(), args), Error) << "no x";
  EXPECT_NO_THROW(kernels::convolution_forward(exec(), {.shape = sized(0, 1, 1, 1, 1)})) << "nothing to do";
}

INSTANTIATE_TEST_SUITE_P(Kernels, ConvolutionTest, all_backends(), backend_name);

}  // namespace
}  // namespace lockstep::testing
