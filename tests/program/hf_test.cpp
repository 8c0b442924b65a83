// Weights to Hugging Face's form and back.
#include <gmock/gmock.h>

#include <filesystem>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class HuggingFace : public ProgramTest {
 protected:
  HuggingFace() {
    std::string text;
    for (int i = 0; i < 400; ++i) text += i % 3 == 0 ? "lamb and stone\n" : i % 7 == 0 ? "seven tents " : "bread ";
    write_text(path("text.txt"), text);
    write_text(path("gpt.yaml"),
               "model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 32, block_size: 16}\n"
               "data: {type: text, path: text.txt, tokenizer: char}\n"
               "run: {name: first, output_dir: runs, steps: 10, checkpoint: {every: 5}}\n"
               "train_batch_size: 8\n");
  }
  [[nodiscard]] std::string bytes(const std::string& file) const { return text_of(path(file)); }
};

TEST_F(HuggingFace, WhatIsExportedIsImportedWithTheSameBitsAndTrainedAndWrittenFrom) {
  ASSERT_EQ(run("lockstep train gpt.yaml").exit_code, 0);
  ASSERT_EQ(run("lockstep ckpt export-hf runs/first exported").exit_code, 0);

  const Outcome imported = run("lockstep ckpt import-hf exported gpt.yaml -n 2 --set run.name=second");
  const Outcome again = run("lockstep ckpt export-hf runs/second again");

  ASSERT_EQ(imported.exit_code, 0) << imported.all();
  EXPECT_THAT(imported.out, HasSubstr("runs/second/checkpoints/step-0: gpt2 "));
  EXPECT_EQ(run("lockstep ckpt verify runs/second").exit_code, 0);
  const std::string weights = "/model-00001-of-00001.safetensors";
  EXPECT_EQ(bytes("runs/second/checkpoints/step-0" + weights), bytes("runs/first/checkpoints/step-10" + weights));
  EXPECT_EQ(again.exit_code, 0) << again.all();
  EXPECT_EQ(bytes("again/model.safetensors"), bytes("exported/model.safetensors"));
  EXPECT_EQ(bytes("again/config.json"), bytes("exported/config.json"));

  // The run that goes on is the one that model.init_from begins.
  const Outcome written = run("lockstep generate runs/second --prompt lamb --tokens 5");
  const Outcome trained = run("mpirun -n 2 lockstep train gpt.yaml --set run.name=second");
  const Outcome direct = run("mpirun -n 2 lockstep train gpt.yaml --set run.name=third --set model.init_from=exported");

  EXPECT_EQ(written.exit_code, 0) << written.all();
  EXPECT_EQ(trained.exit_code, 0) << trained.all();
  EXPECT_THAT(trained.out, HasSubstr("resume    from runs/second/checkpoints/step-0: step 0, 0 updates"));
  EXPECT_THAT(trained.out, HasSubstr("resume verified"));
  EXPECT_EQ(direct.exit_code, 0) << direct.all();
  EXPECT_EQ(run("lockstep compare runs/second runs/third").exit_code, 0);
}

TEST_F(HuggingFace, AnotherModelAndARunThatIsThereAreRefused) {
  ASSERT_EQ(run("lockstep train gpt.yaml --set run.steps=1").exit_code, 0);
  ASSERT_EQ(run("lockstep ckpt export-hf runs/first exported").exit_code, 0);

  const Outcome there = run("lockstep ckpt import-hf exported gpt.yaml");
  const Outcome heads = run("lockstep ckpt import-hf exported gpt.yaml --set run.name=x --set model.n_head=4");
  const Outcome none = run("lockstep ckpt import-hf nowhere gpt.yaml --set run.name=x");
  const Outcome mlp = run("lockstep ckpt import-hf exported job.yaml");

  EXPECT_EQ(there.exit_code, 2) << there.all();
  EXPECT_THAT(there.err, HasSubstr("runs/first exists already; give the run another name"));
  EXPECT_EQ(heads.exit_code, 2) << heads.all();
  EXPECT_THAT(heads.err, HasSubstr("n_head"));
  EXPECT_EQ(none.exit_code, 2) << none.all();
  EXPECT_THAT(none.err, HasSubstr("is no folder"));
  EXPECT_EQ(mlp.exit_code, 2) << mlp.all();
  EXPECT_THAT(mlp.err, HasSubstr("model.type is mlp; only a gpt2"));
  EXPECT_FALSE(fs::exists(path("runs/x")));
}

TEST_F(HuggingFace, PruneIsACommand) {
  ASSERT_EQ(run("lockstep train gpt.yaml --set run.checkpoint.every=2 --set run.checkpoint.keep_last=0").exit_code, 0);

  const Outcome dry = run("lockstep ckpt prune runs/first --keep-last 1 --keep-every 4 --dry-run");
  const Outcome outcome = run("lockstep ckpt prune runs/first --keep-last 1 --keep-every 4");
  const Outcome unclear = run("lockstep ckpt prune runs/first");

  EXPECT_EQ(count_of(dry.out, "would remove runs/first/checkpoints/step-"), 2) << dry.all();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_EQ(count_of(outcome.out, "removed runs/first/checkpoints/step-2: "), 1) << outcome.out;
  EXPECT_EQ(count_of(outcome.out, "runs/first: 3 checkpoints stay, 2 removed"), 1) << outcome.out;
  EXPECT_EQ(unclear.exit_code, 2) << "how many stay must be said";
}

}  // namespace
}  // namespace lockstep::testing
