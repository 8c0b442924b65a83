// Memory is known before anything is allocated.
#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

class Memory : public ProgramTest {
 protected:
  Memory() {
    std::string text;
    for (int i = 0; i < 500; ++i) text += "three lambs by five rivers.\n";
    write_text(path("text.txt"), text);
    write_text(path("large.yaml"),
               "model: {type: gpt2, preset: 124M}\n"
               "data: {type: text, path: text.txt}\n"
               "run: {name: r, output_dir: runs, steps: 2}\n"
               "train_batch_size: 8\ntrain_micro_batch_size_per_gpu: 4\n");
  }
};

TEST_F(Memory, AJobThatDoesNotFitIsRefusedAtOnceWithWhatDoes) {
  const Outcome outcome = run("sh -c ' ulimit -v 3500000; exec lockstep train large.yaml'");

  EXPECT_EQ(outcome.exit_code, 8) << outcome.all();
  EXPECT_EQ(outcome.out.find("memory    "), 0U) << "the first line: " << outcome.out;
  for (const char* part : {"environment error: the job needs ", "(limit: the limit of this process's address space",
                           "  What fits:\n    train_micro_batch_size_per_gpu: "})
    EXPECT_NE(outcome.err.find(part), std::string::npos) << part << " is not in\n" << outcome.err;
  EXPECT_FALSE(std::filesystem::exists(path("runs/r"))) << "nothing was written";
}

TEST_F(Memory, RanksAreToldOnce) {
  const Outcome outcome = run("mpirun -n 2 sh -c ' ulimit -v 3500000; exec lockstep train large.yaml'");

  EXPECT_EQ(outcome.exit_code, 8) << outcome.all();
  EXPECT_EQ(count_of(outcome.out, "memory    "), 1) << outcome.out;
  EXPECT_EQ(count_of(outcome.err, "of memory for 2 ranks of this host"), 1) << outcome.err;
}

TEST_F(Memory, ConfigForecastsIt) {
  const Outcome outcome = run("lockstep config job.yaml");
  const Outcome large = run("sh -c ' ulimit -v 3500000; exec lockstep config large.yaml'");

  EXPECT_EQ(outcome.out.find("# memory    "), outcome.out.find("# ")) << outcome.out;
  EXPECT_EQ(outcome.out.find("not on this machine"), std::string::npos) << outcome.out;
  EXPECT_EQ(large.exit_code, 0) << large.all();
  EXPECT_NE(large.out.find("# not on this machine now: the job needs "), std::string::npos) << large.out;
  write_text(path("again.yaml"), large.out);
  EXPECT_EQ(run("lockstep config again.yaml").exit_code, 0) << "it is a job file still";
}

TEST_F(Memory, AbsurdSizesAreErrorsOfTheJobOrTheMachine) {
  for (const char* absurd :
       {"--set train_batch_size=9000000000000000000", "--set train_micro_batch_size_per_gpu=9000000000000000000",
        "--set data.samples=1000000000 --set data.features=1000000", "--set model.hidden=[1000000,1000000,1000000]",
        "--set train_batch_size=1000000000 --set train_micro_batch_size_per_gpu=1",
        "--set train_batch_size=2000000000"}) {
    const Outcome outcome = run(std::string("sh -c ' ulimit -v 8000000; exec lockstep train job.yaml ") + absurd + "'");

    EXPECT_TRUE(outcome.exit_code == 2 || outcome.exit_code == 8) << absurd << ": " << outcome.all();
    EXPECT_EQ(outcome.err.find("internal error"), std::string::npos) << absurd << ": " << outcome.err;
    EXPECT_EQ(outcome.err.find("memory is exhausted"), std::string::npos) << absurd << ": " << outcome.err;
    EXPECT_EQ(outcome.err.find("out of memory"), std::string::npos) << absurd << ": " << outcome.err;
  }
}

}  // namespace
}  // namespace lockstep::testing
