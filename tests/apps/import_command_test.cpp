#include "apps/import_command.hpp"

#include <gmock/gmock.h>

#include "job/job.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::ScratchFolder;

TEST(Import, SaysForEachKeyWhatBecameOfIt) {
  const ScratchFolder folder;
  const std::string path = folder / "my config.json";
  testing::write_text(path, R"({
  "train_batch_size": 16, "gradient_accumulation_steps": "auto",
  "optimizer": {"type": "adam", "params": {"lr": 0.001}},
  "scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": "auto", "warmup_num_steps": 5}},
  "zero_optimization": {"stage": 0, "contiguous_gradients": true}
})");

  const std::string text = import_text(path, {"run.steps=20", "optimizer.params.weight_decay=0.5"});

  EXPECT_EQ(text, "# A job with the settings of " + path + R"(.

# What a DeepSpeed file does not say: yours to change.
model:
  type: mlp
data:
  type: clusters
run:
  name: my_config
  steps: 20

# From that file, each key with its line.
train_batch_size: 16  # line 2
optimizer:
  type: Adam  # line 3
  params:
    lr: 0.001  # line 3
    weight_decay: 0.5  # --set
scheduler:
  type: WarmupDecayLR  # line 4
  params:
    total_num_steps: auto  # line 4
    warmup_num_steps: 5  # line 4
zero_optimization:
  stage: 0  # line 5
gradient_clipping: 1  # not given: DeepSpeed's default since 0.19.3; it was 0, off, before

# "auto" there, which other programs fill in; now:
#   gradient_accumulation_steps (line 2): derived

# Without effect here, and left out:
#   zero_optimization.contiguous_gradients (line 5): gradients always lie in flat buffers
)");
  const job::JobConfig job = job::load_job_text("job.yaml", text, "/").config;
  EXPECT_EQ(job.scheduler.params.number("total_num_steps"), 20);
  EXPECT_EQ(job.optimizer.adam.weight_decay, 0.5);
}

TEST(Import, FilesThatAreNoneAreToldSo) {
  const ScratchFolder folder;
  const auto error = [](const std::string& path) {
    return testing::error_text(ErrorKind::config, [&] { (void)import_text(path, {}); });
  };
  EXPECT_THAT(error(folder / "none.json"), HasSubstr("there is no such file; give a DeepSpeed configuration"));
  EXPECT_THAT(error(folder.path().string()), HasSubstr("it is no file"));
  testing::write_text(folder / "ds.json", "{\"train_batch_size\": 8,\n \"amp\": {\"enabled\": true}}");
  EXPECT_THAT(error(folder / "ds.json"), HasSubstr("ds.json:2:2: error: amp is not supported"));
  EXPECT_THAT(error(folder / "ds.json"), Not(HasSubstr("lockstep import:")));
}

}  // namespace
}  // namespace lockstep
