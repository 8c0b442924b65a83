#include "kernels/dropout/dropout.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "tests/support/activations.hpp"

namespace lockstep::testing {
namespace {

struct Drop {
  double probability = 0.25;
  std::int64_t rows = 3;
  std::int64_t cols = 100;
  std::int64_t first_sample = 5;
  std::int64_t step = 2;
  std::uint64_t seed = 11;
  std::uint32_t operation = 4;
};

Doubles dropped(const Session& session, const Drop& drop, const Doubles& values, DType dtype = DType::f32,
                std::size_t offset = 0, bool in_place = false) {
  const Tensor x(session, dtype, values, offset), y(session, dtype, Doubles(values.size(), 7), offset);
  const Array<std::int64_t> first(session, std::vector<std::int64_t>{drop.first_sample});
  const Array<StepState> state(session, std::vector<StepState>{{.attempted = drop.step}});
  DropoutArgs args{.x = x.data(),
                   .y = in_place ? x.data() : y.data(),
                   .rows = drop.rows,
                   .cols = drop.cols,
                   .first_sample = first.data(),
                   .state = state.data(),
                   .seed = drop.seed,
                   .operation = drop.operation,
                   .dtype = dtype};
  set_probability(args, drop.probability);
  kernels::dropout(session.exec(), args);
  return in_place ? x.host() : y.host();
}

Doubles ones(const Drop& drop) { return Doubles(static_cast<std::size_t>(drop.rows * drop.cols), 1.0); }

class DropoutTest : public KernelTest {};

TEST_P(DropoutTest, EachElementFollowsItsOwnRandomWord) {
  // docs/model.md written down again: blocks of 64 elements, 16 counters each.
  const Drop drop;
  const Doubles got = dropped(session(), drop, ones(drop));
  for (std::int64_t r = 0; r < drop.rows; ++r)
    for (std::int64_t e = 0; e < drop.cols; ++e) {
      const std::int64_t blocks = 2, block = e / 64, word = e % 64 / 16, lane = e % 16;
      const auto counter = static_cast<std::uint64_t>(((drop.first_sample + r) * blocks + block) * 16 + lane);
      const std::uint64_t c3 = 3 + 8 * static_cast<std::uint64_t>(drop.step);
      const Philox random = Philox::at(drop.seed, counter, (c3 << 32) + drop.operation);
      const double want = random.word[word] < 0x40000000U ? 0.0 : static_cast<double>(static_cast<float>(4.0 / 3.0));
      ASSERT_EQ(got[static_cast<std::size_t>(r * drop.cols + e)], want) << r << ", " << e;
    }
}

TEST_P(DropoutTest, AgreesWithTheReferenceBitForBit) {
  for (const DType dtype : activation_dtypes)
    for (const std::int64_t cols : {1, 15, 16, 17, 63, 64, 65, 257, 3000})
      for (const std::int64_t rows : {1, 7}) {
        if (session().emulated() && cols > 257) continue;
        const Drop drop{.rows = rows, .cols = cols, .first_sample = std::int64_t{1} << 40};
        Doubles values = random_values(static_cast<std::size_t>(rows * cols), 3);
        values[0] = HUGE_VAL;
        const Doubles want = dropped(reference_session(), drop, values, dtype);
        for (const int threads : {1, 3}) {
          session().set_threads(threads);
          expect_same(dropped(session(), drop, values, dtype), want, "y");
          expect_same(dropped(session(), drop, values, dtype, 1, /*in_place=*/true), want, "in place");
        }
      }
}

TEST_P(DropoutTest, SamplesKeepTheirMaskWhoeverHasThem) {
  const Drop all{.rows = 6, .first_sample = 30};
  const Doubles whole = dropped(session(), all, ones(all));
  for (std::int64_t first : {0, 1, 4}) {
    const Drop part{.rows = 2, .first_sample = 30 + first};
    const Doubles got = dropped(session(), part, ones(part));
    expect_same(got, Doubles(whole.begin() + first * 100, whole.begin() + (first + 2) * 100), "part");
  }
}

TEST_P(DropoutTest, StepSeedOperationAndSampleEachChangeTheMask) {
  const Drop base;
  const Doubles mask = dropped(session(), base, ones(base));
  for (const Drop& other : {Drop{.first_sample = 8}, Drop{.step = 3}, Drop{.seed = 12}, Drop{.operation = 5}})
    EXPECT_NE(dropped(session(), other, ones(other)), mask);
}

TEST_P(DropoutTest, TheExpectedValueStays) {
  for (const double probability : {0.1, 0.5, 0.9}) {
    const Drop drop{.probability = probability, .rows = 10, .cols = session().emulated() ? 2000 : 20000};
    const Doubles got = dropped(session(), drop, ones(drop));
    double sum = 0;
    for (const double value : got) sum += value;
    const auto count = static_cast<double>(got.size());
    // The mean of `count` numbers of variance p / (1 - p), to five standard errors.
    EXPECT_NEAR(sum / count, 1.0, 5 * std::sqrt(probability / (1 - probability) / count)) << probability;
  }
}

TEST_P(DropoutTest, NothingIsDroppedWithProbabilityZero) {
  const Drop drop{.probability = 0};
  const Doubles values = random_values(300, 9);
  const Tensor as_floats(session(), DType::f32, values);
  expect_same(dropped(session(), drop, values), as_floats.host(), "y");
}

TEST_P(DropoutTest, WithoutStateAndPositionTheyAreZero) {
  const Drop drop{.first_sample = 0, .step = 0};
  const Tensor x(session(), DType::f32, ones(drop)), y(session(), DType::f32, ones(drop));
  DropoutArgs args{
      .x = x.data(), .y = y.data(), .rows = 3, .cols = 100, .seed = drop.seed, .operation = drop.operation};
  set_probability(args, drop.probability);
  kernels::dropout(exec(), args);
  expect_same(y.host(), dropped(session(), drop, ones(drop)), "y");
}

TEST_P(DropoutTest, BadArgumentsAreRefused) {
  DropoutArgs args{.rows = 1, .cols = 1};
  EXPECT_THROW(kernels::dropout(exec(), args), Error);
  EXPECT_THROW(set_probability(args, 1.0), Error);
  EXPECT_THROW(set_probability(args, -0.1), Error);
  EXPECT_THROW(set_probability(args, std::nan("")), Error);
  set_probability(args, 1 - 0x1p-40);
  EXPECT_EQ(args.threshold, 0xFFFFFFFFU);
  EXPECT_EQ(args.scale, 0x1p32F);
}

INSTANTIATE_TEST_SUITE_P(Kernels, DropoutTest, all_backends(), backend_name);

}  // namespace
}  // namespace lockstep::testing
