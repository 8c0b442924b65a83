#include "comm/heartbeat.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <new>
#include <thread>

#include "comm/local.hpp"
#include "comm/run_ranks.hpp"
#include "core/error.hpp"

namespace lockstep::comm {
namespace {

const Seconds moment(0.05);

void sleep_for(Seconds duration) { std::this_thread::sleep_for(duration); }

TEST(Heartbeat, AWorkLongerThanTheDeadlineGoesThrough) {
  std::atomic<int> finished{0};

  run_ranks(3,
            [&](Communicator& comm) {
              run_with_heartbeat(
                  comm, "saving",
                  [&] {
                    if (comm.rank() == 1) sleep_for(Seconds(1.5));
                    ++finished;
                  },
                  moment);
              EXPECT_EQ(finished.load(), 3) << "nobody leaves before all are done";
            },
            {.timeout = Seconds(0.5)});
}

TEST(Heartbeat, ARankMayHaveNothingToDo) {
  bool done = false;

  run_ranks(2, [&](Communicator& comm) {
    run_with_heartbeat(comm, "saving", comm.rank() == 0 ? std::function<void()>([&] { done = true; }) : nullptr,
                       moment);
    EXPECT_TRUE(done);
  });
}

TEST(Heartbeat, WhatAllRanksOrRankZeroMeetNamesNoRank) {
  for (const int last_to_fail : {0, 2}) {
    run_ranks(3, [&](Communicator& comm) {
      try {
        run_with_heartbeat(
            comm, "reading",
            [&] {
              if (comm.rank() <= last_to_fail) fail(ErrorKind::data, "no such file");
            },
            moment);
        ADD_FAILURE() << "rank " << comm.rank() << " was told nothing";
      } catch (const Error& error) {
        EXPECT_STREQ(error.what(), "no such file");
      }
    });
  }
}

TEST(Heartbeat, AnExceptionReachesEveryRankWithKindAndTextOfTheLowestThatFailedAndNamesIt) {
  std::atomic<int> told{0};

  run_ranks(4, [&](Communicator& comm) {
    try {
      run_with_heartbeat(
          comm, "saving",
          [&] {
            if (comm.rank() == 3) fail(ErrorKind::environment, "no space left at rank 3");
            if (comm.rank() == 2) {
              sleep_for(moment);
              fail(ErrorKind::checkpoint, "the disk is full");
            }
          },
          moment);
      ADD_FAILURE() << "rank " << comm.rank() << " was told nothing";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::checkpoint);
      EXPECT_TRUE(std::string(error.what()).starts_with("rank 2 (")) << error.what();
      EXPECT_TRUE(std::string(error.what()).ends_with("): the disk is full")) << error.what();
      ++told;
    }
    comm.barrier();  // the communicator works on
  });

  EXPECT_EQ(told.load(), 4);
}

TEST(Heartbeat, ARankThatDoesNotTakePartIsAHang) {
  std::atomic<int> hangs{0};

  try {
    run_ranks(2,
              [&](Communicator& comm) {
                if (comm.rank() == 1) return sleep_for(Seconds(1));
                try {
                  run_with_heartbeat(comm, "saving", nullptr, moment);
                } catch (const Error& error) {
                  EXPECT_EQ(error.kind(), ErrorKind::hang) << error.what();
                  ++hangs;
                  throw;
                }
              },
              {.timeout = Seconds(0.2)});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::hang) << error.what();
  }

  EXPECT_EQ(hangs.load(), 1);
}

TEST(Heartbeat, MemoryThatRunsOutIsTheEnvironmentsOnEveryRank) {
  std::atomic<int> told{0};

  run_ranks(2, [&](Communicator& comm) {
    try {
      run_with_heartbeat(
          comm, "loading",
          [&] {
            if (comm.rank() == 0) throw std::bad_alloc();
          },
          moment);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::environment) << error.what();
      ++told;
    }
  });

  EXPECT_EQ(told.load(), 2);
}

TEST(Heartbeat, OneRankWorksInTheCaller) {
  const auto comm = make_single();
  std::thread::id worker;

  run_with_heartbeat(*comm, "saving", [&] { worker = std::this_thread::get_id(); });

  EXPECT_EQ(worker, std::this_thread::get_id());
  EXPECT_THROW(run_with_heartbeat(*comm, "saving", [] { fail(ErrorKind::checkpoint, "full"); }), Error);
}

}  // namespace
}  // namespace lockstep::comm
