// Schedules that no training can want: what `lockstep lr` shows of them, and what `train` says before it starts.
#include <gmock/gmock.h>

#include <csignal>
#include <fstream>
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

TEST_F(ScheduleOfAJob, ThatReadsValLossIsTheSameAfterAKillAndShownAsFarAsItIsKnown) {
  write_text(path("job.yaml"),
             "model: {type: mlp, hidden: [16]}\n"
             "data: {type: clusters, classes: 4, features: 8, samples: 512}\n"
             "run: {name: r, output_dir: runs, steps: 40, log_every: 1, eval_every: 3, checkpoint: {every: 7}}\n"
             "train_batch_size: 8\noptimizer: {type: SGD, params: {lr: 4}}\n"
             "scheduler: {type: ReduceLROnPlateau, params: {patience: 1, factor: 0.5, threshold: 0.05}}\n");
  const auto rates = [this](const std::string& name) {
    std::vector<std::string> result;
    std::ifstream in(path("runs/" + name + "/metrics.jsonl"));
    for (std::string line; std::getline(in, line);) result.push_back(nlohmann::json::parse(line).at("lr").dump());
    return result;
  };
  ASSERT_EQ(run("mpirun -n 2 lockstep train job.yaml --set run.name=undisturbed").exit_code, 0);
  ASSERT_NE(rates("undisturbed").front(), rates("undisturbed").back());

  Program program("mpirun -n 2 lockstep train job.yaml", options({{"LOCKSTEP_DRILL", "slow_save@seconds=0.5"}}));
  ASSERT_TRUE(program.wait_for("checkpoint runs/r/checkpoints/step-21"));
  program.signal(SIGKILL);
  EXPECT_NE(program.finish().exit_code, 0);
  ASSERT_TRUE(program.all_gone(Seconds(5)));
  const Outcome again = run("mpirun -n 2 lockstep train job.yaml");

  EXPECT_EQ(again.exit_code, 0) << again.all();
  EXPECT_THAT(again.out, HasSubstr("resume    from "));
  EXPECT_EQ(rates("r"), rates("undisturbed"));

  const Outcome shown = run("lockstep lr job.yaml --format csv --updates 3");
  EXPECT_EQ(shown.out, "update,group,lr,momentum\n0,0,4,0\n1,0,4,0\n2,0,4,0\n");
  EXPECT_THAT(run("lockstep lr job.yaml").out, HasSubstr("note: only the rates before the first evaluation are known"));
  EXPECT_EQ(run("lockstep train job.yaml --set run.eval_every=0").exit_code, 2);
}

TEST_F(ScheduleOfAJob, AndABatchLargerThanTheDataIsWarnedOfToo) {
  EXPECT_THAT(before_training("--set train_batch_size=500"),
              HasSubstr("train_batch_size 500 is more than the 461 training samples"));
  EXPECT_THAT(before_training("--set train_batch_size=461"), Not(HasSubstr("is more than")));
}

}  // namespace
}  // namespace lockstep::testing
