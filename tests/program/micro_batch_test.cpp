// train_micro_batch_size_per_gpu: auto.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

using ::testing::HasSubstr;

class MicroBatch : public ProgramTest {
 protected:
  MicroBatch() {
    std::string text;
    for (int i = 0; i < 500; ++i) text += "three lambs by five rivers.\n";
    write_text(path("text.txt"), text);
    write_text(path("gpt.yaml"),
               "model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 128, block_size: 64}\n"
               "data: {type: text, path: text.txt}\n"
               "run: {name: r, output_dir: runs, steps: 2, eval_every: 0, memory_limit: 0.0625}\n"  // 64 MiB
               "train_batch_size: 128\ntrain_micro_batch_size_per_gpu: auto\n");
  }
  [[nodiscard]] nlohmann::json last_line() const {
    const std::string text = text_of(path("runs/r/metrics.jsonl"));
    const std::size_t end = text.rfind('\n', text.size() - 2);
    return nlohmann::json::parse(end == std::string::npos ? text : text.substr(end + 1));
  }
};

TEST_F(MicroBatch, AutoPicksTheLargestThatStaysUnderTheLimit) {
  const Outcome outcome = run("mpirun -n 2 lockstep train gpt.yaml");

  ASSERT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_THAT(outcome.out, HasSubstr("2 ranks (from MPI) x 16 micro (auto, the largest within run.memory_limit 0.0625 "
                                     "GiB) x 4 accumulation (derived) = 128"));
  EXPECT_LT(last_line()["memory_bytes"].get<double>(), 64.0 * 1024 * 1024);
  EXPECT_THAT(text_of(path("runs/r/job.yaml")), HasSubstr("train_micro_batch_size_per_gpu: 16"));
  const Outcome next = run("lockstep preview gpt.yaml -n 2 --json --set train_micro_batch_size_per_gpu=32");
  EXPECT_GT(nlohmann::json::parse(next.out)["memory"]["total"].get<double>(), 64.0 * 1024 * 1024)
      << "the next size is too large";
}

TEST_F(MicroBatch, StaysOnResumeWhateverIsFreeThen) {
  ASSERT_EQ(run("lockstep train gpt.yaml").exit_code, 0);
  const Outcome outcome = run("lockstep train gpt.yaml --set run.steps=3 --set run.memory_limit=1");

  ASSERT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_THAT(outcome.out, HasSubstr("16 micro (from the checkpoint)"));
  EXPECT_THAT(text_of(path("runs/r/job.yaml")), HasSubstr("train_micro_batch_size_per_gpu: 16"));
}

TEST_F(MicroBatch, IsPickedForADeepSpeedFileToo) {
  write_text(path("ds.json"), R"({"train_batch_size": 128, "train_micro_batch_size_per_gpu": "auto"})");
  write_text(path("ds.yaml"),
             "model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 128, block_size: 64}\n"
             "data: {type: text, path: text.txt}\nrun: {steps: 2, memory_limit: 0.0625}\ndeepspeed: ds.json\n");
  const Outcome outcome = run("lockstep config ds.yaml -n 2");

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_THAT(outcome.out, HasSubstr("x 16 micro (auto, the largest within run.memory_limit 0.0625 GiB)"));
}

TEST_F(MicroBatch, SaysWhatIsMissing) {
  const Outcome too_small = run("mpirun -n 2 lockstep train gpt.yaml --set run.memory_limit=0.02"),
                too_large = run("lockstep train gpt.yaml --set train_micro_batch_size_per_gpu=128"),
                accumulated = run("lockstep train gpt.yaml --set gradient_accumulation_steps=2"),
                invariant = run("lockstep train gpt.yaml --set run.determinism=invariant"),
                none = run("lockstep train gpt.yaml --set train_batch_size=null");

  EXPECT_EQ(too_small.exit_code, 8) << too_small.all();
  EXPECT_EQ(count_of(too_small.err, "train_micro_batch_size_per_gpu: auto: not even one sample fits: "), 1);
  EXPECT_THAT(too_small.err, HasSubstr("run.memory_limit 0.02 GiB"));
  EXPECT_EQ(too_large.exit_code, 8) << too_large.all();
  EXPECT_THAT(too_large.err, HasSubstr("run.memory_limit 0.0625 GiB"));
  EXPECT_THAT(too_large.err, HasSubstr("    train_micro_batch_size_per_gpu: 16: "));
  for (const Outcome& outcome : {accumulated, invariant, none}) EXPECT_EQ(outcome.exit_code, 2) << outcome.all();
  EXPECT_THAT(accumulated.err, HasSubstr("leave one size only"));
  EXPECT_THAT(invariant.err, HasSubstr("give a number"));
  EXPECT_THAT(none.err, HasSubstr("auto needs train_batch_size"));
}

}  // namespace
}  // namespace lockstep::testing
