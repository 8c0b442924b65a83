#include "kernels/decide/decide.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "tests/support/kernel_backends.hpp"

namespace lockstep::testing {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

/// A step's inputs as 64-byte aligned units; row r of group g of their record has lr (r + 1) / 8 + g.
class Record {
 public:
  Record(std::int64_t step, std::int64_t first_index, std::int32_t count, std::int32_t groups)
      : units_((sizeof(StepInputs) + record_bytes(count, groups) + 63) / 64) {
    StepRecord& r = header();
    r.step = step;
    r.first_index = first_index;
    r.count = count;
    r.groups = groups;
    for (std::int32_t row = 0; row < count; ++row)
      for (std::int32_t g = 0; g < groups; ++g)
        r.rows()[row * groups + g] = {(row + 1) / 8.0 + g, 0.9, 0.999, 0.5, 0.01};
    sign();
  }
  StepInputs& inputs() { return *reinterpret_cast<StepInputs*>(units_.data()); }
  StepRecord& header() { return inputs().record(); }
  /// As evaluated by rank 0 and by this rank.
  void sign() { inputs().own_digest = header().digest = record_digest(header()); }

  struct alignas(64) Unit {
    unsigned char byte[64] = {};
  };
  [[nodiscard]] const std::vector<Unit>& units() const { return units_; }

 private:
  std::vector<Unit> units_;
};

struct Outcome {
  StepState state;
  StepResult result;
  std::vector<GroupStep> groups;
  std::vector<StepValues> values;  ///< that came back with the result
};

/// Storage of a result with its values, of up to 8 groups.
struct alignas(64) ResultBlock {
  StepResult result;
  StepValues values[8];
};
static_assert(sizeof(ResultBlock) >= result_bytes(8));

struct Step {
  StepState state;
  ScalerConfig scaler;
  std::vector<StepReport> reports = {StepReport{}};
  std::int32_t replicated = 1;
  std::int32_t bias_correction = 1;
  double clip = 0;
  double grad_divisor = 1;
};

class Decide : public KernelTest {
 protected:
  Outcome run(const Step& step, Record record) const {
    const Array<Record::Unit> inputs(session(), record.units());
    const Array<StepReport> reports(session(), step.reports);
    const Array<StepState> state(session(), std::vector<StepState>{step.state});
    const auto groups = static_cast<std::size_t>(record.header().groups);
    const Array<GroupStep> group_steps(session(), groups);
    const Array<ResultBlock> result(session(), 1);
    DecideArgs args;
    args.inputs = reinterpret_cast<const StepInputs*>(inputs.data());
    args.reports = reports.data();
    args.world = static_cast<std::int32_t>(step.reports.size());
    args.replicated = step.replicated;
    args.bias_correction = step.bias_correction;
    args.groups = static_cast<std::int32_t>(groups);
    args.clip = step.clip;
    args.grad_divisor = step.grad_divisor;
    args.scaler = step.scaler;
    args.state = state.data();
    args.group_steps = group_steps.data();
    args.result = &result.data()->result;
    kernels::decide(exec(), args);
    const ResultBlock back = result.host()[0];
    return {state.host()[0], back.result, group_steps.host(), {back.values, back.values + groups}};
  }

