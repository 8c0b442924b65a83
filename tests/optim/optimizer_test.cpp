#include "optim/optimizer.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "tests/support/kernel_backends.hpp"
#include "tests/support/numbers.hpp"

namespace lockstep::optim {
namespace {

using testing::Array;
using testing::Backend;
using testing::Session;
using Kind = OptimizerOptions::Kind;

constexpr std::size_t elements = 1000;
constexpr std::size_t padding_begin = 400;  ///< in no tile, as is what follows up to padding_end
constexpr std::size_t padding_end = 512;

/// The numbers of one step; two groups, the second from padding_end on.
struct Step {
  std::vector<GroupStep> groups;
  StepState state;
};

Step step_of(int applied_before, double grad_factor = 0.5) {
  Step step;
  const auto t = static_cast<double>(applied_before + 1);
  for (const double lr : {0.01, 0.002})
    step.groups.push_back(
        {{.lr = lr, .beta1 = 0.9, .beta2 = 0.95, .momentum = 0.8, .weight_decay = lr == 0.01 ? 0.1 : 0.0},
         1 - std::pow(0.9, t),
         1 - std::pow(0.95, t)});
  step.state.applied = applied_before + 1;  // decide has counted this update already
  step.state.attempted = step.state.applied;
  step.state.grad_factor = grad_factor;
  return step;
}

/// Flat buffers in a backend's memory.
struct Flat {
  explicit Flat(const Session& on, std::size_t moment_count)
      : session(on),
        master(on, testing::normal_values<float>(elements, 1)),
        param16(on, std::vector<bf16>(elements)),
        grad(on, testing::normal_values<float>(elements, 2, 0.1)) {
    for (std::size_t i = 0; i < moment_count; ++i)
      moments.push_back(std::make_unique<Array<float>>(on, std::vector<float>(elements, 0.0F)));
  }

  void update(const Optimizer& optimizer, const Step& step, bool with_copy = true) {
    const Array<Tile> tiles(session, {unsharded_tile(0, 300, 0), unsharded_tile(300, padding_begin - 300, 0),
                                      unsharded_tile(padding_end, elements - padding_end, 1)});
    const Array<TileRun> tensors(session, {{.first = 0, .count = 2}, {.first = 2, .count = 1}});
    const Array<std::byte> scratch(session, optimizer.scratch_bytes(3));
    const Array<GroupStep> groups(session, step.groups);
    const Array<StepState> state(session, std::vector<StepState>{step.state});
    std::vector<float*> moment_pointers;
    for (const auto& moment : moments) moment_pointers.push_back(moment->data());
    optimizer.update(session.exec(),
                     {.master = master.data(),
                      .param16 = with_copy ? param16.data() : nullptr,
                      .param16_dtype = DType::bf16,
                      .grad = {.source = {grad.data()}, .count = 1, .dtype = DType::f32},
                      .tiles = tiles.data(),
                      .tile_count = 3,
                      .tensors = tensors.data(),
                      .tensor_count = 2,
                      .scratch = scratch.data(),
                      .groups = groups.data(),
                      .state = state.data()},
                     moment_pointers);
    (void)master.host();  // the tiles and numbers above live until the work is done
  }

