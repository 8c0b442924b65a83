#include "run/job_changes.hpp"

#include <gtest/gtest.h>

namespace lockstep::run {
namespace {

job::JobConfig job_of(const std::string& more) {
  return job::load_job_text("job.yaml",
                            "model: {type: mlp, hidden: [16]}\ndata: {type: clusters}\nrun: {name: a, steps: 3}\n"
                            "train_batch_size: 4\n" +
                                more,
                            "/")
      .config;
}

TEST(JobChanges, EachKeyIsNamedWithBothValues) {
  const auto changes = changes_between(job_of("optimizer: {type: AdamW, params: {lr: 0.1}}"),
                                       job_of("optimizer: {type: SGD, params: {lr: 0.2, momentum: 0.9}}"));

  std::string text;
  for (const JobChange& change : changes) text += to_text(change) + "\n";
  for (const char* line : {"optimizer.type: AdamW -> SGD\n", "optimizer.params.lr: 0.1 -> 0.2\n",
                           "optimizer.params.momentum: absent -> 0.9\n", "optimizer.params.eps: 1e-08 -> absent\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << "is not in:\n" << text;
  EXPECT_EQ(text.find("model."), std::string::npos) << text;
  EXPECT_TRUE(changes_between(job_of(""), job_of("")).empty());
}

TEST(JobChanges, TheJobOfThenComesFromItsOwnText) {
  const job::JobConfig job = job_of("fp16: {enabled: true}");

  EXPECT_EQ(job_of_then(job::effective_yaml(job)), job);
  EXPECT_EQ(job_of_then("run:\n  name: a\n"), std::nullopt) << "of another version";
}

TEST(JobChanges, ALossScaleGoesOnOnlyWhereItMeansTheSame) {
  const auto change = [](const char* then, const char* now) { return scaler_change(job_of(then), job_of(now)); };

  EXPECT_EQ(change("", ""), std::nullopt);
  EXPECT_EQ(change("fp16: {enabled: true}", "fp16: {enabled: true, loss_scale_window: 7}"), std::nullopt);
  EXPECT_EQ(change("", "bf16: {enabled: true}"), "fp32 -> bf16");
  EXPECT_EQ(change("fp16: {enabled: true}", "fp16: {enabled: true, loss_scale: 128}"),
            "fp16 with a dynamic loss scale -> fp16 with loss scale 128");
}

}  // namespace
}  // namespace lockstep::run
