// What models end in: the head's loss in chunks, and the logits of generation.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "core/error.hpp"
#include "core/isa.hpp"
#include "nn/ops.hpp"
#include "tests/nn/rig.hpp"

namespace lockstep::nn {
namespace {

using lockstep::testing::MemoryStore;
using lockstep::testing::Rig;
using ::testing::HasSubstr;

constexpr std::int64_t rows = 150, width = 5, classes = 9, padded = 11;
constexpr TiedHead head = {.wte = 0, .rows = padded, .classes = classes};
constexpr double grad_factor = 0.25;

std::vector<ParameterSpec> wte() {
  return {{.name = "wte", .shape = {classes, width}, .stored_rows = padded, .init = Init::normal}};
}
std::vector<float> inputs() {
  std::vector<float> x;
  for (int i = 0; i < rows * width; ++i) x.push_back(std::sin(1.3F * static_cast<float>(i)));
  return x;
}
std::vector<std::int32_t> targets() {
  std::vector<std::int32_t> result;
  for (std::int32_t r = 0; r < rows; ++r) result.push_back(r % 7 == 3 ? -1 : static_cast<std::int32_t>(r % classes));
  return result;
}

struct Result {
  LossSum loss;
  std::vector<float> dx;
  bool in_place = false;  ///< dx is where x was
};

/// One pass of the head alone; with backward unless it is an evaluation.
Result run_head(const Rig& rig, MemoryStore& store, std::int64_t chunk_rows, Mode mode = Mode::train,
                const StepState* state = nullptr, const std::vector<std::int32_t>& target = targets()) {
  const testing::SharedMemory memory(rig.device(), 1 << 18), loss(rig.device(), sizeof(LossSum));
  Workspace workspace(memory.data(), memory.bytes());
  Result result;
  Context context({.exec = rig.exec(),
                   .store = &store,
                   .workspace = &workspace,
                   .mode = mode,
                   .loss = loss.as<LossSum>().data(),
                   .state = state == nullptr ? nullptr : rig.keep(std::vector<StepState>{*state})});
  Tensor x = context.make({rows, width});
  const TensorRef of_x = x;
  const void* const at = x.data();
  const std::vector<float> values = inputs();
  std::copy(values.begin(), values.end(), x.as<float>());
  {
    const Context::UnitScope scope(context, 0);
    head_loss(context, std::move(x), head, {rig.keep(target), rig.keep(std::vector<double>{grad_factor})}, chunk_rows);
  }
  if (mode == Mode::train) context.backward();
  rig.synchronize();
  result.loss = loss.as<LossSum>()[0];
  if (mode == Mode::evaluate) return result;
  const Tensor dx = context.take_grad(of_x).tensor;
  result.dx.assign(dx.as<float>(), dx.as<float>() + rows * width);
  result.in_place = dx.data() == at;
  return result;
}

/// The formula in double.
struct Expected {
  double loss = 0, weight = 0;
  std::vector<double> dx = std::vector<double>(rows * width), dwte = std::vector<double>(padded * width);

  Expected(const float* wte_values, double factor) {
    const std::vector<float> x = inputs();
    const std::vector<std::int32_t> target = targets();
    const auto w = [&](std::int64_t c, std::int64_t k) { return static_cast<double>(wte_values[c * width + k]); };
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int32_t t = target[static_cast<std::size_t>(r)];
      if (t < 0) continue;
      double logit[classes] = {}, sum = 0;
      for (std::int64_t c = 0; c < classes; ++c) {
        for (std::int64_t k = 0; k < width; ++k)
          logit[c] += static_cast<double>(x[static_cast<std::size_t>(r * width + k)]) * w(c, k);
        sum += std::exp(logit[c]);
      }
      loss += std::log(sum) - logit[t];
      weight += 1;
      for (std::int64_t c = 0; c < classes; ++c) {
        const double dlogit = factor * (std::exp(logit[c]) / sum - (c == t ? 1 : 0));
        for (std::int64_t k = 0; k < width; ++k) {
          const auto in = static_cast<std::size_t>(r * width + k);
          dx[in] += dlogit * w(c, k);
          dwte[static_cast<std::size_t>(c * width + k)] += dlogit * static_cast<double>(x[in]);
        }
      }
    }
  }
};

class HeadLoss : public testing::TableTest {
 protected:
  void SetUp() override {
    testing::TableTest::SetUp();
    if (!IsSkipped()) made_.emplace(table());
  }
  [[nodiscard]] const Rig& rig() const { return made_->rig; }
  [[nodiscard]] MemoryStore& store() { return made_->store; }

