#include "run/generate.hpp"

#include "run/trainer.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

using testing::error_text;
using testing::ScratchFolder;

/// One rank's context.
struct OneRank {
  std::unique_ptr<DeviceApi> device = make_cpu_device();
  std::unique_ptr<comm::Communicator> comm = comm::make_single();
  RankContext context{.comm = *comm,
                      .place = {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                      .world_source = "no launcher",
                      .summary = "one rank"};
};

job::LoadedJob job_of(const ScratchFolder& folder, const std::string& model_and_data, const std::string& name) {
  const std::string text = model_and_data + R"(
run: {steps: 30, eval_every: 0, checkpoint: {every: 0}}
train_batch_size: 8
optimizer: {type: AdamW, params: {lr: 0.01}}
)";
  return job::load_job_text("job.yaml", text, folder.path().string(),
                            {"run.name=" + name, "run.output_dir=" + (folder / "runs")});
}

/// A trained run that all cases continue.
class Generate : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<ScratchFolder>();
    testing::write_text(*folder_ / "text.txt", testing::made_up_text());
    train_quietly(
        "model: {type: gpt2, n_layer: 1, n_head: 2, n_embd: 32, block_size: 16}\n"
        "data: {type: text, path: text.txt}",
        "gpt");
    train_quietly("model: {type: mlp, hidden: [8]}\ndata: {type: clusters, classes: 3, features: 4, samples: 100}",
                  "mlp");
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static void train_quietly(const std::string& model_and_data, const std::string& name) {
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    OneRank rank;
    (void)train(job_of(*folder_, model_and_data, name), "auto", rank.context);
    (void)::testing::internal::GetCapturedStdout();
    (void)::testing::internal::GetCapturedStderr();
  }
  static std::string continued(const GenerateOptions& options, const std::string& run = "gpt") {
    OneRank rank;
    std::string text;
    generate(*folder_ / ("runs/" + run), options, rank.context, [&](const std::string& piece) { text += piece; });
    return text;
  }

  static std::unique_ptr<ScratchFolder> folder_;
};

std::unique_ptr<ScratchFolder> Generate::folder_;

TEST_F(Generate, IsAFunctionOfTheSeed) {
  const std::string text = continued({.prompt = "tent ", .tokens = 60, .temperature = 1.0, .seed = 5});
  EXPECT_EQ(text.size(), 60U);
  EXPECT_EQ(continued({.prompt = "tent ", .tokens = 60, .temperature = 1.0, .seed = 5}), text);
  EXPECT_NE(continued({.prompt = "tent ", .tokens = 60, .temperature = 1.0, .seed = 6}), text);
}

TEST_F(Generate, TemperatureZeroIsTheLikeliestSymbol) {
  const std::string text = continued({.prompt = "tent ", .tokens = 40, .temperature = 0, .seed = 1});
  EXPECT_EQ(continued({.prompt = "tent ", .tokens = 40, .temperature = 0, .seed = 2}), text);
  EXPECT_EQ(continued({.prompt = "tent ", .tokens = 40, .temperature = 2.0, .top_k = 1, .seed = 3}), text);
}

TEST_F(Generate, AnEmptyPromptStartsALine) {
  EXPECT_EQ(continued({.prompt = "", .tokens = 10, .temperature = 0}),
            continued({.prompt = "\n", .tokens = 10, .temperature = 0}));
}

TEST_F(Generate, APromptMayBeLongerThanTheContext) {
  const std::string tail = "river stone bread";  // 17 symbols, the context is 16
  EXPECT_EQ(continued({.prompt = "lamb tent seven " + tail, .tokens = 12, .temperature = 0}),
            continued({.prompt = tail, .tokens = 12, .temperature = 0}));
}

TEST_F(Generate, SaysWhyItCannot) {
  EXPECT_NE(error_text(ErrorKind::config, [] { (void)continued({}, "mlp"); }).find("only language models"),
            std::string::npos);
  std::filesystem::rename(*folder_ / "runs/gpt/checkpoints", *folder_ / "runs/gpt/elsewhere");
  const std::string text = error_text(ErrorKind::checkpoint, [] { (void)continued({}); });
  std::filesystem::rename(*folder_ / "runs/gpt/elsewhere", *folder_ / "runs/gpt/checkpoints");
  EXPECT_NE(text.find("no checkpoint in"), std::string::npos) << text;
}

}  // namespace
}  // namespace lockstep::run
