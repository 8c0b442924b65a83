// Schedules that no training can want: what `lockstep lr` shows of them, and what `train` says before it starts.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ScheduleOfAJob : public ProgramTest {
 protected:
  void schedule(const std::string& type, const std::string& params) const {
    write_text(path("job.yaml"), job() + "scheduler: {type: " + type + ", params: {" + params + "}}\n");
  }
  /// What is printed before the first step.
  [[nodiscard]] std::string before_training(const std::string& more = "") const {
    const std::string all = run("lockstep train job.yaml --resume never " + more, {}, "2>&1").out;
    return all.substr(0, all.find("\nstep "));
  }
};

TEST_F(ScheduleOfAJob, WithARateThatBecomesInfiniteIsShownToTheEnd) {
  for (const auto& [type, params] : std::vector<std::pair<std::string, std::string>>{
           {"ExponentialDecay", "gamma: 1.0e+9"},
           {"OneCycle",
            "cycle_min_lr: 0.01, cycle_max_lr: 0.1, cycle_first_step_size: 4, decay_step_size: 1, "
            "decay_lr_rate: -0.5"}}) {
    schedule(type, params);

    const Outcome text = run("lockstep lr job.yaml --updates 60 --plot lr.svg");
    const Outcome json = run("lockstep lr job.yaml --updates 60 --format json");

    EXPECT_EQ(text.exit_code, 0) << text.all();
    EXPECT_THAT(text.out, HasSubstr("warning: the learning rate is inf at update "));
    EXPECT_THAT(text_of(path("lr.svg")), HasSubstr("inf at update "));
    EXPECT_TRUE(nlohmann::json::accept(json.out)) << json.all();
  }
}

TEST_F(ScheduleOfAJob, IsWarnedOfBeforeTrainingStarts) {
  schedule("ExponentialDecay", "gamma: 1.0e+9");
  EXPECT_THAT(before_training("--set run.steps=60"), HasSubstr("the learning rate is inf at update 35"));
  EXPECT_THAT(before_training("--set run.steps=10"), Not(HasSubstr("warning"))) << "the run ends before";

  schedule("LinearDecay", "total_steps: 10, final_ratio: -1");
  EXPECT_THAT(before_training(), HasSubstr("the learning rate is negative at update 6"));

  schedule("WarmupCosineLR", "total_num_steps: 20, warmup_num_steps: 2, cos_min_ratio: 5");
  EXPECT_THAT(before_training(), HasSubstr("cos_min_ratio 5 is above 1"));
}

TEST_F(ScheduleOfAJob, AndABatchLargerThanTheDataIsWarnedOfToo) {
  EXPECT_THAT(before_training("--set train_batch_size=500"),
              HasSubstr("train_batch_size 500 is more than the 461 training samples"));
  EXPECT_THAT(before_training("--set train_batch_size=461"), Not(HasSubstr("is more than")));
}

}  // namespace
}  // namespace lockstep::testing
