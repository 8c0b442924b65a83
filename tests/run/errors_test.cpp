#include "run/errors.hpp"

#include <gtest/gtest.h>

#include <mutex>
#include <new>

#include "comm/run_ranks.hpp"

namespace lockstep::run {
namespace {

const std::vector<std::string> hosts = {"a", "b", "c"};

/// What three ranks come to, each with a failure of its own or none; all of them must come to the same.
std::optional<Failure> told_by(const std::vector<std::optional<Failure>>& own) {
  std::mutex mutex;
  std::vector<std::optional<Failure>> told(own.size());
  comm::run_ranks(static_cast<int>(own.size()), [&](comm::Communicator& comm) {
    const auto rank = static_cast<std::size_t>(comm.rank());
    auto result = gather_failures(comm, own[rank], hosts);
    const std::lock_guard lock(mutex);
    told[rank] = std::move(result);
  });
  for (const auto& other : told) {
    EXPECT_EQ(other.has_value(), told[0].has_value());
    if (!other || !told[0]) continue;
    EXPECT_EQ(other->kind, told[0]->kind);
    EXPECT_EQ(other->text, told[0]->text);
  }
  return told[0];
}

TEST(GatherFailures, NothingIfAllAreWell) { EXPECT_FALSE(told_by({std::nullopt, std::nullopt, std::nullopt})); }

TEST(GatherFailures, WhatAllMeetIsOneTextWithoutARank) {
  const Failure same{ErrorKind::data, "no such file"};

  const auto told = told_by({same, same, same});

  ASSERT_TRUE(told);
  EXPECT_EQ(told->kind, ErrorKind::data);
  EXPECT_EQ(told->text, "no such file");
}

TEST(GatherFailures, WhatOneRankMeetsNamesItAndItsHost) {
  const auto told = told_by({std::nullopt, std::nullopt, Failure{ErrorKind::config, "no job"}});

  ASSERT_TRUE(told);
  EXPECT_EQ(told->kind, ErrorKind::config);
  EXPECT_EQ(told->text, "rank 2 (c): no job");
}

TEST(GatherFailures, DifferentTextsAreEachToldOnceAndTheLowestRankDecidesTheKind) {
  const Failure disk{ErrorKind::checkpoint, "disk full"};

  const auto told = told_by({disk, Failure{ErrorKind::environment, "no memory"}, disk});

  ASSERT_TRUE(told);
  EXPECT_EQ(told->kind, ErrorKind::checkpoint);
  EXPECT_EQ(told->text, "rank 0 (a): disk full\nrank 1 (b): no memory");
}

TEST(FailureOf, KeepsAnErrorsKindAndKnowsOthers) {
  const auto of = [](const auto& error) { return failure_of(std::make_exception_ptr(error)); };

  EXPECT_EQ(of(Error(ErrorKind::diverged, "x")).kind, ErrorKind::diverged);
  EXPECT_EQ(of(Error(ErrorKind::diverged, "x")).text, "x");
  EXPECT_EQ(of(std::bad_alloc()).kind, ErrorKind::environment);
  EXPECT_EQ(of(std::runtime_error("y")).kind, ErrorKind::internal);
  EXPECT_EQ(of(3).kind, ErrorKind::internal);
}

}  // namespace
}  // namespace lockstep::run
