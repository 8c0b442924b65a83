// report, compare and import, as processes.
#include <filesystem>

#include "tests/program/jobs.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::testing {
namespace {

class RunReports : public ProgramTest {};

TEST_F(RunReports, ReportIsWrittenForARunOfTwoRanks) {
  ASSERT_EQ(run("mpirun -n 2 lockstep train job.yaml").exit_code, 0);

  const Outcome report = run("lockstep report runs/r");

  EXPECT_EQ(report.exit_code, 0) << report.all();
  EXPECT_TRUE(report.out.starts_with("runs/r/report.html: 20 steps of runs/r, loss ")) << report.out;
  const std::string html = text_of(path("runs/r/report.html"));
  EXPECT_NE(html.find("2 ranks (mpi"), std::string::npos);
  EXPECT_NE(html.find("lockstep 0."), std::string::npos);
  EXPECT_NE(html.find("train_batch_size: 8"), std::string::npos);
}

TEST_F(RunReports, CompareAnswersWithItsExitCode) {
  for (const char* name : {"a", "b"})
    ASSERT_EQ(run(std::string("lockstep train job.yaml --set run.name=") + name).exit_code, 0);
  ASSERT_EQ(run("lockstep train job.yaml --set run.name=c --set run.seed=7").exit_code, 0);

  const Outcome same = run("lockstep compare runs/a runs/b"), other = run("lockstep compare runs/a runs/c"),
                none = run("lockstep compare runs/a runs/d");

  EXPECT_EQ(same.exit_code, 0) << same.all();
  EXPECT_NE(same.out.find("losses: the same bits in all 20 steps that both have"), std::string::npos) << same.out;
  EXPECT_EQ(other.exit_code, 1) << other.all();
  EXPECT_NE(other.out.find("losses: the first other bits are at step 1; "), std::string::npos) << other.out;
  EXPECT_NE(other.out.find("run.seed"), std::string::npos);
  EXPECT_EQ(none.exit_code, 2) << none.all();
  EXPECT_NE(none.err.find("runs/d: there is no such folder. Give the folder of a run"), std::string::npos) << none.err;
  EXPECT_NE(none.err.find("runs/a"), std::string::npos) << "runs that are there: " << none.err;
}

TEST_F(RunReports, ImportPrintsAJobThatTrains) {
  const std::string file = source_dir() + "/tests/job/deepspeed/cifar_tutorial.json";

  const Outcome import = run("lockstep import " + file + " --set run.steps=5", {}, "> imported.yaml");
  const Outcome train = run("lockstep train imported.yaml");
  const Outcome missing = run("lockstep import nothing.json");
  const Outcome refused = run("lockstep import " + source_dir() + "/tests/job/deepspeed/misspelt.json");

  EXPECT_EQ(import.exit_code, 0) << import.all();
  EXPECT_EQ(train.exit_code, 0) << train.all();
  EXPECT_NE(train.out.find("WarmupLR"), std::string::npos) << train.out;
  EXPECT_EQ(missing.exit_code, 2);
  EXPECT_NE(missing.err.find("nothing.json: there is no such file; give a DeepSpeed configuration"), std::string::npos);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("misspelt.json:"), std::string::npos) << refused.err;
}

}  // namespace
}  // namespace lockstep::testing