 private:
  struct Made {
    explicit Made(const std::string& table) : rig(table) {}
    Rig rig;
    MemoryStore store{rig.device(), wte(), DType::f32, testing::sine_values(specs_)};
  };
  std::optional<Made> made_;
  static inline const std::vector<ParameterSpec> specs_ = wte();
};

/// Where the host sees the targets; a device's kernels give NaN.
class HeadOnHost : public HeadLoss {};
INSTANTIATE_TEST_SUITE_P(Ops, HeadOnHost, testing::immediate_tables(), [](const auto& test) { return test.param; });

TEST_P(HeadLoss, LossAndGradientsAreThoseOfTheFormulaForAnyChunks) {
  const StepState state = {.scale = 4};
  const Expected expected(store().master(0), grad_factor * state.scale);
  for (const std::int64_t chunk_rows : {64, 128, 192}) {
    store().begin_step();

    const Result result = run_head(rig(), store(), chunk_rows, Mode::train, &state);

    // fp32 against double: 192 losses of about 2, rows of a gradient, and sums of 192 rows for the weight.
    EXPECT_NEAR(result.loss.loss, expected.loss, 1e-4);
    EXPECT_EQ(result.loss.weight, expected.weight);
    for (std::size_t i = 0; i < expected.dx.size(); ++i) EXPECT_NEAR(result.dx[i], expected.dx[i], 1e-6) << i;
    for (std::size_t i = 0; i < expected.dwte.size(); ++i)
      EXPECT_NEAR(store().final_grad(0)[i], expected.dwte[i], 2e-5) << i;
  }
}

/// A row's arithmetic is the same wherever its chunk begins, and losses are summed in blocks that no chunk cuts; only
/// the sum over rows in the gradient of wte goes another way. oneDNN's fp32 products for AVX2 alone round a row by how
/// many rows they get.
TEST_P(HeadLoss, ChunksChangeNothingButTheOrderOfTheWeightGradientsSum) {
  const Result whole = run_head(rig(), store(), 192);
  const std::vector<float> whole_dwte(store().final_grad(0), store().final_grad(0) + padded * width);
  store().begin_step();

  const Result chunked = run_head(rig(), store(), 64);

  EXPECT_EQ(chunked.loss.weight, whole.loss.weight);
  if (GetParam() == "cpu" && current_isa() < Isa::avx512) {
    EXPECT_NEAR(chunked.loss.loss, whole.loss.loss, 1e-4);
    for (std::size_t i = 0; i < whole.dx.size(); ++i) EXPECT_NEAR(chunked.dx[i], whole.dx[i], 1e-6) << i;
  } else {
    EXPECT_EQ(chunked.loss.loss, whole.loss.loss);
    EXPECT_EQ(chunked.dx, whole.dx);
  }
  // Sums of 192 fp32 terms in another order.
  for (std::size_t i = 0; i < whole_dwte.size(); ++i)
    EXPECT_NEAR(store().final_grad(0)[i], whole_dwte[i], 2e-6F * (1 + std::fabs(whole_dwte[i]))) << i;
}

TEST_P(HeadLoss, IsOneContributionThatIsAddedToAnEarlierOne) {
  (void)run_head(rig(), store(), 64);
  const std::vector<float> once(store().final_grad(0), store().final_grad(0) + padded * width);

  (void)run_head(rig(), store(), 64);

  EXPECT_EQ(store().contributions()[0], 2);
  for (std::size_t i = 0; i < once.size(); ++i) {
    ASSERT_TRUE(std::isfinite(once[i])) << "the first chunk writes";
    // The same terms twice, added one by one: fp32 rounding.
    EXPECT_NEAR(store().final_grad(0)[i], 2 * once[i], 1e-5F * (1 + std::fabs(once[i]))) << i;
  }
}

TEST_P(HeadLoss, EvaluationHasTheSameLossAndTouchesNoGradient) {
  const Result trained = run_head(rig(), store(), 64);
  store().begin_step();  // NaN everywhere

  const Result evaluated = run_head(rig(), store(), 64, Mode::evaluate);

  EXPECT_EQ(evaluated.loss.loss, trained.loss.loss);
  EXPECT_EQ(evaluated.loss.weight, trained.loss.weight);
  EXPECT_EQ(store().contributions()[0], 1);
  EXPECT_TRUE(std::isnan(store().final_grad(0)[0]));
}

TEST_P(HeadLoss, TheInputsGradientTakesItsPlace) { EXPECT_TRUE(run_head(rig(), store(), 64).in_place); }

TEST_P(HeadOnHost, ATargetOutsideIsNamedWithItsRowInTheBatch) {
  std::vector<std::int32_t> target = targets();
  target[130] = 9;
  for (const Mode mode : {Mode::train, Mode::evaluate}) {
    try {
      (void)run_head(rig(), store(), 64, mode, nullptr, target);
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::data);
      EXPECT_THAT(error.what(), HasSubstr("target 9 of row 130 is outside the 9 classes"));
    }
    store().release(0, mode == Mode::train ? Phase::backward : Phase::forward);
  }
}

