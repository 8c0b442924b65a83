#include "run/bench/measure.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "comm/run_ranks.hpp"
#include "kernels/emu/emu_device.hpp"
#include "run/bench/interference.hpp"

namespace lockstep::run::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;
using Milliseconds = std::chrono::duration<double, std::milli>;

Measured with_samples(std::vector<Sample> samples, int wanted) {
  Measured measured{.task = {}, .calls = 1, .samples = std::move(samples), .kept = {}};
  choose(measured, {.samples = wanted});
  return measured;
}

TEST(Measure, SamplesThatOthersDisturbedDoNotCount) {
  const Measured measured = with_samples({{1, 0}, {9, 0.5}, {2, 0.01}, {3, 0}, {8, 0.021}}, 2);

  EXPECT_THAT(measured.kept, UnorderedElementsAre(1, 2, 3));
  EXPECT_EQ(measured.rejected(), 2);
  EXPECT_FALSE(measured.disturbed);
}

TEST(Measure, WhereAllAreDisturbedTheLeastDisturbedCountAndItIsSaid) {
  const Measured measured = with_samples({{1, 0.4}, {2, 0.1}, {3, 0.3}, {4, 0.01}}, 2);

  EXPECT_THAT(measured.kept, UnorderedElementsAre(4, 2));
  EXPECT_TRUE(measured.disturbed);
}

TEST(Measure, QuantilesLieBetweenNeighbours) {
  const Measured measured = with_samples({{4, 0}, {1, 0}, {2, 0}, {3, 0}, {5, 0}}, 1);

  EXPECT_EQ(measured.median(), 3);
  EXPECT_EQ(measured.quantile(0), 1);
  EXPECT_EQ(measured.quantile(1), 5);
  EXPECT_DOUBLE_EQ(measured.quantile(0.1), 1.4);
}

TEST(Measure, SharesAreOfRatesOrOfTheSameJobsTime) {
  std::vector<Measured> all = {with_samples({{2, 0}}, 1), with_samples({{4, 0}}, 1), with_samples({{8, 0}}, 1)};
  all[0].task = {.name = "copy", .bytes = 100, .run = {}};
  all[1].task = {.name = "update", .bytes = 150, .ceiling = "copy", .run = {}};
  all[2].task = {.name = "sum", .bytes = 50, .ceiling = "copy", .same_job = true, .run = {}};

  EXPECT_EQ(rate(all[0]), 50);
  EXPECT_EQ(share_of_ceiling(all[0], all), 0);
  EXPECT_EQ(share_of_ceiling(all[1], all), 150.0 / 4 / 50);
  EXPECT_EQ(share_of_ceiling(all[2], all), 0.25);

  all[0].task.name = "first", all[0].task.group = "copy";
  all.push_back(with_samples({{1, 0}}, 1));
  all[3].task = {.name = "second", .bytes = 100, .group = "copy", .run = {}};
  EXPECT_EQ(share_of_ceiling(all[1], all), 150.0 / 4 / 100) << "of the faster one";
  EXPECT_EQ(share_of_ceiling(all[2], all), 0.125);
}

TEST(Measure, TimesTasksInTurnAndRepeatsShortOnesWithinASample) {
  const auto comm = comm::make_single();
  const auto device = make_cpu_device();
  RankContext rank{.comm = *comm, .place = {.device = device.get()}, .world_source = "", .summary = ""};
  std::vector<int> order;
  std::vector<Task> tasks(2);
  tasks[0] = {.name = "long", .run = [&] {
                order.push_back(0);
                std::this_thread::sleep_for(Milliseconds(3));
              }};
  tasks[1] = {.name = "short", .run = [&] { order.push_back(1); }};

  const auto all = measure(rank, {}, tasks, {.samples = 3, .most_waited = 1e9});

  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].calls, 1);
  EXPECT_EQ(all[1].calls, 1000);
  EXPECT_EQ(all[0].samples.size(), 3U);
  EXPECT_GE(all[0].median(), 3e-3);
  EXPECT_LT(all[1].median(), 1e-3) << "of one call, not of a sample";
  order.erase(std::unique(order.begin(), order.end()), order.end());
  EXPECT_THAT(order, ElementsAre(0, 1, 0, 1, 0, 1, 0, 1)) << "warm-up, then three rounds";
}

TEST(Measure, OfSeveralRanksASampleIsTheSlowestRanks) {
  std::vector<double> medians(2);
  comm::run_ranks(2, [&](comm::Communicator& comm) {
    const auto device = make_cpu_device();
    RankContext rank{.comm = comm, .place = {.device = device.get()}, .world_source = "", .summary = ""};
    const double own = comm.rank() == 1 ? 6 : 1;
    Task task{.name = "sleep", .run = [own] { std::this_thread::sleep_for(Milliseconds(own)); }};
    const auto all = measure(rank, {}, {task}, {.samples = 3, .most_waited = 1e9});
    medians[static_cast<std::size_t>(comm.rank())] = all[0].median();
  });

  EXPECT_GE(medians[0], 6e-3);
  EXPECT_EQ(medians[0], medians[1]);
}

TEST(Measure, OnADeviceNothingWaitsBetweenTheFirstSampleAndTheLast) {
  const auto comm = comm::make_single();
  const auto device = make_emulated_device(7);
  RankContext rank{.comm = *comm, .place = {.device = device.get()}, .world_source = "", .summary = ""};
  const StreamRef stream = device->make_stream();
  struct Counts {
    int enqueued = 0, done = 0, enqueued_when_first_counted = 0;
  } counts;
  const auto finish = [](void* context) {
    auto& c = *static_cast<Counts*>(context);
    // The warm-up and the trial of each are waited for; then all rounds are enqueued before any of their work is done.
    if (++c.done == 5) c.enqueued_when_first_counted = c.enqueued;
    std::this_thread::sleep_for(Milliseconds(2.5));
  };
  Task task{.name = "host call", .run = [&] {
              ++counts.enqueued;
              device->call_host(finish, &counts, stream);
            }};
  Task other = task;
  other.name = "again";

  const auto all = measure(rank, stream, {task, other}, {.samples = 4});
  device->destroy(stream);

  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(counts.done, 2 * 2 + 2 * 4);
  EXPECT_EQ(counts.enqueued_when_first_counted, counts.done);
  for (const Measured& one : all) {
    EXPECT_EQ(one.samples.size(), 4U);
    EXPECT_EQ(one.rejected(), 0);
    EXPECT_GE(one.median(), 2.5e-3);
  }
}

TEST(Interference, GrowsWhereMoreThreadsWantToRunThanThereAreCpus) {
  const double before = seconds_kept_waiting();
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  std::vector<std::jthread> busy;
  for (unsigned i = 0; i < 3 * std::max(1U, std::thread::hardware_concurrency()); ++i)
    busy.emplace_back([end] {
      while (std::chrono::steady_clock::now() < end) {
      }
    });
  std::this_thread::sleep_until(
      end - std::chrono::milliseconds(50));  // while they live: a thread that has ended is not counted

  EXPECT_GT(seconds_kept_waiting(), before);
}

}  // namespace
}  // namespace lockstep::run::bench
