#include "engine/unit_schedule.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/error.hpp"
#include "kernels/table.hpp"
#include "nn/gpt2.hpp"

namespace lockstep::engine {
namespace {

nn::Plan gpt_plan(bool training = true) {
  const auto model =
      nn::make_gpt2({.n_layer = 3, .n_head = 2, .n_embd = 32, .block_size = 16, .vocab_size = 50, .padded_vocab = 0});
  return nn::plan(*model, kernels::reference_table(), {2, 16}, DType::f32, training);
}

TEST(UnitPool, TakesTheFirstGapThatIsLargeEnough) {
  UnitPool pool;
  EXPECT_EQ(pool.take(0, 10), 0);
  EXPECT_EQ(pool.take(1, 5), 10);
  EXPECT_EQ(pool.take(2, 10), 15);
  pool.give_back(1);
  EXPECT_EQ(pool.take(3, 6), 25) << "the gap of 5 is too small";
  EXPECT_EQ(pool.take(4, 5), 10);
  EXPECT_EQ(pool.peak(), 31);
}

// Embedding, three blocks, last norm, and the embedding again as the head.
const std::vector<std::int64_t> sizes = {100, 30, 30, 30, 4};

TEST(UnitSchedule, AUnitIsThereFromOneUnitAheadUntilItsRelease) {
  for (const bool training : {true, false}) {
    const nn::Plan plan = gpt_plan(training);
    UnitSchedule schedule(sizes);
    schedule.begin(plan.unit_events);
    std::size_t starts = 0;
    for (std::size_t i = 0; i < plan.unit_events.size(); ++i) {
      const nn::UnitEvent& event = plan.unit_events[i];
      if (!event.acquire) {
        schedule.release(event.unit, event.phase);
        continue;
      }
      const auto acquired = schedule.acquire(event.unit, event.phase);
      EXPECT_EQ(acquired.now.has_value(), i == 0) << "all but the first are on their way already";
      starts += (acquired.now ? 1U : 0U) + (acquired.next ? 1U : 0U);
      EXPECT_TRUE(schedule.present(event.unit));
    }
    for (int unit = 0; unit < 5; ++unit) EXPECT_FALSE(schedule.present(unit)) << "unit " << unit;
    // Six uses forward, and backward the same again but for the head, which is kept at the turn.
    EXPECT_EQ(starts, training ? 11U : 6U);
  }
}

TEST(UnitSchedule, NeedsTwoUnitsAtATime) {
  const nn::Plan train = gpt_plan(), eval = gpt_plan(false);
  // The embedding beside a block at the ends, two blocks in between.
  EXPECT_EQ(UnitSchedule::needed(sizes, {&train.unit_events, &eval.unit_events}), 130);
  // Two blocks, and the gaps that the first fit leaves.
  EXPECT_EQ(UnitSchedule::needed({10, 30, 30, 30, 4}, {&train.unit_events}), 74);
}

TEST(UnitSchedule, UnitsInMemoryNeverOverlap) {
  const nn::Plan plan = gpt_plan();
  UnitSchedule schedule({90, 30, 20, 35, 4});
  const std::vector<std::int64_t> elements = {90, 30, 20, 35, 4};
  for (int pass = 0; pass < 2; ++pass) {
    schedule.begin(plan.unit_events);
    for (const nn::UnitEvent& event : plan.unit_events) {
      if (event.acquire)
        (void)schedule.acquire(event.unit, event.phase);
      else
        schedule.release(event.unit, event.phase);
      std::map<std::int64_t, std::int64_t> taken;
      for (int unit = 0; unit < 5; ++unit)
        if (schedule.present(unit))
          taken[schedule.begin_of(unit)] = schedule.begin_of(unit) + elements[static_cast<std::size_t>(unit)];
      std::int64_t end = 0;
      for (const auto& [from, until] : taken) {
        EXPECT_GE(from, end);
        end = until;
      }
    }
  }
}

TEST(UnitSchedule, APassThatDepartsFromItsPlanIsServedWithoutLookingAhead) {
  const nn::Plan plan = gpt_plan();
  UnitSchedule schedule(sizes);
  schedule.begin(plan.unit_events);
  const auto acquired = schedule.acquire(2, nn::Phase::forward);
  EXPECT_TRUE(acquired.now.has_value());
  EXPECT_FALSE(acquired.next.has_value());
  schedule.release(2, nn::Phase::forward);
  EXPECT_FALSE(schedule.present(2));
  EXPECT_THROW(schedule.release(2, nn::Phase::forward), Error);
}

TEST(GradientWindows, HoldTwoUnitsAndTheTiedOne) {
  const nn::Plan plan = gpt_plan();
  const GradientWindows windows(sizes, plan.unit_events);
  EXPECT_THAT(windows.visits, testing::ElementsAre(2, 1, 1, 1, 1));
  // The tied embedding's gradient stays from the head's backward on: 100, and beside it two blocks.
  EXPECT_EQ(windows.elements, 164);
  for (int unit = 1; unit < 5; ++unit) EXPECT_GE(windows.begin[static_cast<std::size_t>(unit)], 100);
}

TEST(GradientWindows, WantEveryUnitInBackward) {
  const nn::Plan plan = gpt_plan(false);
  EXPECT_THROW((void)GradientWindows(sizes, plan.unit_events), Error);
}

}  // namespace
}  // namespace lockstep::engine
