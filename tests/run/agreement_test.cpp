#include "run/agreement.hpp"

#include <gtest/gtest.h>

#include <mutex>

#include "comm/run_ranks.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

/// What ranks with these statements come to; all of them must come to the same.
std::optional<Failure> compared(const std::vector<std::string>& statements) {
  std::mutex mutex;
  std::vector<std::optional<Failure>> results(statements.size());
  comm::run_ranks(static_cast<int>(statements.size()), [&](comm::Communicator& comm) {
    const auto rank = static_cast<std::size_t>(comm.rank());
    auto result = compare_statements(comm, statements[rank]);
    const std::lock_guard lock(mutex);
    results[rank] = std::move(result);
  });
  for (const auto& other : results) EXPECT_EQ(other ? other->text : "", results[0] ? results[0]->text : "");
  return results[0];
}

bool mentions(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Agreement, EqualStatementsAgree) { EXPECT_FALSE(compared({"a: 1\nb: 2\n", "a: 1\nb: 2\n", "a: 1\nb: 2\n"})); }

TEST(Agreement, ADifferenceNamesRankKeyAndBothValuesAndNothingElse) {
  const auto failure = compared({"a: 1\nb: 2\n", "a: 1\nb: 2\n", "a: 1\nb: 3\nc: 4\n"});

  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->kind, ErrorKind::desync);
  EXPECT_TRUE(mentions(failure->text, "b: rank 0 has 2, rank 2 has 3")) << failure->text;
  EXPECT_TRUE(mentions(failure->text, "c: rank 0 has nothing, rank 2 has 4")) << failure->text;
  EXPECT_FALSE(mentions(failure->text, "a: ")) << failure->text;
  EXPECT_FALSE(mentions(failure->text, "rank 1")) << failure->text;
}

TEST(Agreement, ManyRanksThatDifferAreCounted) {
  const auto failure = compared({"a: 0\n", "a: 1\n", "a: 2\n", "a: 3\n", "a: 4\n", "a: 5\n", "a: 6\n"});

  ASSERT_TRUE(failure);
  EXPECT_TRUE(mentions(failure->text, "rank 4 has 4")) << failure->text;
  EXPECT_FALSE(mentions(failure->text, "rank 5")) << failure->text;
  EXPECT_TRUE(mentions(failure->text, "2 more ranks")) << failure->text;
}

TEST(Agreement, StatementsOfJobsThatDifferInOneKeyDifferInItUnlessItMayDiffer) {
  const std::string text =
      "model: {type: mlp, hidden: [4]}\ndata: {type: clusters}\nrun: {steps: 1}\ntrain_batch_size: 4\n";
  const auto statement = [&](const std::vector<std::string>& set) {
    return statement_of(job::load_job_text("job.yaml", text, ".", set).config, {});
  };

  EXPECT_NE(statement({"run.seed=5"}), statement({"run.seed=6"}));
  EXPECT_NE(statement({"bf16.enabled=true"}), statement({}));
  EXPECT_EQ(statement({"run.threads=1"}), statement({"run.threads=2"}));
}

TEST(Agreement, ParametersThatDifferNameTheRankAndTheParameter) {
  const testing::Task task = testing::mlp_task();
  const auto begin_with = [&](std::uint64_t last_ranks_seed) {
    comm::run_ranks(3, [&](comm::Communicator& comm) {
      const auto device = make_cpu_device();
      const auto model = task.model();
      engine::EngineOptions options = testing::engine_defaults(task, 4);
      options.seed = comm.rank() == 2 ? last_ranks_seed : 1;
      engine::Engine engine(*model, comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                            options);
      require_equal_parameters(comm, engine);
    });
  };

  EXPECT_NO_THROW(begin_with(1));
  try {
    begin_with(2);
    FAIL() << "other parameters on rank 2 passed";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::desync);
    EXPECT_TRUE(mentions(error.what(), "rank 2 begins with other parameters than rank 0")) << error.what();
  }
}

}  // namespace
}  // namespace lockstep::run