  /// A record that fits the state.
  static Record record_for(const StepState& state) { return {state.attempted, state.applied, 1, 1}; }
};

StepReport report_of(double norm2, double loss = 0, double weight = 0, std::int64_t bad = -1, std::int64_t stop = 0) {
  StepReport report;
  report.norm2 = norm2;
  report.first_bad = bad;
  report.loss_sum = loss;
  report.weight_sum = weight;
  report.stop = stop;
  return report;
}

ScalerConfig fp16(double scale, std::int64_t window = 2, std::int64_t hysteresis = 1, double min_scale = 1) {
  ScalerConfig config;
  config.on_overflow = ScalerConfig::OnOverflow::scaled;
  config.dynamic = 1;
  config.initial_scale = scale;
  config.min_scale = min_scale;
  config.window = window;
  config.hysteresis = hysteresis;
  return config;
}

TEST_P(Decide, AppliesAStepWithBiasCorrectionAndTheRowOfItsOwnCount) {
  Step step;
  step.state.applied = 4;
  step.state.attempted = 6;
  step.reports = {report_of(9.0, 10, 4), report_of(100.0, 20, 6)};
  const Outcome out = run(step, Record(6, 3, 3, 2));  // rows for updates 3, 4 and 5
  EXPECT_EQ(out.state.applied, 5);
  EXPECT_EQ(out.state.attempted, 7);
  EXPECT_EQ(out.state.skip, 0);
  ASSERT_EQ(out.groups.size(), 2U);
  EXPECT_EQ(out.groups[0].lr, 2 / 8.0);
  EXPECT_EQ(out.groups[1].lr, 2 / 8.0 + 1);
  EXPECT_EQ(out.groups[1].momentum, 0.5);
  EXPECT_EQ(out.groups[1].weight_decay, 0.01);
  EXPECT_EQ(out.values, (std::vector<StepValues>{out.groups[0], out.groups[1]})) << "what was applied comes back";
  // pow() of one library and another: a few units in the last place of 1.
  EXPECT_NEAR(out.groups[0].correction1, 1 - std::pow(0.9, 5), 1e-15);
  EXPECT_NEAR(out.groups[0].correction2, 1 - std::pow(0.999, 5), 1e-15);
  EXPECT_EQ(out.result.step, 6);
  EXPECT_EQ(out.result.applied, 5);
  EXPECT_EQ(out.result.loss, 3.0);       // (10 + 20) / (4 + 6)
  EXPECT_EQ(out.result.grad_norm, 3.0);  // replicated: rank 0's norm alone
}

TEST_P(Decide, PartialNormsAreSummedOverRanks) {
  Step step;
  step.reports = {report_of(9.0), report_of(16.0)};
  step.replicated = 0;
  step.grad_divisor = 2;
  EXPECT_EQ(run(step, record_for(step.state)).result.grad_norm, 2.5);
}

TEST_P(Decide, WithoutBiasCorrectionTheCorrectionsAreOne) {
  Step step;
  step.bias_correction = 0;
  const Outcome out = run(step, record_for(step.state));
  EXPECT_EQ(out.groups[0].correction1, 1.0);
  EXPECT_EQ(out.groups[0].correction2, 1.0);
}

TEST_P(Decide, ClipsTheUnscaledNorm) {
  Step step;
  step.state.scale = 8;
  step.scaler = fp16(8, 1000);
  step.grad_divisor = 2;
  step.reports = {report_of(16.0 * 16 * 25)};  // unscaled norm 5
  EXPECT_EQ(run(step, record_for(step.state)).state.grad_factor, 1.0 / 16);
  step.clip = 10;
  EXPECT_EQ(run(step, record_for(step.state)).state.grad_factor, 1.0 / 16);
  step.clip = 1;
  const Outcome out = run(step, record_for(step.state));
  EXPECT_NEAR(out.state.grad_factor * 16 * (5 + 1e-6), 1.0, 1e-14);
  EXPECT_EQ(out.result.grad_norm, 5.0);
}

TEST_P(Decide, OverflowSkipsHalvesTheScaleAndDoesNotAdvanceTheSchedule) {
  Step step;
  step.scaler = fp16(64);
  step.state = initial_state(step.scaler);
  step.state.applied = 3;
  step.state.attempted = 3;
  step.reports = {report_of(1, 1, 1, 900), report_of(1, 1, 1, 50), report_of(1, 1, 1)};
  const Outcome out = run(step, record_for(step.state));
  EXPECT_EQ(out.state.skip, 1);
  EXPECT_EQ(out.state.applied, 3);
  EXPECT_EQ(out.state.attempted, 4);
  EXPECT_EQ(out.state.scale, 32);
  EXPECT_EQ(out.state.first_bad, 50);
  EXPECT_EQ(out.state.grad_factor, 0);
  EXPECT_EQ(out.result.scale, 64);
  EXPECT_EQ(out.result.next_scale, 32);
  EXPECT_EQ(out.result.skipped, 1);
  EXPECT_EQ(out.result.first_bad, 50);
  EXPECT_EQ(out.values, std::vector<StepValues>(1, record_for(step.state).header().rows()[0]))
      << "what it would have used";
}

TEST_P(Decide, AnInfiniteNormAloneIsAnOverflow) {
  Step step;
  step.scaler = fp16(64);
  step.state = initial_state(step.scaler);
  step.reports = {report_of(inf)};
  EXPECT_EQ(run(step, record_for(step.state)).state.skip, 1);
}

TEST_P(Decide, ScaleFollowsTheDynamicScaler) {
  // Window 2, hysteresis 2: overflows at steps 0 and 1 use up the forgiveness and halve; clean steps 2, 3, 4, 5 double
  // the scale after every second clean one past the first.
  Step step;
  step.scaler = fp16(16, 2, 2);
  step.state = initial_state(step.scaler);
  std::vector<double> scales;
  for (const bool overflow : {true, true, false, false, false, false, false, true}) {
    step.reports = {report_of(overflow ? inf : 1.0)};
    step.state = run(step, record_for(step.state)).state;
    scales.push_back(step.state.scale);
  }
  // iteration - last_overflow - 1 is 0, 1, 2, 3, 4 in the clean steps: doublings at 2 and 4, each refilling hysteresis.
  EXPECT_EQ(scales, (std::vector<double>{16, 8, 8, 8, 16, 16, 32, 32}));
  EXPECT_EQ(step.state.hysteresis, 1);
}

TEST_P(Decide, OverflowAtTheSmallestScaleHaltsForGood) {
  Step step;
  step.scaler = fp16(2, 1000, 1, 2);
  step.state = initial_state(step.scaler);
  step.reports = {report_of(inf)};
  Outcome out = run(step, record_for(step.state));
  EXPECT_EQ(out.state.halt, Halt::scale_floor);
  EXPECT_EQ(out.result.halt, Halt::scale_floor);
  EXPECT_EQ(out.state.skip, 1);
  step.state = out.state;
  step.reports = {report_of(1.0)};  // a good step changes nothing any more
  out = run(step, record_for(step.state));
  EXPECT_EQ(out.state.halt, Halt::scale_floor);
  EXPECT_EQ(out.state.applied, 0);
  EXPECT_EQ(out.state.attempted, 0);
  EXPECT_EQ(out.state.skip, 1);
  EXPECT_EQ(out.state.scale, 2);
}

TEST_P(Decide, AStaticScaleNeverMovesAndNeverHalts) {
  Step step;
  step.scaler = fp16(128);
  step.scaler.dynamic = 0;
  step.state = initial_state(step.scaler);
  step.reports = {report_of(inf)};
  const Outcome out = run(step, record_for(step.state));
  EXPECT_EQ(out.state.scale, 128);
  EXPECT_EQ(out.state.skip, 1);
  EXPECT_EQ(out.state.halt, Halt::none);
}

TEST_P(Decide, NonFiniteHaltsFp32AndSkipsBf16) {
  Step step;
  step.reports = {report_of(inf, 0, 0, 17)};
  Outcome out = run(step, record_for(step.state));
  EXPECT_EQ(out.state.halt, Halt::non_finite);
  EXPECT_EQ(out.state.first_bad, 17);
  step.scaler.on_overflow = ScalerConfig::OnOverflow::skip;
  out = run(step, record_for(step.state));
  EXPECT_EQ(out.state.halt, Halt::none);
  EXPECT_EQ(out.state.skip, 1);
  EXPECT_EQ(out.state.attempted, 1);
}

TEST_P(Decide, ADifferentOwnEvaluationIsADesync) {
  Step step;
  Record own = record_for(step.state);
  own.header().rows()[0].lr = std::nextafter(own.header().rows()[0].lr, 1.0);
  own.sign();
  Record record = record_for(step.state);
  record.inputs().own_digest = own.header().digest;
  const Outcome out = run(step, record);
  EXPECT_EQ(out.state.halt, Halt::desync);
  EXPECT_EQ(out.state.applied, 0);
  EXPECT_EQ(out.state.skip, 1);
}

TEST_P(Decide, ARecordOfAnotherStepOrWithoutTheRowIsADesync) {
  Step step;
  step.state.applied = 5;
  step.state.attempted = 5;
  for (const auto& record : {Record(4, 5, 1, 1), Record(5, 6, 1, 1), Record(5, 2, 3, 1)})
    EXPECT_EQ(run(step, record).state.halt, Halt::desync);
  EXPECT_EQ(run(step, Record(5, 2, 4, 1)).state.halt, Halt::none);
}

TEST_P(Decide, AStopRequestOfAnyRankReachesTheResult) {
  Step step;
  step.reports = {report_of(1), report_of(1, 0, 0, -1, 1)};
  EXPECT_EQ(run(step, record_for(step.state)).result.stop, 1);
}

TEST_P(Decide, WishesOfDifferentRanksAreAllInTheResult) {
  Step step;
  step.reports = {report_of(1, 0, 0, -1, 4), report_of(1), report_of(1, 0, 0, -1, 1)};
  EXPECT_EQ(run(step, record_for(step.state)).result.stop, 5);
}

TEST_P(Decide, RefusesMissingArguments) { EXPECT_THROW(kernels::decide(exec(), {}), Error); }

INSTANTIATE_TEST_SUITE_P(Kernels, Decide, all_backends(), backend_name);

TEST(RecordDigest, ChangesWithEveryBitOfEveryValue) {
  Record record(1, 2, 2, 3);
  const std::uint64_t digest = record.header().digest;
  EXPECT_EQ(record_digest(record.header()), digest);
  auto* bytes = reinterpret_cast<unsigned char*>(&record.header());
  const std::size_t rows_end = record_bytes(2, 3);
  for (std::size_t i = 0; i < rows_end; ++i) {
    const bool covered = i < offsetof(StepRecord, digest) || i >= sizeof(StepRecord);
    const bool extent = i >= offsetof(StepRecord, count) && i < offsetof(StepRecord, digest);
    if (!covered || extent) continue;  // count and groups say how much is read
    bytes[i] = static_cast<unsigned char>(bytes[i] ^ 1U);
    EXPECT_NE(record_digest(record.header()), digest) << "byte " << i;
    bytes[i] = static_cast<unsigned char>(bytes[i] ^ 1U);
  }
  EXPECT_EQ(record_digest(record.header()), digest);
  EXPECT_NE(Record(1, 2, 3, 2).header().digest, digest);
}

TEST(RecordDigest, IsFnv1a) {
  // FNV-1a's published start value and prime, over 24 bytes of header and 40 of one row.
  Record record(0, 0, 1, 1);
  record.header().rows()[0] = {};
  std::uint64_t expected = 0xcbf29ce484222325ULL;
  for (int i = 0; i < 64; ++i) expected = (expected ^ (i == 16 || i == 20 ? 1U : 0U)) * 0x100000001b3ULL;
  EXPECT_EQ(record_digest(record.header()), expected);
}

TEST(InitialState, TakesTheScalerNumbers) {
  const StepState state = initial_state(fp16(4096, 10, 3));
  EXPECT_EQ(state.scale, 4096);
  EXPECT_EQ(state.hysteresis, 3);
  EXPECT_EQ(state.last_overflow, -1);
  EXPECT_EQ(state.applied, 0);
}

}  // namespace
}  // namespace lockstep::testing
