// run.profile and run.trace.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class Profile : public ProgramTest {
 protected:
  Profile() {
    std::string text;
    for (int i = 0; i < 500; ++i) text += "three lambs by five rivers.\n";
    write_text(path("text.txt"), text);
    write_text(path("gpt.yaml"),
               "model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 64, block_size: 32}\n"
               "data: {type: text, path: text.txt}\n"
               "run: {name: r, output_dir: runs, steps: 12, eval_every: 0, profile: true, trace: {steps: [10, 12]}}\n"
               "train_batch_size: 24\ntrain_micro_batch_size_per_gpu: 4\n");
  }
  [[nodiscard]] std::vector<json> metrics() const {
    std::vector<json> lines;
    std::istringstream in(text_of(path("runs/r/metrics.jsonl")));
    for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
    return lines;
  }
};

/// The numbers behind a name of the table: milliseconds, percent.
std::pair<double, double> row(const std::string& out, const std::string& name) {
  std::istringstream in(out);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string first;
    double ms = 0, percent = 0;
    if (line.starts_with("          " + name + " ") && words >> first >> ms >> percent) return {ms, percent};
  }
  return {0, 0};
}

TEST_F(Profile, PartsAddUpToTheStepInEveryStageAndWithRecompute) {
  for (const char* how : {"--set zero_optimization.stage=0", "--set zero_optimization.stage=1",
                          "--set zero_optimization.stage=2 --set model.recompute=block",
                          "--set zero_optimization.stage=3 --set model.recompute=selective"}) {
    const Outcome outcome =
        run(std::string("mpirun -n 2 lockstep train gpt.yaml --resume never --set run.trace.steps=null "
                        "--set model.n_embd=192 --set model.block_size=64 ") +
            how);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.all();

    const std::string table = outcome.out.substr(outcome.out.find("profile   "));
    double sum = 0, percent = 0;
    for (const char* part : {"forward", "backward", "recompute", "communication", "optimizer", "data", "other"}) {
      sum += row(table, part).first;
      percent += row(table, part).second;
    }
    // step_ms is measured elsewhere, from one step's result to the next one's.
    double steps = 0;
    const std::vector<json> lines = metrics();
    for (std::size_t i = 2; i < lines.size(); ++i) steps += lines[i]["step_ms"].get<double>();
    const double step = steps / static_cast<double>(lines.size() - 2);
    EXPECT_NEAR(percent, 100, 1) << table;
    EXPECT_NEAR(sum / step, 1, 0.1) << how << "\n" << table;
    EXPECT_EQ(row(table, "recompute").first > 0, std::string(how).find("recompute") != std::string::npos) << table;
    for (const char* part : {"forward", "backward", "communication", "optimizer"})
      EXPECT_GT(row(table, part).first, 0) << part << "\n" << table;
  }
}

TEST_F(Profile, TheTraceHasEveryRankAndNestedDurations) {
  ASSERT_EQ(run("mpirun -n 3 lockstep train gpt.yaml --set zero_optimization.stage=3").exit_code, 0);

  const json events = json::parse(text_of(path("runs/r/trace.json")))["traceEvents"];
  for (int rank = 0; rank < 3; ++rank) {
    struct Span {
      double begin, end;
    };
    std::vector<Span> open;
    int steps = 0, forward = 0, backward = 0;
    for (const json& event : events) {
      if (event["pid"] != rank || event["ph"] != "X") continue;
      const Span span{event["ts"].get<double>(), event["ts"].get<double>() + event["dur"].get<double>()};
      ASSERT_GE(span.begin, 0);
      ASSERT_GE(span.end, span.begin);
      // Written in the order in which they began: each lies in what is open or after it.
      constexpr double rounding = 0.002;  // of microseconds with three digits
      while (!open.empty() && open.back().end <= span.begin + rounding) open.pop_back();
      if (!open.empty()) {
        ASSERT_GE(span.begin, open.back().begin - rounding);
        ASSERT_LE(span.end, open.back().end + rounding);
      }
      open.push_back(span);
      steps += event["name"] == "step" ? 1 : 0;
      forward += event["cat"] == "forward" ? 1 : 0;
      backward += event["cat"] == "backward" ? 1 : 0;
    }
    EXPECT_EQ(steps, 3) << rank;
    EXPECT_GT(forward, 20) << rank;
    EXPECT_GT(backward, 20) << rank;
  }
  for (int rank = 0; rank < 3; ++rank) EXPECT_THAT(events.dump(), HasSubstr("rank " + std::to_string(rank)));
}

TEST_F(Profile, ChangesNoBit) {
  ASSERT_EQ(run("mpirun -n 2 lockstep train gpt.yaml").exit_code, 0);
  ASSERT_EQ(run("mpirun -n 2 lockstep train gpt.yaml --set run.name=plain --set run.profile=false").exit_code, 0);

  EXPECT_EQ(run("lockstep compare runs/r runs/plain").exit_code, 0);
}

TEST_F(Profile, StepsThatCannotBeAreRefused) {
  const Outcome backward = run("lockstep train gpt.yaml --set run.trace.steps=[3,2]"),
                late = run("lockstep train gpt.yaml --set run.trace.steps=[13,14]");

  EXPECT_EQ(backward.exit_code, 2) << backward.all();
  EXPECT_THAT(backward.err, HasSubstr("run.trace.steps: the first, 3, is after the last, 2"));
  EXPECT_EQ(late.exit_code, 2) << late.all();
}

}  // namespace
}  // namespace lockstep::testing