  const Session& session;
  Array<float> master;
  Array<bf16> param16;
  Array<float> grad;
  std::vector<std::unique_ptr<Array<float>>> moments;
};

bool is_padding(std::size_t i) { return i >= padding_begin && i < padding_end; }
std::size_t group_of(std::size_t i) { return i < padding_end ? 0 : 1; }

class OptimizerTest : public testing::KernelTest {};

/// Adam's update in double, written from the paper (Kingma and Ba 2015; decoupled decay: Loshchilov and Hutter 2019).
void adam_in_double(double& p, double& m, double& v, double g, const GroupStep& s, bool decoupled) {
  if (!decoupled) g += s.weight_decay * p;
  m = s.beta1 * m + (1 - s.beta1) * g;
  v = s.beta2 * v + (1 - s.beta2) * g * g;
  const double direction = (m / s.correction1) / (std::sqrt(v / s.correction2) + 1e-8);
  p -= s.lr * (direction + (decoupled ? s.weight_decay * p : 0));
}

TEST_P(OptimizerTest, AdamTakesTheStepsOfTheFormula) {
  for (const bool decoupled : {true, false}) {
    const auto optimizer = make_optimizer({.kind = Kind::adam, .decoupled = decoupled});
    Flat flat(session(), 2);
    const std::vector<float> before = flat.master.host(), grad = flat.grad.host();
    for (int t = 0; t < 3; ++t) flat.update(*optimizer, step_of(t));
    const std::vector<float> after = flat.master.host();
    const std::vector<bf16> copy = flat.param16.host();
    const std::vector<float> mean = flat.moments[0]->host(), square = flat.moments[1]->host();
    for (std::size_t i = 0; i < elements; ++i) {
      if (is_padding(i)) {
        ASSERT_EQ(after[i], before[i]) << i;
        continue;
      }
      double p = before[i], m = 0, v = 0;
      for (int t = 0; t < 3; ++t)
        adam_in_double(p, m, v, 0.5 * static_cast<double>(grad[i]), step_of(t).groups[group_of(i)], decoupled);
      // Three steps in float against double: some ten roundings of 2^-24 each; the last term covers values near zero.
      ASSERT_NEAR(after[i], p, 2e-6 * (1 + std::abs(p))) << i;
      ASSERT_NEAR(mean[i], m, 4e-6 * std::abs(m) + 2e-9) << i;
      ASSERT_NEAR(square[i], v, 4e-6 * v + 1e-11) << i;
      ASSERT_EQ(copy[i].bits, bf16(after[i]).bits) << i;
    }
  }
}

TEST_P(OptimizerTest, SgdTakesTheStepsOfTheFormula) {
  for (const bool nesterov : {false, true}) {
    const double dampening = nesterov ? 0.0 : 0.25;
    const auto optimizer =
        make_optimizer({.kind = Kind::sgd, .momentum = true, .dampening = dampening, .nesterov = nesterov});
    Flat flat(session(), 1);
    const std::vector<float> before = flat.master.host(), grad = flat.grad.host();
    for (int t = 0; t < 3; ++t) flat.update(*optimizer, step_of(t), false);
    const std::vector<float> after = flat.master.host(), buffers = flat.moments[0]->host();
    for (std::size_t i = 0; i < elements; ++i) {
      double p = before[i], buffer = 0;
      for (int t = 0; t < 3 && !is_padding(i); ++t) {
        const GroupStep s = step_of(t).groups[group_of(i)];
        const double g = 0.5 * static_cast<double>(grad[i]) + s.weight_decay * p;
        buffer = t == 0 ? g : s.momentum * buffer + (1 - dampening) * g;
        p -= s.lr * (nesterov ? g + s.momentum * buffer : buffer);
      }
      ASSERT_NEAR(after[i], p, 2e-6 * (1 + std::abs(p))) << i;
      ASSERT_NEAR(buffers[i], buffer, 1e-6) << i;
    }
  }
}

TEST_P(OptimizerTest, PlainSgdNeedsNoBuffer) {
  const auto optimizer = make_optimizer({.kind = Kind::sgd});
  Flat flat(session(), 0);
  const std::vector<float> before = flat.master.host(), grad = flat.grad.host();
  Step step = step_of(0);
  for (GroupStep& group : step.groups) {
    group.momentum = 0;
    group.round();
  }
  flat.update(*optimizer, step);
  const std::vector<float> after = flat.master.host();
  for (std::size_t i = 0; i < elements; ++i) {
    const GroupStep& s = step.groups[group_of(i)];
    const double p = before[i];
    const double expected = is_padding(i) ? p : p - s.lr * (0.5 * static_cast<double>(grad[i]) + s.weight_decay * p);
    // One step in float against double.
    ASSERT_NEAR(after[i], expected, 1e-6) << i;
  }
}

TEST_P(OptimizerTest, LionTakesTheStepsOfTheFormula) {
  const auto optimizer = make_optimizer({.kind = Kind::lion});
  Flat flat(session(), 1);
  const std::vector<float> before = flat.master.host(), grad = flat.grad.host();
  for (int t = 0; t < 3; ++t) flat.update(*optimizer, step_of(t));
  const std::vector<float> after = flat.master.host(), mean = flat.moments[0]->host();
  const std::vector<bf16> copy = flat.param16.host();
  for (std::size_t i = 0; i < elements; ++i) {
    double p = before[i], m = 0;
    for (int t = 0; t < 3 && !is_padding(i); ++t) {
      const GroupStep s = step_of(t).groups[group_of(i)];
      const double g = 0.5 * static_cast<double>(grad[i]), c = s.beta1 * m + (1 - s.beta1) * g;
      p -= s.lr * ((c > 0 ? 1 : -1) + s.weight_decay * p);
      m = s.beta2 * m + (1 - s.beta2) * g;
    }
    // Three steps in float against double.
    ASSERT_NEAR(after[i], p, 2e-6 * (1 + std::abs(p))) << i;
    ASSERT_NEAR(mean[i], m, 1e-7) << i;
    if (!is_padding(i)) {
      ASSERT_EQ(copy[i].bits, bf16(after[i]).bits) << i;
    }
  }
}

TEST_P(OptimizerTest, AdagradTakesTheStepsOfTheFormula) {
  const auto optimizer = make_optimizer({.kind = Kind::adagrad, .eps = 1e-10, .initial_accumulator = 0.25});
  Flat flat(session(), 1);
  const std::vector<float> before = flat.master.host(), grad = flat.grad.host();
  for (int t = 0; t < 3; ++t) flat.update(*optimizer, step_of(t), false);
  const std::vector<float> after = flat.master.host(), sums = flat.moments[0]->host();
  for (std::size_t i = 0; i < elements; ++i) {
    double p = before[i], sum = is_padding(i) ? 0 : 0.25;
    for (int t = 0; t < 3 && !is_padding(i); ++t) {
      const GroupStep s = step_of(t).groups[group_of(i)];
      const double g = 0.5 * static_cast<double>(grad[i]) + s.weight_decay * p;
      sum += g * g;
      p -= s.lr * g / (std::sqrt(sum) + 1e-10);
    }
    ASSERT_NEAR(after[i], p, 2e-6 * (1 + std::abs(p))) << i;
    ASSERT_NEAR(sums[i], sum, 1e-6 * (1 + sum)) << i;
  }
}

TEST_P(OptimizerTest, LambTakesTheStepsOfTheFormula) {
  const auto optimizer = make_optimizer({.kind = Kind::lamb, .eps = 1e-6});
  Flat flat(session(), 2);
  const std::vector<float> before = flat.master.host(), grad = flat.grad.host();
  for (int t = 0; t < 3; ++t) flat.update(*optimizer, step_of(t));
  const std::vector<float> after = flat.master.host();
  const std::vector<bf16> copy = flat.param16.host();
  for (const auto& [begin, end] : {std::pair<std::size_t, std::size_t>{0, padding_begin}, {padding_end, elements}}) {
    std::vector<double> p(before.begin() + static_cast<std::ptrdiff_t>(begin),
                          before.begin() + static_cast<std::ptrdiff_t>(end)),
        m(p.size()), v(p.size()), u(p.size());
    for (int t = 0; t < 3; ++t) {
      const GroupStep s = step_of(t).groups[group_of(begin)];
      double p2 = 0, u2 = 0;
      for (std::size_t i = 0; i < p.size(); ++i) {
        const double g = 0.5 * static_cast<double>(grad[begin + i]);
        m[i] = s.beta1 * m[i] + (1 - s.beta1) * g;
        v[i] = s.beta2 * v[i] + (1 - s.beta2) * g * g;
        u[i] = m[i] / (std::sqrt(v[i]) + 1e-6) + s.weight_decay * p[i];
        p2 += p[i] * p[i];
        u2 += u[i] * u[i];
      }
      const double trust = std::sqrt(p2 / u2), size = s.lr * std::sqrt(s.correction2) / s.correction1;
      for (std::size_t i = 0; i < p.size(); ++i) p[i] -= size * trust * u[i];
    }
    for (std::size_t i = 0; i < p.size(); ++i) {
      // Three steps in float against double.
      ASSERT_NEAR(after[begin + i], p[i], 2e-6 * (1 + std::abs(p[i]))) << begin + i;
      ASSERT_EQ(copy[begin + i].bits, bf16(after[begin + i]).bits) << begin + i;
    }
  }
  for (std::size_t i = padding_begin; i < padding_end; ++i) ASSERT_EQ(after[i], before[i]);
}

/// A matrix [in, out] and a vector behind it, after one update of Muon.
std::vector<float> muon_step(const Session& session, std::int64_t in, std::int64_t out, std::int32_t skip = 0) {
  const auto matrix = static_cast<std::size_t>(in * out), all = matrix + 40;
  const auto optimizer = make_optimizer({.kind = Kind::muon, .nesterov = true}, {{{0, 1}, in, out}, {{1, 1}, 0, 0}});
  Step step = step_of(0);
  for (GroupStep& group : step.groups) group.weight_decay = 0;
  for (GroupStep& group : step.groups) group.round();
  step.state.skip = skip;
  const Array<float> master(session, testing::normal_values<float>(all, 1)), m(session, all), v(session, all),
      grad(session, testing::normal_values<float>(all, 2, 0.1));
  const Array<Tile> tiles(session,
                          {unsharded_tile(0, static_cast<std::uint32_t>(matrix), 0), unsharded_tile(matrix, 40, 1)});
  const Array<GroupStep> groups(session, step.groups);
  const Array<StepState> state(session, {step.state});
  const Array<std::byte> scratch(session, optimizer->scratch_bytes(2));
  optimizer->update(session.exec(),
                    {.master = master.data(),
                     .grad = {.source = {grad.data()}},
                     .tiles = tiles.data(),
                     .tile_count = 2,
                     .scratch = scratch.data(),
                     .groups = groups.data(),
                     .state = state.data()},
                    {m.data(), v.data()});
  return master.host();
}

TEST_P(OptimizerTest, MuonsStepOfAMatrixIsNearlyOrthogonal) {
  for (const auto& [in, out] : {std::pair<std::int64_t, std::int64_t>{24, 40}, {40, 24}, {30, 30}}) {
    const std::vector<float> after = muon_step(session(), in, out);
    const std::vector<float> before = testing::normal_values<float>(after.size(), 1);
    const double size = 0.01 * std::sqrt(std::max(1.0, static_cast<double>(out) / static_cast<double>(in)));
    const auto step = [&](std::int64_t i, std::int64_t j) {
      const auto at = static_cast<std::size_t>(i * out + j);
      return (static_cast<double>(before[at]) - static_cast<double>(after[at])) / size;
    };
    // Singular values near 1, of whose squares this is the sum: n of them, each from 0.68 to 1.13 by the iteration.
    double sum = 0;
    for (std::int64_t i = 0; i < in; ++i)
      for (std::int64_t j = 0; j < out; ++j) sum += step(i, j) * step(i, j);
    const auto n = static_cast<double>(std::min(in, out));
    EXPECT_GT(sum, 0.4 * n) << in << " x " << out;
    EXPECT_LT(sum, 1.5 * n) << in << " x " << out;
    // The vector's is AdamW's first: the rate, with the sign of the gradient.
    for (std::size_t i = after.size() - 40; i < after.size(); ++i)
      ASSERT_NEAR(std::abs(after[i] - before[i]), 0.002, 1e-5);
  }
}

TEST_P(OptimizerTest, MuonsBitsDoNotDependOnThreads) {
  const Session one(GetParam(), 1), three(GetParam(), 3);
  EXPECT_EQ(muon_step(one, 96, 120), muon_step(three, 96, 120));
}

TEST_P(OptimizerTest, MuonsSkippedStepChangesNothing) {
  const std::vector<float> after = muon_step(session(), 12, 8, 1);
  EXPECT_EQ(after, testing::normal_values<float>(after.size(), 1));
}

TEST_P(OptimizerTest, ASkippedStepChangesNothing) {
  for (const Kind kind : {Kind::adam, Kind::sgd, Kind::lion, Kind::adagrad, Kind::lamb}) {
    const auto optimizer = make_optimizer({.kind = kind, .momentum = true});
    Flat flat(session(), optimizer->moments().size());
    const std::vector<float> before = flat.master.host();
    Step step = step_of(0);
    step.state.skip = 1;
    flat.update(*optimizer, step);
    EXPECT_EQ(flat.master.host(), before);
    for (const auto& moment : flat.moments) EXPECT_EQ(moment->host(), std::vector<float>(elements, 0.0F));
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, OptimizerTest, testing::all_backends(), testing::backend_name);

TEST(Optimizer, EachOneNamesItselfAndItsMoments) {
  EXPECT_EQ(make_optimizer({.kind = Kind::adam})->name(), "AdamW");
  EXPECT_EQ(make_optimizer({.kind = Kind::adam, .decoupled = false})->name(), "Adam");
  EXPECT_EQ(make_optimizer({.kind = Kind::sgd})->name(), "SGD");
  EXPECT_EQ(make_optimizer({.kind = Kind::adam})->moments(), (std::vector<std::string>{"exp_avg", "exp_avg_sq"}));
  EXPECT_EQ(make_optimizer({.kind = Kind::sgd})->moments(), std::vector<std::string>{});
  EXPECT_EQ(make_optimizer({.kind = Kind::sgd, .momentum = true})->moments(),
            std::vector<std::string>{"momentum_buffer"});
  EXPECT_EQ(make_optimizer({.kind = Kind::lion})->name(), "Lion");
  EXPECT_EQ(make_optimizer({.kind = Kind::lion})->moments(), std::vector<std::string>{"exp_avg"});
  EXPECT_EQ(make_optimizer({.kind = Kind::adagrad})->name(), "Adagrad");
  EXPECT_EQ(make_optimizer({.kind = Kind::adagrad})->moments(), std::vector<std::string>{"sum"});
  for (const Kind kind : {Kind::adam, Kind::sgd, Kind::lion, Kind::adagrad})
    EXPECT_EQ(make_optimizer({.kind = kind})->granularity(), Granularity::element);
  EXPECT_EQ(make_optimizer({.kind = Kind::lamb})->name(), "Lamb");
  EXPECT_EQ(make_optimizer({.kind = Kind::lamb})->moments(), (std::vector<std::string>{"exp_avg", "exp_avg_sq"}));
  EXPECT_EQ(make_optimizer({.kind = Kind::lamb})->granularity(), Granularity::tensor_norm);
}

TEST(Optimizer, MuonLooksAtWholeMatricesAndMustKnowThemToUpdate) {
  const auto muon = make_optimizer({.kind = Kind::muon}, {{{0, 1}, 4, 4}});
  EXPECT_EQ(muon->name(), "Muon");
  EXPECT_EQ(muon->moments(), (std::vector<std::string>{"exp_avg", "exp_avg_sq"}));
  EXPECT_EQ(muon->granularity(), Granularity::whole_matrix);
  const auto without = make_optimizer({.kind = Kind::muon});
  EXPECT_EQ(without->moments(), muon->moments());
  EXPECT_THROW(without->update({}, {}, {nullptr, nullptr}), Error);
}

TEST(Optimizer, LambsSmallestRatioIsNotAboveItsLargest) {
  EXPECT_NO_THROW(make_optimizer({.kind = Kind::lamb, .min_coeff = 2, .max_coeff = 2}));
  EXPECT_THROW(make_optimizer({.kind = Kind::lamb, .min_coeff = 3, .max_coeff = 2}), Error);
}

TEST(Optimizer, NesterovNeedsMomentumWithoutDampening) {
  EXPECT_NO_THROW(make_optimizer({.kind = Kind::sgd, .momentum = true, .nesterov = true}));
  EXPECT_THROW(make_optimizer({.kind = Kind::sgd, .nesterov = true}), Error);
  EXPECT_THROW(make_optimizer({.kind = Kind::sgd, .momentum = true, .dampening = 0.1, .nesterov = true}), Error);
}

}  // namespace
}  // namespace lockstep::optim
