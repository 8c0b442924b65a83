// What a job will take is known before it runs, and a run says what it took.
#include <gmock/gmock.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class Preview : public ProgramTest {
 protected:
  Preview() {
    std::string text;
    for (int i = 0; i < 500; ++i) text += "three lambs by five rivers.\n";
    write_text(path("text.txt"), text);
    write_text(path("gpt.yaml"),
               "model: {type: gpt2, n_layer: 2, n_head: 4, n_embd: 256, block_size: 128}\n"
               "data: {type: text, path: text.txt}\n"
               "run: {name: r, output_dir: runs, steps: 2, eval_every: 0}\n"
               "train_batch_size: 96\ntrain_micro_batch_size_per_gpu: 48\n");
  }
  [[nodiscard]] json preview_of(const std::string& rest) const {
    const Outcome outcome = run("lockstep preview " + rest + " --json");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
    return json::parse(outcome.out);
  }
  /// The greatest of the run's metrics.
  [[nodiscard]] double measured() const {
    double most = 0;
    std::istringstream in(text_of(path("runs/r/metrics.jsonl")));
    for (std::string line; std::getline(in, line);) most = std::max(most, json::parse(line).value("memory_bytes", 0.0));
    return most;
  }
};

TEST_F(Preview, IsWithinFivePercentOfWhatARunTakes) {
  for (const char* how : {"--set zero_optimization.stage=0", "--set comm.one_copy=off",
                          "--set zero_optimization.stage=2 --set model.recompute=block",
                          "--set zero_optimization.stage=3 --set bf16.enabled=true"}) {
    const json preview = preview_of(std::string("gpt.yaml -n 2 ") + how);
    const Outcome train = run(std::string("mpirun -n 2 lockstep train gpt.yaml --resume never ") + how);

    ASSERT_EQ(train.exit_code, 0) << train.all();
    const double planned = preview["memory"]["total"];
    EXPECT_NEAR(measured() / planned, 1, 0.05) << how << "\n" << train.out << preview["memory"].dump(1);
    EXPECT_THAT(train.out, HasSubstr("memory    at most ")) << train.out;
  }
}

TEST_F(Preview, PartsAddUpAndStagesDivide) {
  const json preview = preview_of("gpt.yaml -n 2 --set comm.one_copy=off"), shared = preview_of("gpt.yaml -n 2");
  ASSERT_EQ(preview["stages"].size(), 8U);
  for (const json& row : preview["stages"]) {
    std::int64_t sum = 0;
    for (const char* part : {"parameters", "gathered_parameters", "masters", "gradients", "gradient_windows", "moments",
                             "activations", "packed_weights", "other", "saving", "staging", "data", "program"})
      sum += row[part].get<std::int64_t>();
    EXPECT_EQ(sum, row["total"].get<std::int64_t>()) << row.dump(1);
  }
  const auto at = [&](std::size_t row, const char* part) { return preview["stages"][row][part].get<double>(); };
  EXPECT_EQ(preview["memory"], preview["stages"][0]) << "the job has stage 0 and keeps activations";
  EXPECT_LT(at(2, "moments"), at(0, "moments") * 0.6);
  EXPECT_LT(at(4, "gradients"), at(2, "gradients") * 0.6);
  EXPECT_LT(at(6, "parameters"), at(4, "parameters") * 0.6);
  EXPECT_LT(at(1, "activations"), at(0, "activations"));
  EXPECT_EQ(shared["stages"][0]["parameters"].get<double>(), at(0, "parameters") / 2) << "one copy for two ranks";
  EXPECT_EQ(shared["stages"][0]["moments"], preview["stages"][2]["moments"]);
  EXPECT_EQ(shared["stages"][6], preview["stages"][6]) << "stage 3 keeps shards as it is";
  EXPECT_EQ(preview["lr"].size(), 2U);
}

TEST_F(Preview, TellsTimeFromTheRunIfThereWasOne) {
  const Outcome before = run("lockstep preview job.yaml");
  ASSERT_EQ(run("lockstep train job.yaml").exit_code, 0);
  const Outcome after = run("lockstep preview job.yaml"), other = run("lockstep preview job.yaml -n 2");

  EXPECT_THAT(before.out, HasSubstr("measured just now"));
  EXPECT_THAT(after.out, HasSubstr("the median of the latest 20 steps of runs/r"));
  EXPECT_THAT(other.out, HasSubstr("measured just now")) << "that run was of one rank";
  EXPECT_THAT(after.out, HasSubstr("learning rate, "));
}

TEST_F(Preview, OfGpt2AllocatesNothingOfItsSize) {
  write_text(path("large.yaml"),
             "model: {type: gpt2, preset: 124M}\ndata: {type: tokens, path: none}\n"
             "run: {name: g, output_dir: runs, steps: 20000}\n"
             "train_batch_size: 32\ntrain_micro_batch_size_per_gpu: 4\nbf16: {enabled: true}\n");
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const Outcome outcome = run("lockstep preview large.yaml -n 4");
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    ASSERT_EQ(outcome.exit_code, 0) << outcome.all();
  }
  // 0.1 to 0.3 s where nothing else runs; writing the gigabytes that it counts would take several seconds.
  std::printf("%.2f s, the fastest of five, the start of the process included\n", best);
  EXPECT_LT(best, 3);
}

TEST_F(Preview, SaysWhatTrainWould) {
  const Outcome batch = run("lockstep preview job.yaml -n 3"),
                data = run("lockstep preview gpt.yaml --set data.path=no");

  EXPECT_EQ(batch.exit_code, 2) << batch.all();
  EXPECT_THAT(batch.err, HasSubstr("3 ranks (from MPI)"));
  EXPECT_EQ(data.exit_code, 3) << data.all();
}

}  // namespace
}  // namespace lockstep::testing
