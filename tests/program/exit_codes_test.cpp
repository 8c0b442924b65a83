// The README's table of exit codes, walked through the program.
#include <csignal>
#include <thread>

#include "tests/program/jobs.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::testing {
namespace {

class ExitCodes : public ProgramTest {};

TEST_F(ExitCodes, ZeroForARunAloneUnderALauncherAndWithThreads) {
  EXPECT_EQ(run("lockstep train job.yaml").exit_code, 0);
  EXPECT_EQ(metrics_lines(), 20);
  EXPECT_EQ(run("mpirun -n 2 lockstep train job.yaml --resume never").exit_code, 0);
  EXPECT_EQ(metrics_lines(), 20);
  EXPECT_EQ(run("lockstep train job.yaml --resume never --set comm.backend=local --set comm.ranks=2").exit_code, 0);
  EXPECT_EQ(metrics_lines(), 20);
}

TEST_F(ExitCodes, ACompleteRunSaysSoAndDoesNothing) {
  ASSERT_EQ(run("lockstep train job.yaml").exit_code, 0);

  const Outcome again = run("lockstep train job.yaml");

  EXPECT_EQ(again.exit_code, 0);
  EXPECT_NE(again.out.find("complete at step 20"), std::string::npos) << again.all();
}

TEST_F(ExitCodes, TwoForJobFileAndCommandLine) {
  write_text(path("bad.yaml"), job() + "trian_batch_size: 3\n");

  EXPECT_EQ(run("mpirun -n 2 lockstep train bad.yaml").exit_code, 2);
  EXPECT_EQ(run("lockstep train job.yaml --frobnicate").exit_code, 2);
  EXPECT_EQ(run("lockstep trian job.yaml").exit_code, 2);
  EXPECT_EQ(run("lockstep config bad.yaml").exit_code, 2);
}

TEST_F(ExitCodes, TwoForNumbersThatAnOptionCannotBe) {
  for (const char* command :
       {"generate x --temperature nan", "generate x --temperature inf", "generate x --tokens 0", "generate x --seed -1",
        "generate x --top-k 1.5", "lr job.yaml --updates -5", "lr job.yaml --updates 99999999999999999",
        "bench step job.yaml --samples 0", "bench step job.yaml --classes 1"}) {
    const Outcome outcome = run(std::string("lockstep ") + command);

    EXPECT_EQ(outcome.exit_code, 2) << command << outcome.all();
    EXPECT_NE(outcome.err.find("number from"), std::string::npos) << command << outcome.all();
  }
}

TEST_F(ExitCodes, ThreeForMissingData) {
  const Outcome outcome =
      run("mpirun -n 2 lockstep train job.yaml --set model.type=gpt2 --set model.n_layer=1 --set data.type=text "
          "--set data.path=no.txt");
  write_text(path("text.yaml"),
             "model: {type: gpt2, n_layer: 1, n_head: 1, n_embd: 8, block_size: 8}\n"
             "data: {type: text, path: no.txt}\nrun: {steps: 2}\ntrain_batch_size: 2\n");
  const Outcome missing = run("mpirun -n 2 lockstep train text.yaml");

  EXPECT_EQ(outcome.exit_code, 2) << "hidden belongs to another model";
  EXPECT_EQ(missing.exit_code, 3) << missing.all();
  EXPECT_EQ(count_of(missing.err, "no.txt"), 1) << missing.err;
}

TEST_F(ExitCodes, FourForACheckpointThatCannotBeUsed) {
  const Outcome outcome = run("mpirun -n 2 lockstep train job.yaml --resume runs/r/checkpoints/step-5");

  EXPECT_EQ(outcome.exit_code, 4) << outcome.all();
  EXPECT_EQ(count_of(outcome.err, "there is no such checkpoint"), 1) << outcome.err;
}

TEST_F(ExitCodes, ANamedCheckpointThatIsDamagedIsToldWithTheWaysOut) {
  ASSERT_EQ(run("lockstep train job.yaml").exit_code, 0);
  const std::string checkpoint = path("runs/r/checkpoints/step-20");
  const std::string whole = text_of(checkpoint + "/manifest.json");
  const std::string more = "lockstep train job.yaml --set run.steps=30 --resume runs/r/checkpoints/step-20";

  write_text(checkpoint + "/manifest.json", whole.substr(0, whole.size() / 2));
  const Outcome manifest = run(more);
  write_text(checkpoint + "/manifest.json", whole);
  write_text(checkpoint + "/model-00001-of-00001.safetensors",
             "x" + text_of(checkpoint + "/model-00001-of-00001.safetensors").substr(1));
  const Outcome tensors = run(more);

  for (const Outcome* outcome : {&manifest, &tensors}) {
    EXPECT_EQ(outcome->exit_code, 4) << outcome->all();
    EXPECT_NE(outcome->err.find("Put back a good copy, name another one with --resume FOLDER, or start anew"),
              std::string::npos)
        << outcome->err;
  }
}

TEST_F(ExitCodes, FiveForARunThatDiverges) {
  const Outcome outcome =
      run("mpirun -n 2 lockstep train job.yaml --set optimizer.params.lr=1e38 --set optimizer.type=SGD");

  EXPECT_EQ(outcome.exit_code, 5) << outcome.all();
  EXPECT_EQ(count_of(outcome.err, "lockstep: diverged"), 1) << outcome.err;
}

TEST_F(ExitCodes, SixForARankThatHangsAndItIsNamed) {
  Program program("mpirun -n 2 lockstep train job.yaml --set run.steps=100000000 --set comm.timeout_s=2", options());
  ASSERT_TRUE(program.wait_for("step  "));
  const pid_t stopped = program.ranks().at(1);

  kill(stopped, SIGSTOP);
  const Outcome outcome = program.finish();

  EXPECT_EQ(outcome.exit_code, 6) << outcome.all();
  EXPECT_NE(outcome.err.find("no answer from rank 1"), std::string::npos) << outcome.err;
  kill(stopped, SIGCONT);
  EXPECT_TRUE(program.all_gone(Seconds(5)));
  EXPECT_EQ(count_of(program.output(), "no answer from rank 0"), 0) << "the one that woke up accuses nobody";
}

TEST_F(ExitCodes, SevenForRanksThatDisagree) {
  const Outcome outcome = run("mpirun -n 2 lockstep train job.yaml", {{"LOCKSTEP_DRILL", "desync@rank=1,step=3"}});

  EXPECT_EQ(outcome.exit_code, 7) << outcome.all();
  EXPECT_NE(outcome.err.find("rank 0 broadcast 0.001, rank 1 evaluated 0.0010000000000000002"), std::string::npos);
  EXPECT_EQ(count_of(outcome.err, "lockstep: "), 1) << outcome.err;
}

TEST_F(ExitCodes, EightForWhatTheMachineLacks) {
  EXPECT_EQ(run("mpirun -n 2 lockstep train job.yaml --set run.device=cuda").exit_code, 8);
  EXPECT_EQ(run("mpirun -n 2 lockstep train job.yaml --set comm.backend=nccl").exit_code, 8);
}

TEST_F(ExitCodes, EightForAResultThatCouldNotBeWrittenUnlessItsReaderWentAway) {
  const Outcome full = run("lockstep lr job.yaml --format csv", {}, "> /dev/full");
  const Outcome left = run("( lockstep lr job.yaml --format csv --updates 100000; echo code $? >&2 )", {}, "| head -1");

  EXPECT_EQ(full.exit_code, 8);
  EXPECT_NE(full.err.find("could not be written"), std::string::npos) << full.err;
  EXPECT_NE(left.err.find("code 0"), std::string::npos) << left.err;
}

/// A folder with commands of our own in front of everybody's.
void put_command(const std::string& path, const std::string& script) {
  write_text(path, "#!/bin/sh\n" + script + "\n");
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
}

TEST_F(ExitCodes, SeventyFiveReachesTheSlurmScriptWhichGoesBackIntoTheQueue) {
  std::filesystem::create_directories(path("bin"));
  put_command(path("bin/mpirun"), "shift; PATH=$REAL_PATH exec mpirun --oversubscribe -n 2 " + program_path() +
                                      " \"$@\" --set run.steps=100000000 --set run.log_every=100000");
  put_command(path("bin/scontrol"), "echo \"scontrol $*\"");
  const std::string real_path = std::getenv("PATH");
  Program script(
      "bash " + source_dir() + "/examples/slurm/train.sbatch job.yaml",
      options({{"PATH", path("bin") + ":" + real_path}, {"REAL_PATH", real_path}, {"SLURM_JOB_ID", "4711"}}));
  ASSERT_TRUE(script.wait_for("step  "));

  script.signal(SIGUSR2);
  const Outcome outcome = script.finish();

  EXPECT_EQ(outcome.exit_code, 75) << outcome.all();
  EXPECT_NE(outcome.err.find("everything is saved"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.out.find("scontrol requeue 4711"), std::string::npos) << outcome.out;
}

TEST_F(ExitCodes, TheSlurmScriptEndsWithTheCodeOfAnErrorAndWithZero) {
  std::filesystem::create_directories(path("bin"));
  put_command(path("bin/mpirun"), "shift; exec " + program_path() + " \"$@\"");
  put_command(path("bin/scontrol"), "echo \"scontrol $*\"");
  const std::map<std::string, std::string> environment = {{"PATH", path("bin") + ":" + std::getenv("PATH")}};
  const std::string script = "bash " + source_dir() + "/examples/slurm/train.sbatch ";

  const Outcome missing = run(script + "nothing.yaml", environment);
  const Outcome fine = run(script + "job.yaml", environment);

  EXPECT_EQ(missing.exit_code, 2) << missing.all();
  EXPECT_EQ(fine.exit_code, 0) << fine.all();
  EXPECT_EQ((missing.all() + fine.all()).find("scontrol"), std::string::npos);
}

TEST_F(ExitCodes, SeventyFiveForARunThatWasStoppedAndSaved) {
  const std::string endless =
      "mpirun -n 2 lockstep train job.yaml --set run.steps=100000000 --set run.log_every=100000";
  Program by_user_signal(endless, options());
  ASSERT_TRUE(by_user_signal.wait_for("steps 1 to"));
  std::this_thread::sleep_for(Seconds(0.3));

  // mpirun passes SIGUSR2 on and waits.
  by_user_signal.signal(SIGUSR2);
  const Outcome outcome = by_user_signal.finish();

  EXPECT_EQ(outcome.exit_code, 75) << outcome.all();
  EXPECT_NE(outcome.all().find("everything is saved"), std::string::npos) << outcome.all();

  Program by_termination(endless, options());
  ASSERT_TRUE(by_termination.wait_for("resume  "));
  std::this_thread::sleep_for(Seconds(0.3));

  // SIGTERM makes Open MPI's mpirun give up after a second, with a code of its own; what is saved by then is saved.
  by_termination.signal(SIGTERM);
  const Outcome terminated = by_termination.finish();

  EXPECT_NE(terminated.exit_code, 0);
  EXPECT_NE(terminated.all().find("everything is saved"), std::string::npos) << terminated.all();
}

}  // namespace
}  // namespace lockstep::testing
