#include "comm/flight_recorder.hpp"

#include <gmock/gmock.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "comm/run_ranks.hpp"
#include "core/error.hpp"

namespace lockstep::comm {
namespace {

using ::testing::HasSubstr;

Signature sum_of(std::uint64_t elements) {
  return {.call = Call::all_reduce, .dtype = DType::f32, .op = 0, .elements = elements};
}

TEST(FlightRecorder, KeepsTheLastCollectivesWithWhatTheyWereAndWhetherTheyWereLeft) {
  FlightTable table(1);
  FlightTrack& track = table.track(0);
  track.sit_down(0, getpid(), Phase::running);
  for (std::uint64_t i = 1; i <= FlightTrack::lines + 3; ++i) {
    const std::uint64_t number = track.begin(sum_of(1000 + i));
    EXPECT_EQ(number, i);
    if (i < FlightTrack::lines + 3) track.end(number);
  }
  track.begin_wait(FlightTrack::lines + 3);

  EXPECT_EQ(track.signature(1), Signature{}) << "the ring has gone past it";
  EXPECT_EQ(track.signature(FlightTrack::lines), sum_of(1000 + FlightTrack::lines));
  EXPECT_EQ(track.awaited(), FlightTrack::lines + 3);
  EXPECT_THAT(table.text(), HasSubstr("all_reduce (sum) of 1131 x fp32"));
  EXPECT_THAT(table.text(), HasSubstr("under way"));
  EXPECT_THAT(table.text(), HasSubstr("waits for number 131"));
}

TEST(FlightRecorder, NamesTheRankThatHasNotComeWithItsStepAndItsLastCollective) {
  FlightTable table(3);
  for (int r = 0; r < 3; ++r) {
    table.track(r).sit_down(r, getpid(), Phase::running);
    table.track(r).at_step(7);
    table.track(r).end(table.track(r).begin(sum_of(8)));
  }
  for (const int r : {0, 2}) table.track(r).begin_wait(table.track(r).begin(sum_of(9)));

  EXPECT_EQ(table.missing_from(2),
            "rank 1 (at step 7, in no collective, the last was number 1, all_reduce (sum) of 8 x fp32)");
  EXPECT_EQ(table.missing_from(1), "");
}

TEST(FlightRecorder, ACommunicatorRecordsEveryCollectiveOfItsOwn) {
  FlightTable table(2);
  run_ranks(2, [&](Communicator& comm) {
    FlightTrack& track = table.track(comm.rank());
    track.sit_down(comm.rank(), getpid(), Phase::running);
    comm.record_in(&track);
    std::vector<float> data(10, 1.0F);
    comm.all_reduce({data.data(), data.size(), DType::f32, Memory::host}, Reduce::max);
    comm.barrier();
    int value = comm.rank();
    comm.broadcast_value(value, 1);

    EXPECT_EQ(track.begun(), 3U);
    EXPECT_EQ(track.awaited(), 0U);
    EXPECT_EQ(describe(track.signature(1)), "all_reduce (max) of 10 x fp32");
    EXPECT_EQ(describe(track.signature(2)), "barrier");
    EXPECT_EQ(describe(track.signature(3)), "broadcast from rank 1 of 4 x u8");
    comm.record_in(nullptr);
  });
  EXPECT_EQ(table.text().find("under way"), std::string::npos) << table.text();
}

/// Ranks that differ in what they call, with the check on.
std::string desync_of(const std::function<void(Communicator&)>& differing) {
  std::atomic<int> told{0};
  std::string text;
  try {
    run_ranks(2, [&](Communicator& comm) {
      comm.check_signatures(true);
      int equal = 3;
      comm.broadcast_value(equal, 0);  // which passes
      try {
        differing(comm);
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::desync) ++told;
        throw;
      }
    });
  } catch (const Error& error) {
    text = error.what();
  }
  EXPECT_EQ(told.load(), 2) << text;
  return text;
}

TEST(FlightRecorder, ACheckedDifferenceNamesBothOnEveryRank) {
  std::vector<float> data(12, 1.0F);
  const auto buffer = [](std::vector<float>& values, std::size_t count) {
    return Buffer{values.data(), count, DType::f32, Memory::host};
  };

  EXPECT_THAT(
      desync_of([&](Communicator& comm) {
        std::vector<float> own(12, 1.0F);
        comm.all_reduce(buffer(own, comm.rank() == 0 ? 12 : 10), Reduce::sum);
      }),
      HasSubstr("collective number 2: rank 0 asks for all_reduce (sum) of 12 x fp32, rank 1 for all_reduce (sum) "
                "of 10 x fp32"));
  EXPECT_THAT(desync_of([&](Communicator& comm) {
                std::vector<float> own(12, 1.0F);
                if (comm.rank() == 0)
                  comm.all_reduce(buffer(own, 12), Reduce::sum);
                else
                  comm.barrier();
              }),
              HasSubstr("rank 0 asks for all_reduce (sum) of 12 x fp32, rank 1 for barrier"));
}

TEST(FlightRecorder, CostsLittle) {
  FlightTable table(1);
  FlightTrack& track = table.track(0);
  constexpr int count = 200'000;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) {
    const std::uint64_t number = track.begin(sum_of(1000));
    track.begin_wait(number);
    track.end(number);
  }
  const double ns = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count() / count;
  RecordProperty("ns_per_collective", static_cast<int>(ns));
  std::printf("%.0f ns a collective\n", ns);
  EXPECT_LT(ns, 20'000) << "far above what it costs on any machine";
}

}  // namespace
}  // namespace lockstep::comm