TEST_P(HeadLoss, LastLogitsAreThoseOfEachSamplesLastPosition) {
  const std::int64_t batch = 3, length = 50;
  const testing::SharedMemory memory(rig().device(), 1 << 16);
  Workspace workspace(memory.data(), memory.bytes());
  Context context({.exec = rig().exec(), .store = &store(), .workspace = &workspace, .mode = Mode::evaluate});
  const Tensor x = context.make({batch, length, width});
  const std::vector<float> values = inputs();
  std::copy(values.begin(), values.end(), x.as<float>());
  const Context::UnitScope scope(context, 0);

  const Tensor logits = last_logits(context, x, head);
  rig().synchronize();

  ASSERT_EQ(logits.shape(), (Shape{batch, padded}));
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t c = 0; c < padded; ++c) {
      double expected = 0;
      for (std::int64_t k = 0; k < width; ++k)
        expected += static_cast<double>(values[static_cast<std::size_t>((b * length + length - 1) * width + k)]) *
                    static_cast<double>(store().master(0)[c * width + k]);
      // A dot product of `width` fp32 terms below 1.
      EXPECT_NEAR(logits.as<float>()[b * padded + c], expected, 1e-6) << b << ", " << c;
    }
}

INSTANTIATE_TEST_SUITE_P(Ops, HeadLoss, testing::all_tables(), [](const auto& test) { return test.param; });

/// The reference table, with products written down as well.
std::vector<MatmulArgs> products;
Status matmul_noted(const Exec& exec, const MatmulArgs& args) {
  products.push_back(args);
  return kernels::reference_table().matmul(exec, args);
}

TEST(Head, ComputesNoProductTwice) {
  KernelTable table = kernels::reference_table();
  table.matmul = matmul_noted;
  const Rig rig(table);
  const std::vector<ParameterSpec> specs = wte();
  MemoryStore store(rig.device(), specs, DType::f32, testing::sine_values(specs));
  products.clear();

  (void)run_head(rig, store, 64);

  ASSERT_EQ(products.size(), 9U) << "logits, dwte and dx of three chunks";
  for (std::size_t i = 0; i < products.size(); ++i) {
    const MatmulArgs& args = products[i];
    EXPECT_EQ(args.b_param, args.b == store.master(0) ? 0 : -1) << "keys packed copies";
    EXPECT_EQ(args.b_version, args.b == store.master(0) ? store.version(0) : 0);
    if (args.c == store.final_grad(0)) {
      EXPECT_EQ(args.accumulate, i < 3 ? 0 : 1) << "the first chunk replaces, others add";
    }
  }
  products.clear();
  (void)run_head(rig, store, 64, Mode::evaluate);
  EXPECT_EQ(products.size(), 3U) << "logits alone";
}

TEST(Head, ChunksFollowFromShapesAndAreEven) {
  EXPECT_EQ(head_chunk_rows(4096, 50304, DType::f32), 320) << "at most 333 rows take 64 MiB: 13 chunks";
  EXPECT_EQ(head_chunk_rows(1024, 50304, DType::f32), 256) << "4 chunks";
  EXPECT_EQ(head_chunk_rows(1024, 50304, DType::bf16), 512) << "2 chunks of at most 667 rows";
  EXPECT_EQ(head_chunk_rows(2048, 64, DType::f32), 2048) << "one";
  EXPECT_EQ(head_chunk_rows(10, 64, DType::f32), 64) << "a multiple of 64 even so";
  EXPECT_EQ(head_chunk_rows(1000, std::int64_t{1} << 30, DType::f32), 64) << "never less";
}

/// Plans, so no kernel runs.
TEST(Head, RefusesWhatCannotWork) {
  Workspace workspace;
  Context context({.exec = {.table = &kernels::reference_table()}, .workspace = &workspace, .mode = Mode::plan});
  EXPECT_THROW(head_loss(context, context.make({2, 5}), {.wte = 0, .rows = 5, .classes = 6}, {}, 64), Error);
  EXPECT_THROW(head_loss(context, context.make({2, 5}), head, {}, 100), Error);
  EXPECT_THROW((void)last_logits(context, context.make({2, 3, 5}), head), Error) << "training";
}

}  // namespace
}  // namespace lockstep::nn
