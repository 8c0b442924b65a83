#include "core/log.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace lockstep {
namespace {

class Log : public testing::Test {
 protected:
  void SetUp() override { before_ = log::threshold(); }
  void TearDown() override {
    log::set_threshold(before_);
    log::set_rank(0, 1);
  }
  template <class Body>
  std::string printed(Body body) {
    testing::internal::CaptureStderr();
    body();
    return testing::internal::GetCapturedStderr();
  }

 private:
  log::Level before_ = log::Level::info;
};

TEST_F(Log, PrintsFromTheThresholdUp) {
  log::set_threshold(log::Level::warning);

  const std::string text = printed([] {
    log::debug("a {}", 1);
    log::info("b {}", 2);
    log::warning("c {}", 3);
    log::error("d {}", 4);
  });

  EXPECT_EQ(text, "lockstep: warning: c 3\nlockstep: d 4\n");
}

TEST_F(Log, ALiveLineGivesWayToAnyOther) {
  testing::internal::CaptureStdout();
  const std::string error = printed([] {
    log::live("step 10");
    log::live("step 9");
    log::show("checkpoint\n");
    log::live("step 11");
    log::error("lost");
    log::live("step 12");
    log::keep_live();
    log::keep_live();
    log::show("done\n");
  });

  EXPECT_EQ(testing::internal::GetCapturedStdout(),
            "\rstep 10\rstep 9 "
            "\r      \rcheckpoint\n"
            "\rstep 11\r       \r"
            "\rstep 12\ndone\n");
  EXPECT_EQ(error, "lockstep: lost\n");
}

TEST_F(Log, NamesTheRankWhereThereAreSeveral) {
  EXPECT_EQ(printed([] {
              log::set_rank(2, 4);
              log::error("lost");
            }),
            "lockstep: rank 2: lost\n");
  EXPECT_EQ(printed([] {
              log::set_rank(0, 1);
              log::error("alone");
            }),
            "lockstep: alone\n");
}

TEST_F(Log, TheRankBelongsToTheThread) {
  log::set_rank(1, 2);

  const std::string text = printed([] { std::thread([] { log::error("no rank here"); }).join(); });

  EXPECT_EQ(text, "lockstep: no rank here\n");
}

}  // namespace
}  // namespace lockstep
