#include "sched/schedule.hpp"

#include <gmock/gmock.h>

#include <set>

#include "config/field_value.hpp"
#include "tests/sched/cases.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scheduler.hpp"

namespace lockstep::sched {
namespace {

using ::testing::HasSubstr;

TEST(Types, EveryTypeHasACase) {
  std::set<std::string> tried;
  for (const Case& c : cases()) tried.insert(c.type);
  const std::vector<std::string> all = types();
  EXPECT_EQ(tried, std::set<std::string>(all.begin(), all.end()));
}

TEST(Types, FieldsAreDocumented) {
  for (const std::string& type : types())
    for (const Field& field : fields_of(type)) {
      EXPECT_FALSE(field.doc.empty()) << type << '.' << field.name;
      EXPECT_NE(field.required, !field.default_text.empty()) << type << '.' << field.name;
    }
}

class EveryType : public ::testing::TestWithParam<Case> {};

// The engine asks by update, DeepSpeed's object is stepped: both must use the same numbers for every update.
TEST_P(EveryType, BothFacesAgree) {
  const auto groups = adam_groups(2);
  Scheduler stepped(GetParam().type, GetParam().params, groups);
  const auto schedule = make_schedule(GetParam().type, GetParam().params, groups);
  for (std::int64_t k = 0; k < 40; ++k) {
    std::vector<StepValues> values(2);
    schedule->values_at(k, values);
    for (std::size_t g = 0; g < 2; ++g) {
      const GroupInitial& used = stepped.groups()[g];
      EXPECT_EQ(values[g], static_cast<const StepValues&>(used)) << "update " << k << ", group " << g;
      EXPECT_EQ(values[g].weight_decay, groups[g].weight_decay);
    }
    stepped.step();
  }
}

TEST_P(EveryType, OrderOfQuestionsDoesNotMatter) {
  const auto schedule = make_schedule(GetParam().type, GetParam().params, adam_groups());
  std::vector<double> forward;
  for (std::int64_t k = 0; k < 40; ++k) forward.push_back(lr_at(*schedule, k));
  for (std::int64_t k = 39; k >= 0; --k) EXPECT_EQ(lr_at(*schedule, k), forward[static_cast<std::size_t>(k)]);
}

TEST_P(EveryType, RefusesAnUnknownParameter) {
  Params params = GetParam().params;
  params.set("warmup_num_step", 3);
  EXPECT_THAT(refusal(GetParam().type, params), HasSubstr("warmup_num_step"));
}

TEST_P(EveryType, RefusesQuotedNumbersAndNulls) {
  for (const Field& field : fields_of(GetParam().type)) {
    if (field.type == FieldType::text || field.type == FieldType::choice) continue;
    Params params = GetParam().params;
    params.set(field.name, "3");
    EXPECT_THAT(refusal(GetParam().type, params), HasSubstr(field.name));
    if (field.nullable) continue;
    params.set(field.name, ParamValue());
    EXPECT_THAT(refusal(GetParam().type, params), HasSubstr(field.name));
  }
}

TEST_P(EveryType, NamesAMissingParameter) {
  for (const Field& field : fields_of(GetParam().type)) {
    if (!field.required) continue;
    Params params;
    for (const auto& [name, value] : GetParam().params.all())
      if (name != field.name) params.set(name, value);
    EXPECT_THAT(refusal(GetParam().type, params), HasSubstr(field.name + " is required"));
  }
}

TEST_P(EveryType, DefaultsSpelledOutGiveTheSameSchedule) {
  Params spelled = GetParam().params;
  for (const Field& field : fields_of(GetParam().type))
    if (!field.required && spelled.find(field.name) == nullptr) spelled.set(field.name, config::default_value(field));

  const auto absent = make_schedule(GetParam().type, GetParam().params, adam_groups(2));
  const auto present = make_schedule(GetParam().type, spelled, adam_groups(2));

  EXPECT_EQ(absent->params(), present->params());
  EXPECT_EQ(absent->warnings(), present->warnings());
  std::vector<StepValues> a(2), b(2);
  for (std::int64_t k = 0; k < 40; ++k) {
    absent->values_at(k, a);
    present->values_at(k, b);
    EXPECT_EQ(a, b) << "update " << k;
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryType, ::testing::ValuesIn(cases()),
                         [](const ::testing::TestParamInfo<Case>& tried) { return std::string(tried.param.type); });

TEST(Errors, UnknownTypeListsTheKnown) {
  EXPECT_THAT(refusal("StepLRR", {}), ::testing::AllOf(HasSubstr("StepLRR"), HasSubstr("WarmupDecayLR")));
  EXPECT_THAT(refusal("warmuplr", {}), HasSubstr("did you mean WarmupLR?"));
  EXPECT_THAT(refusal([] { (void)fields_of("nothing"); }), HasSubstr("nothing"));
}

TEST(Errors, AListOfAnotherLengthIsRefused) {
  EXPECT_THAT(refusal("WarmupLR", {{"warmup_max_lr", ParamValue::List{0.1, 0.2}}}, 3), HasSubstr("warmup_max_lr"));
}

TEST(Errors, AutoNeedsAJobFile) {
  EXPECT_THAT(refusal("WarmupDecayLR", {{"total_num_steps", "auto"}}), HasSubstr("run.steps"));
}

TEST(Errors, NumbersAreFinite) {
  EXPECT_THAT(refusal("Constant", {{"factor", std::numeric_limits<double>::quiet_NaN()}}), HasSubstr("finite"));
}

TEST(Errors, WrongUseOfTheInterfaceIsRefused) {
  const auto schedule = make_constant(adam_groups(2));
  std::vector<StepValues> one(1), two(2);
  const auto misuse = [](const auto& call) { return testing::error_text(ErrorKind::internal, call); };
  EXPECT_THAT(misuse([&] { schedule->values_at(0, one); }), HasSubstr("one StepValues for each parameter group"));
  EXPECT_THAT(misuse([&] { schedule->values_at(-1, two); }), HasSubstr("updates count from 0"));
  EXPECT_THAT(misuse([] { (void)make_constant({}); }), HasSubstr("no parameter group"));
}

TEST(Constant, WithoutASchedulerEverythingStays) {
  const auto schedule = make_constant(sgd_groups());
  for (const std::int64_t k : {0, 1, 1000000})
    EXPECT_EQ(values_at(*schedule, k), (StepValues{.lr = 0.5, .momentum = 0.9}));
}

TEST(FirstIndex, UpdateZeroKeepsTheOptimizersValues) {
  const auto fresh = make_schedule("WarmupLR", {{"warmup_num_steps", 8}}, adam_groups());
  const auto resumed = make_schedule("WarmupLR", {{"warmup_num_steps", 8}, {"last_batch_iteration", 3}}, adam_groups());
  EXPECT_EQ(lr_at(*resumed, 0), 0.5);
  for (std::int64_t k = 1; k < 12; ++k) EXPECT_EQ(lr_at(*resumed, k), lr_at(*fresh, k + 4));
}

}  // namespace
}  // namespace lockstep::sched
