// determinism: invariant, by the program under mpirun.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "tests/program/jobs.hpp"
#include "tests/support/checkpoint_tensors.hpp"

namespace lockstep::testing {
namespace {

using nlohmann::json;

/// A few thousand characters that are easy to learn in part.
std::string made_up_text() {
  std::string text;
  for (int i = 0; i < 500; ++i) text += fmt::format("{} lambs by {} rivers.\n", i * i % 17, i % 5);
  return text;
}

/// What a run leaves behind, without the clock.
struct Trace {
  std::vector<json> lines;
  std::map<std::string, std::string> tensors;
};

class Invariant : public ProgramTest {
 protected:
  Invariant() {
    write_text(path("text.txt"), made_up_text());
    write_text(path("job.yaml"),
               "model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 64, block_size: 32}\n"
               "data: {type: text, path: text.txt}\n"
               "run: {output_dir: runs, steps: 6, eval_every: 3, log_every: 0, determinism: invariant}\n"
               "train_batch_size: 16\n"
               "train_micro_batch_size_per_gpu: 2\n");
  }

  [[nodiscard]] Trace trace_of(const std::string& name) const {
    Trace trace;
    std::ifstream in(path("runs/" + name + "/metrics.jsonl"));
    for (std::string text; std::getline(in, text);) {
      json& line = trace.lines.emplace_back(json::parse(text));
      line.erase("tokens_per_s");
      line.erase("step_ms");
      line.erase("memory_bytes");
    }
    trace.tensors = logical_tensors(path("runs/" + name + "/checkpoints/step-6"));
    return trace;
  }

  static std::string command(int ranks, int threads, const std::string& name, const std::string& more) {
    return fmt::format("mpirun -n {} lockstep train job.yaml --set run.threads={} --set run.name={} {}", ranks, threads,
                       name, more);
  }

  void expect_the_same_everywhere(const std::string& precision) const {
    std::optional<Trace> first;
    for (const int ranks : {1, 2, 3, 4, 5, 8})
      for (const int threads : {1, 2, 3}) {
        const std::string name = fmt::format("n{}t{}", ranks, threads);
        const Outcome outcome = run(command(ranks, threads, name, precision));
        ASSERT_EQ(outcome.exit_code, 0) << name << ": " << outcome.all();
        const Trace trace = trace_of(name);
        ASSERT_EQ(trace.lines.size(), 6U);
        if (!first) first = trace;
        EXPECT_EQ(trace.lines, first->lines) << name;
        EXPECT_TRUE(trace.tensors == first->tensors) << name << ": other tensors";
      }
  }
};

TEST_F(Invariant, TrainingLeavesTheSameBytesOnAnyNumberOfRanksAndThreads) { expect_the_same_everywhere(""); }

TEST_F(Invariant, TrainingInBf16LeavesTheSameBytesOnAnyNumberOfRanksAndThreads) {
  expect_the_same_everywhere("--set bf16.enabled=true");
}

TEST_F(Invariant, ARunGoesOnWithTheSameBytesOnAnotherNumberOfRanks) {
  ASSERT_EQ(run(command(2, 1, "whole", "")).exit_code, 0);
  ASSERT_EQ(run(command(3, 1, "moved", "--set run.checkpoint.every=4 --set run.steps=4")).exit_code, 0);

  const Outcome outcome = run(command(5, 2, "moved", ""));

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_NE(outcome.all().find("determinism invariant goes on with the same bits"), std::string::npos) << outcome.all();
  EXPECT_NE(outcome.all().find("5 ranks (from MPI) share 8 micro-batches of 2 (1 or 2 each) = 16"), std::string::npos)
      << outcome.all();
  EXPECT_TRUE(trace_of("moved").tensors == trace_of("whole").tensors);
}

TEST_F(Invariant, ARunGoesOnWithTheSameBytesInAnotherStageOfZero) {
  ASSERT_EQ(run(command(1, 1, "whole", "--set bf16.enabled=true")).exit_code, 0);
  const Trace whole = trace_of("whole");
  const auto stage = [](int number) {
    return fmt::format("--set bf16.enabled=true --set zero_optimization.stage={} ", number);
  };
  struct Move {
    int ranks, stage, then_ranks, then_stage;
  };
  for (const Move& move : {Move{3, 1, 2, 2}, Move{2, 2, 4, 3}, Move{3, 3, 2, 0}, Move{2, 0, 3, 3}}) {
    const std::string name = fmt::format("from{}to{}", move.stage, move.then_stage);
    const Outcome first = run(command(move.ranks, 1, name, stage(move.stage) + "--set run.steps=4"));
    ASSERT_EQ(first.exit_code, 0) << name << ": " << first.all();

    const Outcome then = run(command(move.then_ranks, 1, name, stage(move.then_stage)));

    EXPECT_EQ(then.exit_code, 0) << name << ": " << then.all();
    EXPECT_EQ(trace_of(name).lines.back(), whole.lines.back()) << name;
    EXPECT_TRUE(trace_of(name).tensors == whole.tensors) << name;
  }
}

TEST_F(Invariant, AJobIsRefusedWithWhatItsStepCannotBeDividedInto) {
  const Outcome too_many = run(command(9, 1, "r", ""));
  EXPECT_EQ(too_many.exit_code, 2) << too_many.all();
  EXPECT_NE(too_many.err.find("start at most 8 ranks"), std::string::npos) << too_many.err;

  const Outcome odd = run(command(2, 1, "r", "--set train_micro_batch_size_per_gpu=3"));
  EXPECT_EQ(odd.exit_code, 2) << odd.all();
  EXPECT_NE(odd.err.find("train_batch_size 16 is not a multiple of train_micro_batch_size_per_gpu 3"),
            std::string::npos)
      << odd.err;
}

}  // namespace
}  // namespace lockstep::testing
