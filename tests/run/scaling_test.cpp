#include "run/scaling.hpp"

#include <gmock/gmock.h>

namespace lockstep::run {
namespace {

using ::testing::HasSubstr;

TEST(Scaling, MessagesAreThoseOfOurAllReduce) {
  EXPECT_EQ(messages_of(1), 0);
  EXPECT_EQ(messages_of(2), 2);
  EXPECT_EQ(messages_of(3), 4);
  EXPECT_EQ(messages_of(4), 4);
  EXPECT_EQ(messages_of(8), 6);
  EXPECT_EQ(messages_of(12), 22);
  EXPECT_EQ(messages_of(1024), 20);
  EXPECT_EQ(bytes_of(1, 100), 0);
  EXPECT_EQ(bytes_of(2, 100), 100);
  EXPECT_EQ(bytes_of(4, 100), 150);
}

TEST(Scaling, OneRankExchangesNothing) {
  const ScalingPoint point =
      predict({.compute_s = 2, .backward_share = 0.5, .buckets = {10, 20}, .latency_s = 1, .bytes_per_s = 1}, 1);
  EXPECT_EQ(point.serial_s, 2);
  EXPECT_EQ(point.overlapped_s, 2);
}

TEST(Scaling, WhatFitsUnderBackwardIsHidden) {
  // Backward takes 4 of 10 s and completes a bucket in each second; on two ranks a bucket takes 2 messages of 0.1 s and
  // 10 bytes at 20 a second: 0.7 s, so that the last alone is seen.
  const ScalingModel model{
      .compute_s = 10, .backward_share = 0.4, .buckets = {10, 10, 10, 10}, .latency_s = 0.1, .bytes_per_s = 20};
  const ScalingPoint point = predict(model, 2);
  EXPECT_NEAR(point.exchange_s, 4 * 0.7, 1e-12);
  EXPECT_NEAR(point.serial_s, 10 + 4 * 0.7, 1e-12);
  EXPECT_NEAR(point.overlapped_s, 10.7, 1e-12);
  EXPECT_EQ(point.messages, 8);
  EXPECT_EQ(point.bytes, 40);
}

TEST(Scaling, WhatIsSlowerThanBackwardWaitsInTurn) {
  // A bucket takes 2 s and one is ready each second: the first is ready after 1 s, the last is through at 9.
  const ScalingModel model{
      .compute_s = 10, .backward_share = 0.4, .buckets = {10, 10, 10, 10}, .latency_s = 0, .bytes_per_s = 5};
  EXPECT_NEAR(predict(model, 2).overlapped_s, 10 - 4 + 9, 1e-12);
}

TEST(Scaling, RanksThatShareCpusTakeTurns) {
  const ScalingModel model{.compute_s = 3, .backward_share = 0.5, .buckets = {}, .slots = 2};
  EXPECT_EQ(predict(model, 2).compute_s, 3);
  EXPECT_EQ(predict(model, 4).compute_s, 6);
}

}  // namespace
}  // namespace lockstep::run
