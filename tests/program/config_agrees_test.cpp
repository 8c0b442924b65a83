// `config` refuses what `train` would, in the same words.
#include <sys/stat.h>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

class ConfigAgrees : public ProgramTest {
 protected:
  void expect_same(const std::string& arguments, int ranks = 1) const {
    const std::string launch = ranks > 1 ? "mpirun -n " + std::to_string(ranks) + " " : "";
    const Outcome train = run(launch + "lockstep train " + arguments);
    const Outcome config =
        run("lockstep config " + arguments + (ranks > 1 ? " -n " + std::to_string(ranks) : std::string()));

    EXPECT_NE(train.exit_code, 0) << arguments;
    EXPECT_EQ(config.exit_code, train.exit_code) << arguments << config.all() << train.all();
    EXPECT_FALSE(config.err.empty());
    // mpirun adds words of its own behind, and `train` says that it is its; the text is the same.
    const std::string text =
        config.err.starts_with("lockstep: ") ? config.err : config.err.substr(0, config.err.size() - 1);
    EXPECT_NE(train.err.find(text), std::string::npos) << "config: " << config.err << "train: " << train.err;
  }
};

TEST_F(ConfigAgrees, OnDataDevicesPatternsAndBatches) {
  write_text(path("short.txt"), "abc");
  const std::string gpt2 =
      "model: {type: gpt2, n_layer: 1, n_head: 1, n_embd: 8, block_size: 8}\nrun: {steps: 2}\ntrain_batch_size: 2\n";
  write_text(path("missing.yaml"), gpt2 + "data: {type: text, path: no.txt}\n");
  write_text(path("short.yaml"), gpt2 + "data: {type: text, path: short.txt}\n");
  write_text(path("folder.yaml"), gpt2 + "data: {type: text, path: .}\n");

  expect_same("missing.yaml");
  expect_same("short.yaml");
  expect_same("folder.yaml");
  expect_same("job.yaml --set run.device=cuda");
  expect_same("job.yaml --set comm.backend=nccl");
  expect_same("job.yaml --set 'parameter_groups=[{match: [nothing.like.it], lr: 1}]'");
  expect_same("job.yaml --set trian_batch_size=3");
  expect_same("job.yaml", 3);
  expect_same("job.yaml --set comm.backend=local --set comm.ranks=3");
}

TEST_F(ConfigAgrees, OnBatchesOfALauncherThatIsNotThereYet) {
  const std::string fixed = "job.yaml --set train_micro_batch_size_per_gpu=2 --set gradient_accumulation_steps=1";

  const Outcome alone = run("lockstep config " + fixed);
  const Outcome four = run("lockstep config -n 4 " + fixed);

  EXPECT_EQ(alone.exit_code, 0) << alone.err;
  EXPECT_NE(alone.out.find("# one rank alone cannot train it: train_batch_size is 8"), std::string::npos) << alone.out;
  EXPECT_EQ(four.exit_code, 0) << four.err;
  EXPECT_NE(four.out.find("# batch: 4 ranks (from MPI) x 2 micro (given)"), std::string::npos) << four.out;
}

TEST_F(ConfigAgrees, OnWhatBecameOfADeepSpeedFile) {
  write_text(path("ds.json"),
             "{\"train_batch_size\": 8, \"gradient_clipping\": \"auto\", \"wandb\": {\"enabled\": true}}\n");
  write_text(path("ds.yaml"),
             "model: {type: mlp, hidden: [16]}\ndata: {type: clusters}\nrun: {steps: 2}\ndeepspeed: ds.json\n");

  const Outcome config = run("lockstep config ds.yaml");
  const Outcome train = run("lockstep train ds.yaml");

  for (const char* line : {"ds.json", "acted on: train_batch_size", "no effect here: wandb: metrics go to",
                           "auto, now: gradient_clipping: 1"}) {
    EXPECT_NE(config.out.find(line), std::string::npos) << line << config.all();
    EXPECT_NE(train.all().find(line), std::string::npos) << line << train.all();
  }
}

TEST_F(ConfigAgrees, OnJobsThatAreNoFiles) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);  // nobody writes into it
  for (const std::string job : {"/dev/null", "/dev/zero", ".", "pipe"})
    for (const std::string command : {"config ", "lr ", "train "}) {
      const Outcome outcome = run_program("lockstep " + command + job, options(), Seconds(20));

      EXPECT_EQ(outcome.exit_code, 2) << command << job << outcome.all();
      EXPECT_NE(outcome.err.find("not a file"), std::string::npos) << command << job << outcome.all();
    }
}

}  // namespace
}  // namespace lockstep::testing
