#include "apps/lr_find_command.hpp"

#include <gmock/gmock.h>

#include <cmath>

#include "core/error.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep {
namespace {

using testing::error_text;
using ::testing::HasSubstr;
using ::testing::Not;

class LrFindReport : public ::testing::Test {
 protected:
  LrFindReport() {
    testing::write_text(folder_ / "job.yaml",
                        "model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 400}\ntrain_batch_size: 8\n"
                        "optimizer: {type: SGD, params: {lr: 0.5, momentum: 0.9}}\n"
                        "parameter_groups: [{match: ['*.bias'], lr: 1.0}]\n");
  }
  /// A fall around 0.02, with the loss running away from 1 on.
  static run::LrFound found(double fall = 2) {
    run::LrFound result{.sweep = {}, .ended = "the loss ran away at lr 3"};
    for (int k = 0; k < 90; ++k) {
      const double lr = 1e-6 * std::pow(10.0, k / 14.0);
      result.sweep.lr.push_back(lr);
      result.sweep.loss.push_back(3 - fall + fall / (1 + std::pow(lr / 0.02, 2)) + lr * lr * lr);
    }
    return result;
  }
  [[nodiscard]] LrFindRequest request() const { return {.job = folder_ / "job.yaml"}; }
  [[nodiscard]] std::string path(const char* name) const { return folder_ / name; }

 private:
  testing::ScratchFolder folder_;
};

TEST_F(LrFindReport, NamesRulesSuggestionAndBand) {
  const std::string text = lr_find_report(found(), {}, request());
  for (const char* part : {"learning-rate range test: 90 updates from lr 1e-06 to", "the loss ran away at lr 3",
                           "steepest      0.0", "half-way      0.0", "minimum / 10  0.0", "valley        0.000",
                           "suggestion    0.0", "all rules lie from", "\u25b2 suggestion 0.0", "learning rate"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_THAT(text, Not(HasSubstr("warning")));
}

TEST_F(LrFindReport, ThePatchLoadsInThePlaceOfTheOldBlocks) {
  const std::string patch = lr_patch(request(), 0.021);
  const std::string rest = "model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 400}\ntrain_batch_size: 8\n";

  const job::JobConfig job = job::load_job_text("job.yaml", rest + patch, ".").config;

  EXPECT_EQ(job.optimizer.type, "SGD");
  EXPECT_EQ(job.optimizer.sgd.lr, 0.021);
  EXPECT_EQ(job.optimizer.sgd.momentum, 0.9);
  EXPECT_EQ(job.scheduler.type, "WarmupCosineLR");
  EXPECT_EQ(job.scheduler.params.number("total_num_steps"), 400);
  EXPECT_EQ(job.scheduler.params.integer("warmup_num_steps"), 20);
  EXPECT_THAT(patch, HasSubstr("# parameter_groups[0]: lr: 0.042"));
}

TEST_F(LrFindReport, TheCommentedCycleLoadsToo) {
  const std::string text = lr_find_report(found(), {}, request());
  std::string cycle;
  const std::size_t at = text.find("# scheduler:\n#   type: OneCycle");
  ASSERT_NE(at, std::string::npos) << text;
  for (std::size_t begin = at; begin < text.size(); begin = text.find('\n', begin) + 1)
    cycle += text.substr(begin + 2, text.find('\n', begin) - begin - 1);
  const job::LoadedJob job = job::load_job_text(
      "job.yaml", "model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 400}\ntrain_batch_size: 8\n" + cycle, ".");
  EXPECT_EQ(job.config.scheduler.params.number("cycle_first_step_size"), 200);
  EXPECT_GT(job.config.scheduler.params.number("cycle_max_lr"), 0.01);
}

TEST_F(LrFindReport, ThePictureHasTheCurvesAndAMarkForEachRule) {
  LrFindRequest with = request();
  with.plot = path("find.svg");
  (void)lr_find_report(found(), {}, with);
  const std::string svg = testing::text_of(path("find.svg"));
  for (const char* part : {">loss</text>", ">learning rate</text>", "suggestion 0.0", "1: steepest", "4: valley",
                           ">1e-3<", "loss of each update", "smoothed", "</svg>"})
    EXPECT_THAT(svg, HasSubstr(part));
}

TEST_F(LrFindReport, ALossThatFellNowhereIsAnErrorWithARemedy) {
  EXPECT_THAT(error_text(ErrorKind::config, [&] { (void)lr_find_report(found(0), {}, request()); }),
              HasSubstr("Try a wider range (--from, --to)"));
  run::LrFound few = found();
  few.sweep.lr.resize(9);
  few.sweep.loss.resize(9);
  EXPECT_THAT(error_text(ErrorKind::config, [&] { (void)lr_find_report(few, {}, request()); }),
              HasSubstr("begin lower with --from"));
}

TEST(RoundedRate, HasTwoDigits) {
  EXPECT_EQ(rounded_rate(0.0123456), 0.012);
  EXPECT_EQ(rounded_rate(9.99), 10);
  EXPECT_EQ(rounded_rate(3.21e-7), 3.2e-7);
}

}  // namespace
}  // namespace lockstep
