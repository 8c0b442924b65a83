// Where numbers went bad, as a user reads it.

#include <gtest/gtest.h>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

/// Rows of small numbers, but for one.
class NonFiniteNumbers : public ProgramTest {
 protected:
  static constexpr int bad_row = 20;
  void write_rows(const std::string& value) const {
    std::string text = "a,b,label\n";
    for (int row = 1; row <= 64; ++row) {
      const std::string number = row == bad_row ? value : std::to_string(row % 5);
      text += number + "," + number + "," + (row % 2 == 0 ? "x" : "y") + "\n";
    }
    write_text(path("rows.csv"), text);
    write_text(path("job.yaml"),
               "model: {type: mlp, hidden: [16]}\n"
               "data: {type: csv, path: rows.csv, target: label, standardize: false, validation_fraction: 0}\n"
               "run: {name: r, output_dir: runs, steps: 20, log_every: 1, eval_every: 0}\n"
               "train_batch_size: 8\n");
  }
};

TEST_F(NonFiniteNumbers, TheErrorNamesOperationRankAndRowOfTheFile) {
  write_rows("3e38");
  for (const char* more : {"", " --set zero_optimization.stage=3",
                           " --set fp16.enabled=true --set fp16.loss_scale=1 --set run.max_skipped_steps=1"}) {
    const Outcome outcome = run("mpirun -n 2 lockstep train job.yaml --resume never" + std::string(more));
    EXPECT_EQ(outcome.exit_code, 5) << outcome.all();
    EXPECT_EQ(count_of(outcome.err, "Run again operation by operation"), 1) << outcome.err;
    const bool half = std::string(more).find("fp16") != std::string::npos;
    EXPECT_EQ(count_of(outcome.err, half ? "that of input (operation 1 of" : "that of linear_gelu (operation 2 of"), 1)
        << outcome.err;
    EXPECT_EQ(count_of(outcome.err, "data row 20 of "), 1) << outcome.err;
  }
}

TEST_F(NonFiniteNumbers, AreNotLookedForWhereTheJobSaysSo) {
  write_rows("3e38");
  const Outcome outcome = run("mpirun -n 2 lockstep train job.yaml --set run.guard.provenance=false");
  EXPECT_EQ(outcome.exit_code, 5) << outcome.all();
  EXPECT_EQ(count_of(outcome.err, "Run again"), 0) << outcome.err;
}

TEST_F(NonFiniteNumbers, AFaultIsToldFromNumbersThatGoBadByThemselves) {
  const Outcome outcome = run("mpirun -n 2 lockstep train job.yaml", {{"LOCKSTEP_FAULT", "nan@rank1:step4"}});
  EXPECT_EQ(outcome.exit_code, 5) << outcome.all();
  EXPECT_EQ(count_of(outcome.err, "everything is finite on all 2 ranks"), 1) << outcome.err;
}

}  // namespace
}  // namespace lockstep::testing
