#include "run/step_probe.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "comm/local.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

using ::testing::HasSubstr;

void spend(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

/// Forward work with a wait inside of it.
void take_step(StepProbe& probe, std::int64_t step, bool counted) {
  probe.begin_step(step, counted);
  {
    const ProbeScope forward(&probe, Activity::forward, "linear", 1e6, 1e3);
    spend(0.004);
    const ProbeScope wait(&probe, Activity::communication, "wait");
    spend(0.008);
  }
  probe.end_step();
}

TEST(StepProbe, TimeBelongsToTheInnermostPartAndAddsUp) {
  StepProbe probe(0, 0);
  for (int step = 1; step <= 3; ++step) take_step(probe, step, step > 1);

  EXPECT_EQ(probe.counted_steps(), 2);
  double sum = 0;
  for (const auto& [key, total] : probe.totals()) sum += total.seconds;
  EXPECT_NEAR(sum, probe.counted_seconds(), 1e-4 * probe.counted_seconds() + 1e-5);
  const StepProbe::Total forward = probe.totals().at({Activity::forward, "linear"}),
                         wait = probe.totals().at({Activity::communication, "wait"});
  EXPECT_GE(forward.seconds, 0.008);
  EXPECT_GE(wait.seconds, 0.016);
  EXPECT_LT(forward.seconds, wait.seconds) << "the wait inside is not the operation's";
  EXPECT_EQ(forward.flops, 2e6);
  EXPECT_EQ(forward.calls, 2);
  EXPECT_TRUE(probe.events().empty());
}

TEST(StepProbe, TheTableHasSharesAndTheRoofline) {
  StepProbe probe(0, 0);
  take_step(probe, 3, true);
  const double seconds = probe.totals().at({Activity::forward, "linear"}).seconds;

  const std::string text = profile_text(probe, {.flops_per_s = 2 * 1e6 / seconds, .bytes_per_s = 1e9});

  EXPECT_THAT(text, HasSubstr("50%\n")) << "half of the time is what the machine needs at best";
  EXPECT_THAT(text, HasSubstr("communication"));
  EXPECT_THAT(profile_text(StepProbe(0, 0), {}), HasSubstr("no step was measured"));
}

TEST(StepProbe, ATraceHasEveryRankOnOneClock) {
  std::string trace;
  comm::run_ranks(3, [&](comm::Communicator& comm) {
    StepProbe probe(2, 3);
    for (int step = 1; step <= 4; ++step) {
      comm.barrier();
      take_step(probe, step, false);
    }
    const std::string text = gather_trace(probe, comm);
    EXPECT_EQ(text.empty(), comm.rank() != 0);
    if (comm.rank() == 0) trace = text;
  });

  const nlohmann::json events = nlohmann::json::parse(trace)["traceEvents"];
  std::map<int, std::vector<double>> begins;
  for (const nlohmann::json& event : events) {
    if (event["ph"] == "M") continue;
    EXPECT_GE(event["ts"].get<double>(), -0.001);
    EXPECT_GE(event["dur"].get<double>(), 0);
    if (event["name"] == "step") begins[event["pid"].get<int>()].push_back(event["ts"].get<double>());
  }
  ASSERT_EQ(begins.size(), 3U);
  for (const auto& [rank, times] : begins) {
    ASSERT_EQ(times.size(), 2U) << "steps 2 and 3";
    // They met at a barrier: threads of one process, which need some time to be woken.
    EXPECT_NEAR(times[1], begins[0][1], 20e3) << "microseconds, rank " << rank;
  }
}

TEST(StepProbe, ClocksOfOneMachineAgreeWithinAPing) {
  comm::run_ranks(3, [&](comm::Communicator& comm) {
    const ClockOffsets clocks = measure_clocks(comm);
    ASSERT_EQ(clocks.seconds.size(), 3U);
    for (std::size_t r = 0; r < 3; ++r)
      EXPECT_LE(std::abs(clocks.seconds[r]), clocks.uncertainty[r] + 1e-9) << "they read the same clock";
  });
}

}  // namespace
}  // namespace lockstep::run
