// What a person sees of a run: on terminals of several widths, in a file, through a pipe.
#include <nlohmann/json.hpp>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

/// What a terminal so wide shows at the end, scrolled lines included: it knows carriage returns, line feeds, and that a
/// line goes on in the next row when the last column is written.
std::vector<std::string> screen_of(const std::string& sent, std::size_t columns) {
  std::vector<std::string> rows = {""};
  std::size_t at = 0;
  for (const char c : sent) {
    if (c == '\r') {
      at = 0;
    } else if (c == '\n') {
      rows.emplace_back();
    } else {
      if (at == columns) {
        rows.emplace_back();
        at = 0;
      }
      if (rows.back().size() <= at) rows.back().resize(at + 1, ' ');
      rows.back()[at++] = c;
    }
  }
  for (std::string& row : rows)
    while (row.ends_with(' ')) row.pop_back();
  return rows;
}

std::vector<std::string> rows_with(const std::vector<std::string>& rows, const std::string& beginning) {
  std::vector<std::string> found;
  for (const std::string& row : rows)
    if (row.starts_with(beginning)) found.push_back(row);
  return found;
}

class Terminal : public ProgramTest {
 protected:
  /// Ten steps take longer than the 0.1 s after which the line is drawn again, on a fast machine too.
  static constexpr const char* train =
      "lockstep train job.yaml --set model.hidden=[512,512] --set train_batch_size=3072 --set run.log_every=10 "
      "--set run.steps=60 --set run.eval_every=30 --set run.threads=1";
};

TEST_F(Terminal, ALineFitsAnyWidthAndWhatStaysIsWhole) {
  for (const int columns : {40, 60, 80, 120}) {
    const Outcome outcome = run_on_terminal(train + std::string(" --resume never"), columns);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.out;
    EXPECT_NE(outcome.out.find("\rstep "), std::string::npos) << "it rewrites itself: " << outcome.out;

    const auto rows = screen_of(outcome.out, static_cast<std::size_t>(columns));

    const std::vector<std::string> steps = rows_with(rows, "step ");
    std::vector<std::string> expected;
    for (const char* step : {" 1", "10", "20", "30", "40", "50", "60"}) expected.push_back("step " + std::string(step));
    std::size_t found = 0;
    for (const std::string& row : steps) {
      if (row.find("val_loss") != std::string::npos) continue;
      ASSERT_LT(found, expected.size()) << columns << ": a row too many: " << row << "\n" << outcome.out;
      EXPECT_TRUE(row.starts_with(expected[found] + "/60")) << columns << ": " << row;
      EXPECT_NE(row.find("  loss "), std::string::npos) << columns << ": " << row;
      EXPECT_EQ(row.find("  eta ") != std::string::npos, columns >= 60) << row;
      EXPECT_EQ(row.find(" samples/s") != std::string::npos, columns >= 60) << row;
      EXPECT_EQ(row.find("  lr ") != std::string::npos, columns >= 80) << row;
      EXPECT_EQ(row.find("  norm ") != std::string::npos, columns >= 120) << row;
      ++found;
    }
    EXPECT_EQ(found, expected.size()) << columns << "\n" << outcome.out;
    EXPECT_EQ(rows_with(rows, "step 30: val_loss").size(), 1U) << outcome.out;
  }
}

TEST_F(Terminal, OneThatDoesNotKnowItsWidthIsAsWideAsColumnsSays) {
  // A script's shell knows no window: the size of its terminal is 0 by 0.
  const Outcome outcome =
      run_on_terminal("sh -c 'stty cols 0 <&1; exec " + std::string(" ") + train + "'", 200, {{"COLUMNS", "40"}});

  const auto steps = rows_with(screen_of(outcome.out, 200), "step ");
  ASSERT_GE(steps.size(), 7U) << outcome.out;
  for (const std::string& row : steps) {
    if (row.find(": val_") != std::string::npos) continue;
    EXPECT_LT(row.size(), 50U) << row;
  }
}

TEST_F(Terminal, AnErrorHasALineOfItsOwnAndTheLastStepStays) {
  const Outcome outcome =
      run_on_terminal(train + std::string(" --set run.log_every=1000 --set optimizer.type=SGD "
                                          "--set optimizer.params.lr=1e38 --set gradient_clipping=0"),
                      100);

  EXPECT_EQ(outcome.exit_code, 5) << outcome.out;
  const auto rows = screen_of(outcome.out, 100);
  EXPECT_EQ(rows_with(rows, "lockstep: diverged").size(), 1U) << outcome.out;
  EXPECT_GE(rows_with(rows, "step ").size(), 1U) << outcome.out;
}

TEST_F(Terminal, ALogHoldsTheLossesWhetherErrorsGoThereToo) {
  const auto steps_in = [](const std::string& text) { return count_of(text, "\nstep "); };

  const Outcome file = run(train + std::string(" --resume never"), {}, "> log; cat log");
  const Outcome pipe = run(train + std::string(" --resume never"), {}, "2>&1 | tee log");
  const Outcome ranks = run("mpirun -n 2 " + std::string(train) + " --resume never", {}, "> log; cat log");

  for (const Outcome* outcome : {&file, &pipe, &ranks}) {
    EXPECT_EQ(steps_in(outcome->out), 7 + 2) << outcome->all();
    EXPECT_EQ(outcome->out.find('\r'), std::string::npos) << outcome->out;
    EXPECT_NE(outcome->out.find("\nstep 30: val_loss"), std::string::npos) << outcome->out;
    EXPECT_NE(outcome->out.find("\ncheckpoint runs/r"), std::string::npos) << outcome->out;
    EXPECT_NE(outcome->out.find("\ndone: 60 steps"), std::string::npos) << outcome->out;
    EXPECT_EQ(outcome->err, "");
  }
}

TEST_F(Terminal, AWarningIsPrintedOnce) {
  const Outcome outcome =
      run("lockstep train job.yaml --set run.steps=2 --set scheduler.type=WarmupDecayLR "
          "--set scheduler.params.total_num_steps=100");

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_EQ(count_of(outcome.all(), "before the schedule's 100"), 1) << outcome.all();
  EXPECT_EQ(count_of(outcome.all(), "warning"), count_of(outcome.err, "warning: ")) << outcome.all();
}

TEST_F(Terminal, OneOfAThingIsWrittenSo) {
  const Outcome outcome = run("lockstep train job.yaml --set run.steps=1 --set data.samples=10 --set run.threads=1");

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  for (const char* part : {"1 rank (no launcher) x", " x 1 thread", ", step 1, determinism", "(1 validation sample)",
                           "done: 1 step (1 update)"})
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << " is not in\n" << outcome.out;
  for (const char* wrong : {" 1 steps", " 1 updates", "0.00 GFLOP", "0.0 MiB"})
    EXPECT_EQ(outcome.out.find(wrong), std::string::npos) << wrong << " is in\n" << outcome.out;
}

TEST_F(Terminal, WithoutValidationSamplesNoValLossIsWrittenAnywhere) {
  const Outcome outcome = run("lockstep train job.yaml --set data.validation_fraction=0");

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_EQ(count_of(outcome.out, "val_loss"), 1) << outcome.out;
  EXPECT_NE(outcome.out.find("no validation samples (data.validation_fraction 0), so there will be no val_loss"),
            std::string::npos)
      << outcome.out;
  EXPECT_EQ(text_of(path("runs/r/metrics.jsonl")).find("val_loss"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::testing
