#include "job/batch.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep::job {
namespace {

constexpr std::nullopt_t none = std::nullopt;

void expect(const BatchSizes& sizes, std::int64_t train, std::int64_t micro, std::int64_t accumulation) {
  EXPECT_EQ(sizes.train, train) << sizes.text;
  EXPECT_EQ(sizes.micro, micro) << sizes.text;
  EXPECT_EQ(sizes.accumulation, accumulation) << sizes.text;
}

std::string error_of(std::optional<std::int64_t> train, std::optional<std::int64_t> micro,
                     std::optional<std::int64_t> accumulation, std::int64_t world) {
  try {
    const BatchSizes sizes = resolve_batch(train, micro, accumulation, world, "from MPI");
    ADD_FAILURE() << "accepted: " << sizes.text;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    return error.what();
  }
  return {};
}

TEST(Batch, DerivesWhatIsMissing) {
  expect(resolve_batch(64, 4, 2, 8, "from MPI"), 64, 4, 2);
  expect(resolve_batch(64, 4, none, 8, "from MPI"), 64, 4, 2);
  expect(resolve_batch(64, none, 2, 8, "from MPI"), 64, 4, 2);
  expect(resolve_batch(none, 4, 2, 8, "from MPI"), 64, 4, 2);
  expect(resolve_batch(64, none, none, 8, "from MPI"), 64, 8, 1);
  expect(resolve_batch(none, 4, none, 8, "from MPI"), 32, 4, 1);
}

TEST(Batch, SaysWhereEachNumberComesFrom) {
  EXPECT_EQ(resolve_batch(64, 4, none, 8, "from MPI").text,
            "8 ranks (from MPI) x 4 micro (given) x 2 accumulation (derived) = 64");
  EXPECT_EQ(resolve_batch(none, 4, 1, 1, "without mpirun").text,
            "1 rank (without mpirun) x 4 micro (given) x 1 accumulation (given) = 4");
}

TEST(Batch, RefusesWhatDoesNotDivide) {
  EXPECT_EQ(error_of(10, 3, none, 3),
            "train_batch_size is 10 (given), but 3 ranks (from MPI) x 3 micro (given) x 1 accumulation (derived) = 9; "
            "make train_batch_size a multiple of 9 (nearest: 9 or 18), or change the number of ranks");
  EXPECT_NE(error_of(2, none, none, 4).find("nearest: 4"), std::string::npos);
  EXPECT_NE(error_of(64, 4, 3, 8).find("= 96"), std::string::npos);
  EXPECT_NE(error_of(none, none, 4, 8).find("gradient_accumulation_steps alone"), std::string::npos);
  EXPECT_NE(error_of(none, none, none, 8).find("no batch size"), std::string::npos);
  EXPECT_NE(error_of(0, 2, 1, 1).find("train_batch_size is 0"), std::string::npos);
  EXPECT_NE(error_of(8, 0, 1, 1).find("train_micro_batch_size_per_gpu is 0"), std::string::npos);
  EXPECT_NE(error_of(8, 2, -1, 1).find("gradient_accumulation_steps is -1"), std::string::npos);
  EXPECT_NE(error_of(8, 2, 1, 0).find("number of ranks is 0"), std::string::npos);
  EXPECT_NE(error_of(none, 4'000'000'000, 4'000'000'000, 8).find("64 bits"), std::string::npos);
  EXPECT_NE(error_of(10, none, 4'000'000'000, 4'000'000'000).find("64 bits"), std::string::npos);
}

TEST(Leaves, AreSharedOutAsEvenlyAsTheyGo) {
  const BatchSizes sizes = resolve_leaves(32, 4, none, 3, "from MPI");

  expect(sizes, 32, 4, 3);
  EXPECT_EQ(sizes.leaves, 8);
  EXPECT_EQ(sizes.text, "3 ranks (from MPI) share 8 micro-batches of 4 (2 or 3 each) = 32");
  std::int64_t next = 0;
  for (int rank = 0; rank < 3; ++rank) {
    const sum_tree::Block own = sizes.micro_batches_of(rank);
    EXPECT_EQ(own.begin, next);
    EXPECT_TRUE(own.size() == 2 || own.size() == 3) << own.size();
    next = own.end;
  }
  EXPECT_EQ(next, 8);
}

TEST(Leaves, AreWhatEachRankWouldHaveAnywayWhereTheyDivideEvenly) {
  const BatchSizes plain = resolve_batch(64, 4, none, 8, "from MPI");
  const BatchSizes leaves = resolve_leaves(64, 4, 2, 8, "from MPI");
  for (int rank = 0; rank < 8; ++rank) EXPECT_EQ(leaves.micro_batches_of(rank), plain.micro_batches_of(rank));
}

TEST(Leaves, AreRefusedWhereTheyAreNotDefined) {
  const auto refused = [](std::optional<std::int64_t> train, std::optional<std::int64_t> micro,
                          std::optional<std::int64_t> accumulation, std::int64_t world) {
    return testing::error_text(ErrorKind::config,
                               [&] { (void)resolve_leaves(train, micro, accumulation, world, "from MPI"); });
  };
  EXPECT_NE(refused(32, none, none, 2).find("train_micro_batch_size_per_gpu is missing"), std::string::npos);
  EXPECT_NE(refused(none, 4, none, 2).find("train_batch_size is missing"), std::string::npos);
  EXPECT_NE(refused(10, 4, none, 2).find("train_batch_size 10 is not a multiple"), std::string::npos);
  EXPECT_NE(refused(32, 4, none, 9).find("start at most 8 ranks"), std::string::npos);
  EXPECT_NE(refused(32, 4, 2, 2).find("gradient_accumulation_steps is 2 (given), but 8 micro-batches over 2 ranks"),
            std::string::npos);
  EXPECT_NE(refused(32, 4, 3, 3).find("leave it out"), std::string::npos);
  EXPECT_NE(refused(0, 4, none, 1).find("train_batch_size is 0"), std::string::npos);
  EXPECT_NE(refused(32, 4, none, 0).find("number of ranks is 0"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::job
