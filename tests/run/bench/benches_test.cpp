#include "run/bench/benches.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "comm/run_ranks.hpp"
#include "kernels/emu/emu_device.hpp"
#include "run/bench/bench.hpp"
#include "run/bench/text.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::run::bench {
namespace {

using ::testing::HasSubstr;

const Sampling few = {.samples = 3, .seconds = 5, .least_time = 1e-5, .most_waited = 1e9};

/// One rank on the host, or on the emulated device with our CUDA kernels.
class Place {
 public:
  explicit Place(bool emulated)
      : device_(emulated ? make_emulated_device(3) : make_cpu_device()),
        comm_(comm::make_single(device_.get())),
        rank_{.comm = *comm_,
              .place = {.device = device_.get(),
                        .kernels = emulated ? &kernels::emulated_table() : &kernels::cpu_table(),
                        .threads = 2},
              .world_source = "no launcher",
              .summary = "a test"} {}
  RankContext& rank() { return rank_; }

 private:
  std::unique_ptr<DeviceApi> device_;
  std::unique_ptr<comm::Communicator> comm_;
  RankContext rank_;
};

const Measured& line(const Report& report, const std::string& name) {
  for (const Measured& one : report.lines)
    if (one.task.name == name) return one;
  ADD_FAILURE() << "no line " << name << " in " << report_text(report);
  return report.lines.front();
}

/// Everything that can be worked out from the samples and the formulas again.
void expect_consistent(const Report& report) {
  const nlohmann::ordered_json json = json_of({}, {report})["benches"][0];
  ASSERT_EQ(json["lines"].size(), report.lines.size());
  for (const auto& one : json["lines"]) {
    SCOPED_TRACE(one["name"].get<std::string>());
    const double median = one["seconds"]["median"];
    EXPECT_GT(median, 0);
    EXPECT_LE(one["seconds"]["p10"].get<double>(), median);
    EXPECT_GE(one["seconds"]["p90"].get<double>(), median);
    EXPECT_GE(one["samples"].size(), 3U);
    EXPECT_EQ(one["rejected"], 0);
    ASSERT_TRUE(one.contains("bytes") || one.contains("flops"));
    if (one.contains("bytes")) {
      EXPECT_DOUBLE_EQ(one["gb_s"].get<double>() * median, one["bytes"].get<double>() * 1e-9);
    }
    if (one.contains("flops")) {
      EXPECT_DOUBLE_EQ(one["tflop_s"].get<double>() * median, one["flops"].get<double>() * 1e-12);
    }
    if (one.contains("ceiling")) {
      EXPECT_GT(one["share"].get<double>(), 0);
    }
  }
  EXPECT_THAT(report_text(report), HasSubstr("median of 3]"));
}

class Benches : public ::testing::TestWithParam<bool> {
 protected:
  Place place_{GetParam()};
};

TEST_P(Benches, TheOptimizersBytesAreThoseOfItsBuffers) {
  const Report report = bench_optimizer(place_.rank(), {.elements = 20'000, .copy_bytes = 1 << 16}, few);

  expect_consistent(report);
  EXPECT_EQ(report.lines.size(), 5U);
  EXPECT_EQ(report.lines[0].task.bytes, GetParam() ? 2.0 * (1 << 16) : 28.0 * 20'000);
  EXPECT_EQ(line(report, "adamw fp32").task.bytes, 28 * 20'000);
  EXPECT_EQ(line(report, "adamw fp32 with a bf16 copy").task.bytes, 30 * 20'000);
  EXPECT_EQ(line(report, "sgd with momentum fp32").task.bytes, 20 * 20'000);
  EXPECT_EQ(line(report, "gradient norm").task.bytes, 4 * 20'000);
  for (std::size_t i = 1; i < report.lines.size(); ++i)
    EXPECT_EQ(report.lines[i].task.ceiling, report.lines[0].task.name);
}

TEST_P(Benches, ProductsAreThoseOfAStep) {
  const Report report = bench_gemm(place_.rank(), {.tokens = 16, .width = 32, .vocabulary = 64, .peak = 32}, few);

  expect_consistent(report);
  EXPECT_EQ(report.lines.size(), 2U * (2 + 5 * 3));
  EXPECT_EQ(line(report, "bf16 qkv y").task.flops, 2.0 * 16 * 32 * 96);
  EXPECT_EQ(line(report, "fp32 fc projection dw").task.shape, "128 x 32 x 16");
  EXPECT_EQ(line(report, "fp32 fc projection dw").task.bytes, 4 * (128 * 16 + 16 * 32 + 2 * 128 * 32));
  EXPECT_EQ(line(report, "bf16 head dx").task.flops, 2.0 * 16 * 32 * 64);
  EXPECT_EQ(line(report, "bf16 head dx").task.ceiling, "large bf16 products");
  EXPECT_EQ(line(report, "bf16 square product").task.flops, 2.0 * 32 * 32 * 32);
  EXPECT_EQ(line(report, "bf16 wide product").task.flops, 2.0 * 16 * 64 * 16);
  EXPECT_EQ(line(report, "bf16 wide product").task.group, "large bf16 products");
}

TEST_P(Benches, AttentionCountsTheUnmaskedHalf) {
  const Report report =
      bench_attention(place_.rank(), {.batch = 2, .length = 8, .heads = 2, .head_size = 16, .peak = 32}, few);

  expect_consistent(report);
  EXPECT_EQ(report.lines.size(), 8U);
  EXPECT_EQ(line(report, "fp32 forward").task.flops, 4.0 * 2 * 2 * 16 * (8 * 9 / 2));
  EXPECT_EQ(line(report, "bf16 backward").task.flops, 10.0 * 2 * 2 * 16 * (8 * 9 / 2));
}

std::vector<std::string> tiny_step() {
  return {"model.n_layer=1",
          "model.n_head=2",
          "model.n_embd=16",
          "model.block_size=8",
          "data.vocab_size=64",
          "train_micro_batch_size_per_gpu=2",
          "gradient_accumulation_steps=2"};
}

TEST_P(Benches, AStepHasItsJobsTokensThePlansFlopsAndThePlannedMemory) {
  const job::LoadedJob job = usual_step_job(!GetParam(), tiny_step());
  ::testing::internal::CaptureStdout();  // the line about memory
  const Report report = bench_step(place_.rank(), job, {.peak = 32}, few);
  const std::string printed = ::testing::internal::GetCapturedStdout();

  expect_consistent(report);
  EXPECT_THAT(printed, HasSubstr("memory    "));
  const Measured& step = line(report, "step");
  EXPECT_EQ(step.task.items, 2 * 2 * 8);
  EXPECT_GT(step.task.flops, 6.0 * 2 * 2 * 8 * (12 * 16 * 16 + 64 * 16)) << "6 FLOPs a weight and token at least";
  EXPECT_EQ(step.task.ceiling, "large bf16 products");
  EXPECT_EQ(report.figures.at("planned_bytes"), report.figures.at("engine_bytes"));
  EXPECT_EQ(report.figures.contains("device_bytes"), GetParam());
}

INSTANTIATE_TEST_SUITE_P(On, Benches, ::testing::Values(false, true),
                         [](const auto& place) { return place.param ? "emulated" : "cpu"; });

TEST(BenchAllReduce, BytesAreTheBuffersAndSharesAreOfTheTimeOfACopy) {
  comm::run_ranks(3, [](comm::Communicator& comm) {
    const auto device = make_cpu_device();
    RankContext rank{.comm = comm,
                     .place = {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                     .world_source = "",
                     .summary = ""};
    const Report report = bench_all_reduce(rank, {.bytes = {4096, 40'000}}, few);

    expect_consistent(report);
    EXPECT_EQ(report.lines.size(), 4U);
    const Measured& sum = line(report, "all-reduce of 39.1 KiB");
    EXPECT_EQ(sum.task.bytes, 40'000);
    EXPECT_EQ(share_of_ceiling(sum, report.lines), line(report, "copy of 39.1 KiB").median() / sum.median());
  });
}

TEST(BenchAllReduce, OfOneRankIsRefusedWithTheWaysToHaveMore) {
  Place place(false);
  const std::string text =
      testing::error_text(ErrorKind::config, [&] { (void)bench_all_reduce(place.rank(), {}, few); });

  EXPECT_THAT(text, HasSubstr("mpirun -n 2"));
  EXPECT_THAT(text, HasSubstr("--ranks 2"));
}

TEST(BenchFile, AFileThatCannotBeWrittenIsNamed) {
  Place place(false);
  BenchOptions options{.what = {"optimizer"}, .sampling = few, .optimizer = {.elements = 100}};
  options.json_path = "/nowhere/x.json";

  ::testing::internal::CaptureStdout();
  const std::string text = testing::error_text(ErrorKind::environment, [&] { run_benches(place.rank(), options); });
  (void)::testing::internal::GetCapturedStdout();

  EXPECT_THAT(text, HasSubstr("/nowhere/x.json cannot be written: No such file or directory"));
}

}  // namespace
}  // namespace lockstep::run::bench
