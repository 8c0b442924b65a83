#include "run/lr_find_rules.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/error.hpp"
#include "core/rng.hpp"

namespace lockstep::run {
namespace {

/// Uniform in [low, high), a function of its numbers alone.
double uniform(std::uint64_t seed, std::uint64_t which, double low, double high) {
  const Philox r = random_at(seed, RngStream::synthetic, 7, which);
  return low + (high - low) * (static_cast<double>(r.word[0]) / 4294967296.0);
}

using Curve = std::function<double(double lr)>;

/// 100 rates from 1e-7 to 10, until the loss has run away.
LrSweep sweep_of(const Curve& curve, double noise, std::uint64_t seed) {
  LrSweep sweep;
  for (std::uint64_t k = 0; k < 100; ++k) {
    const double lr = 1e-7 * std::pow(1e8, static_cast<double>(k) / 99);
    const double loss = curve(lr) * (1 + noise * normal_at(seed, RngStream::synthetic, 8, k));
    if (curve(lr) > 4 * curve(1e-7)) break;
    sweep.lr.push_back(lr);
    sweep.loss.push_back(loss);
  }
  return sweep;
}

/// A loss that falls from `start` to `floor` around the rate `best`, where it is steepest on a logarithmic axis, and
/// grows without bound from some ten or hundred times that on.
struct Known {
  double best, wall, start, floor, sharpness, growth;

  static Known drawn(std::uint64_t seed) {
    Known k{};
    k.best = std::pow(10.0, uniform(seed, 0, -5, -1.5));
    k.wall = k.best * std::pow(10.0, uniform(seed, 1, 1, 2.5));
    k.start = uniform(seed, 2, 1, 10);
    k.floor = k.start * uniform(seed, 3, 0.02, 0.6);
    k.sharpness = uniform(seed, 4, 1, 3);
    k.growth = uniform(seed, 5, 1.5, 4);
    return k;
  }
  double operator()(double lr) const {
    return floor + (start - floor) / (1 + std::pow(lr / best, sharpness)) + start * std::pow(lr / wall, growth);
  }
};

int within_a_factor_of_two(double noise, std::uint64_t first_seed) {
  int good = 0;
  for (std::uint64_t seed = first_seed; seed < first_seed + 100; ++seed) {
    const Known curve = Known::drawn(seed);
    const LrAdvice advice = read_sweep(sweep_of(curve, noise, seed));
    if (!advice.rules.empty() && std::abs(std::log2(advice.lr / curve.best)) <= 1) ++good;
  }
  return good;
}

TEST(ReadSweep, FindsTheSteepestRateOfKnownCurvesWithinAFactorOfTwo) {
  for (const double noise : {0.0, 0.01, 0.03}) {
    const int good = within_a_factor_of_two(noise, 1);
    RecordProperty(fmt::format("noise {}", noise), good);
    EXPECT_GE(good, 95) << "noise " << noise;
  }
}

TEST(ReadSweep, EachRuleReadsASmoothCurveAsItsDefinitionSays) {
  const Known curve{.best = 1e-3, .wall = 0.3, .start = 4, .floor = 1, .sharpness = 2, .growth = 3};
  const LrSweep sweep = sweep_of(curve, 0, 1);
  double lowest = sweep.lr[0];
  for (const double lr : sweep.lr)
    if (curve(lr) < curve(lowest)) lowest = lr;

  const LrAdvice advice = read_sweep(sweep);

  ASSERT_EQ(advice.rules.size(), 4U);
  const double step = std::pow(1e8, 1.0 / 99);  // the distance of two rates
  const auto near = [&](const LrRule& rule, double lr, double steps) {
    EXPECT_LE(std::abs(std::log(rule.lr / lr)), steps * std::log(step)) << rule.name << ' ' << rule.lr << ' ' << lr;
  };
  near(advice.rules[0], 1e-3, 1);
  near(advice.rules[1], 1e-3, 1);
  near(advice.rules[2], lowest / 10, 1.5);
  // The loss falls from the first rate to the lowest: the valley's middle is halfway through, on the logarithmic axis.
  near(advice.rules[3], std::sqrt(1e-7 * lowest), 2);
  EXPECT_TRUE(advice.agree);
  EXPECT_FALSE(advice.still_falling);
  EXPECT_EQ(advice.low, advice.rules[3].lr);
}

TEST(ReadSweep, ALossThatFallsNowhereGivesNoRate) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    const auto flat = [](double lr) { return 2.3 + std::pow(lr / 0.1, 3); };
    EXPECT_TRUE(read_sweep(sweep_of(flat, 0.05, seed)).rules.empty()) << seed;
  }
}

TEST(ReadSweep, SaysThatTheLossWasStillFalling) {
  const Known curve{.best = 1, .wall = 1e6, .start = 4, .floor = 1, .sharpness = 1, .growth = 3};
  EXPECT_TRUE(read_sweep(sweep_of(curve, 0, 1)).still_falling);
}

TEST(ReadSweep, TwoFallsFarApartAreNoAgreement) {
  const auto curve = [](double lr) {
    return 1 + 2 / (1 + lr / 1e-6) + 1.9 / (1 + std::pow(lr / 1e-2, 4)) + std::pow(lr, 2);
  };
  EXPECT_FALSE(read_sweep(sweep_of(curve, 0, 1)).agree);
}

}  // namespace
}  // namespace lockstep::run
