#include "run/training.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>

#include "comm/communicator.hpp"
#include "comm/run_ranks.hpp"
#include "core/error.hpp"
#include "nn/mlp.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::run {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;
using lockstep::testing::error_text;
using lockstep::testing::ScratchFolder;

/// A program's rank, alone, with a small model on clusters.
class Program {
 public:
  explicit Program(const std::string& folder, TrainingOptions options = {},
                   const std::vector<std::string>& overrides = {}, comm::Communicator* comm = nullptr)
      : data_(data::make_clusters({.classes = 3, .features = 5, .samples = 200, .noise = 0.5, .seed = 3})),
        model_(nn::make_mlp({.features = 5, .hidden = {8}, .classes = 3})),
        device_(make_cpu_device()),
        alone_(comm::make_single(device_.get())),
        rank_{.comm = comm != nullptr ? *comm : *alone_,
              .place = {.device = device_.get(), .kernels = &kernels::cpu_table(), .threads = 1},
              .world_source = "no launcher",
              .summary = ""},
        job_(job::load_job_text("job.yaml",
                                "model: {type: custom}\ndata: {type: custom}\n"
                                "run: {name: own, steps: 20, output_dir: " +
                                    folder +
                                    "}\n"
                                    "train_batch_size: 12\ntrain_micro_batch_size_per_gpu: 6\n"
                                    "optimizer: {type: AdamW, params: {lr: 0.01}}\n"
                                    "scheduler: {type: WarmupLR, params: {warmup_min_lr: 0.001, warmup_max_lr: 0.01, "
                                    "warmup_num_steps: 10, warmup_type: linear}}\n",
                                folder, overrides)),
        training_(*model_, job_, rank_, options) {}

  Training& operator*() { return training_; }
  Training* operator->() { return &training_; }
  /// The loss of each step.
  std::vector<double> train(int steps, const std::function<void()>& after = {}) {
    for (int i = 0; i < steps; ++i) {
      training_.train_step(*data_);
      if (after) after();
    }
    training_.drain();
    std::vector<double> losses;
    for (const engine::FinishedStep& step : training_.results()) {
      losses.push_back(step.loss);
      rates_.push_back(step.applied_values.at(0).lr);
    }
    return losses;
  }
  [[nodiscard]] const std::vector<double>& rates() const { return rates_; }
  [[nodiscard]] const data::Dataset& data() const { return *data_; }

 private:
  std::unique_ptr<data::Dataset> data_;
  std::unique_ptr<nn::Model> model_;
  std::unique_ptr<DeviceApi> device_;
  std::unique_ptr<comm::Communicator> alone_;
  RankContext rank_;
  job::LoadedJob job_;
  Training training_;
  std::vector<double> rates_;
};

std::vector<double> schedule_of(Program& program, std::int64_t updates) {
  std::vector<double> rates;
  for (std::int64_t k = 0; k < updates; ++k) {
    std::vector<StepValues> values(1);
    program->scheduler().schedule().values_at(k, values);
    rates.push_back(values[0].lr);
  }
  return rates;
}

TEST(Training, AManagedScheduleIsSteppedByTheEngineAlone) {
  const ScratchFolder folder;
  Program program(folder.path().string());
  EXPECT_EQ(program->sample_positions(), (std::vector<std::int64_t>{0, 6}));
  const std::vector<double> losses = program.train(8);
  EXPECT_EQ(program.rates(), schedule_of(program, 8));
  EXPECT_LT(losses.back(), losses.front());
  EXPECT_EQ(program->sample_positions(), (std::vector<std::int64_t>{96, 102}));
  EXPECT_EQ(program->scheduler().index(), 8);

  EXPECT_THAT(error_text(ErrorKind::config, [&] { program->scheduler().step(); }),
              HasSubstr("the engine steps it by itself, once for each applied update"));
  EXPECT_THROW(program->set_lr({0.5}), Error);
}

TEST(Training, AUserManagedScheduleMovesWhenTheProgramSaysSo) {
  const ScratchFolder folder;
  Program program(folder.path().string(), {.user_managed_scheduler = true});
  (void)program.train(3);
  (void)program.train(4, [&] { program->scheduler().step(); });
  const std::vector<double> expected = schedule_of(program, 5);
  EXPECT_EQ(program.rates(), (std::vector<double>{expected[0], expected[0], expected[0], expected[0], expected[1],
                                                  expected[2], expected[3]}));
  EXPECT_EQ(program->lr(), (std::vector<double>{expected[4]}));

  program->set_lr({0.25});
  (void)program.train(1);
  EXPECT_EQ(program.rates().back(), 0.25);
}

TEST(Training, GoesOnFromACheckpointAsIfNothingHadHappened) {
  for (const bool user_managed : {false, true}) {
    const ScratchFolder one, two;
    const TrainingOptions options{.user_managed_scheduler = user_managed};
    Program whole(one.path().string(), options);
    const auto step = [&](Program& program) {
      return program.train(1, [&] {
        if (user_managed) program->scheduler().step();
      })[0];
    };
    std::vector<double> expected;
    for (int i = 0; i < 9; ++i) expected.push_back(step(whole));

    std::vector<double> got;
    {
      Program first(two.path().string(), options);
      for (int i = 0; i < 5; ++i) got.push_back(step(first));
      EXPECT_EQ(first->save("seen 5"), two.path().string() + "/own/checkpoints/step-5");
    }
    Program second(two.path().string(), options);
    const auto loaded = second->load();
    ASSERT_TRUE(loaded);
    EXPECT_EQ(loaded->step, 5);
    EXPECT_EQ(loaded->client_state, "seen 5");
    EXPECT_EQ(second->scheduler().index(), 5);
    for (int i = 0; i < 4; ++i) got.push_back(step(second));
    EXPECT_EQ(got, expected);
    EXPECT_EQ(second->evaluate(second.data()), whole->evaluate(whole.data()));
  }
}

/// The files of a checkpoint but the manifest, which tells where the run's folder is.
std::map<std::string, std::string> tensors_in(const std::string& checkpoint) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(checkpoint))
    if (entry.path().filename() != "manifest.json")
      files[entry.path().filename().string()] = lockstep::testing::text_of(entry.path());
  return files;
}

TEST(Training, ASaveBesideTrainingHoldsTheMomentItBeganAtAndChangesNothing) {
  for (const int ranks : {1, 2}) {
    const ScratchFolder one, two;
    std::vector<double> expected, got;
    comm::run_ranks(ranks, [&](comm::Communicator& comm) {
      Program stopped(one.path().string(), {}, {"train_micro_batch_size_per_gpu=3"}, &comm);
      (void)stopped.train(5);
      EXPECT_EQ(stopped->save("seen 5"), one.path().string() + "/own/checkpoints/step-5");
      EXPECT_EQ(stopped->finish_save(), std::nullopt) << "nobody began one";
      const std::vector<double> losses = stopped.train(30);
      if (comm.rank() == 0) expected = losses;
    });

    comm::run_ranks(ranks, [&](comm::Communicator& comm) {
      Program beside(two.path().string(), {}, {"train_micro_batch_size_per_gpu=3"}, &comm);
      (void)beside.train(5);
      beside->begin_save("seen 5");
      EXPECT_TRUE(beside->saving());
      EXPECT_FALSE(fs::exists(two.path().string() + "/own/checkpoints/step-5")) << "it takes steps";
      const std::vector<double> losses = beside.train(30);
      if (comm.rank() == 0) got = losses;
      EXPECT_EQ(beside->finish_save(), two.path().string() + "/own/checkpoints/step-5");
      EXPECT_EQ(beside->finish_save(), std::nullopt) << "told once";
      EXPECT_FALSE(beside->saving());
    });

    EXPECT_EQ(got, expected) << ranks;
    EXPECT_EQ(tensors_in(two.path().string() + "/own/checkpoints/step-5"),
              tensors_in(one.path().string() + "/own/checkpoints/step-5"))
        << ranks;
    Program after(two.path().string(), {}, {"train_micro_batch_size_per_gpu=3"});
    const auto loaded = after->load();
    ASSERT_TRUE(loaded);
    EXPECT_EQ(loaded->step, 5);
    EXPECT_EQ(loaded->client_state, "seen 5");
  }
}

TEST(Training, StepsAloneBringASaveToItsEnd) {
  const ScratchFolder folder;
  Program program(folder.path().string());
  (void)program.train(2);
  program->begin_save();
  int steps = 0;
  for (; program->saving() && steps < 100000; ++steps) (void)program.train(1);
  EXPECT_FALSE(program->saving());
  EXPECT_GE(steps, 3) << "a step for each of its parts";
  EXPECT_TRUE(fs::exists(folder.path().string() + "/own/checkpoints/step-2/manifest.json"));
  EXPECT_EQ(program->finish_save(), folder.path().string() + "/own/checkpoints/step-2");
}

TEST(Training, OneSaveIsUnderWayAtATimeAndEachIsWaitedFor) {
  const ScratchFolder folder;
  const std::string checkpoints = folder.path().string() + "/own/checkpoints/step-";
  Program program(folder.path().string(), {}, {"run.checkpoint.keep_last=0"});
  (void)program.train(1);
  program->begin_save();
  (void)program.train(1);
  program->begin_save("second");
  EXPECT_TRUE(fs::exists(checkpoints + "1/manifest.json"));
  (void)program.train(1);
  EXPECT_EQ(program->save(), checkpoints + "3");
  EXPECT_TRUE(fs::exists(checkpoints + "2/manifest.json"));
  EXPECT_EQ(program->finish_save(), std::nullopt) << "save() has waited, and has told its own path";
}

TEST(Training, WithAsyncOffASaveThatIsBegunIsThereAtOnce) {
  const ScratchFolder folder;
  Program program(folder.path().string(), {}, {"run.checkpoint.async=false"});
  (void)program.train(1);
  program->begin_save();
  EXPECT_FALSE(program->saving());
  EXPECT_TRUE(fs::exists(folder.path().string() + "/own/checkpoints/step-1/manifest.json"));
  EXPECT_EQ(program->finish_save(), folder.path().string() + "/own/checkpoints/step-1");
}

TEST(Training, ASaveThatNobodyWaitsForIsGivenUpWithAWarningAndDoesNoHarm) {
  const ScratchFolder folder;
  ::testing::internal::CaptureStderr();
  {
    Program program(folder.path().string());
    (void)program.train(1);
    (void)program->save();
    (void)program.train(1);
    program->begin_save();
  }
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("a save that begin_save() began is given up; call finish_save()"));

  Program next(folder.path().string());
  const auto loaded = next->load();
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->step, 1);
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder.path().string() + "/own/checkpoints"))
    names.push_back(entry.path().filename().string());
  EXPECT_EQ(names, std::vector<std::string>{"step-1"}) << "what was under way is swept";
}

TEST(Training, AnErrorThatIsNotTheDisksEndsASaveThatWasBegun) {
  const ScratchFolder folder;
  const std::string checkpoints = folder.path().string() + "/own/checkpoints";
  Program program(folder.path().string());
  (void)program.train(1);
  (void)program->save();
  (void)program.train(1);
  fs::remove_all(checkpoints);
  lockstep::testing::write_text(checkpoints, "in the way");
  EXPECT_THAT(error_text(ErrorKind::checkpoint,
                         [&] {
                           program->begin_save();
                           (void)program->finish_save();
                         }),
              HasSubstr(checkpoints));
}

TEST(Training, ARunThatDivergesSeesToTheEndOfTheSaveUnderWay) {
  const ScratchFolder folder;
  Program program(folder.path().string(), {}, {"optimizer.params.lr=1e30", "scheduler=null"});
  (void)error_text(ErrorKind::diverged, [&] {
    (void)program.train(1);
    program->begin_save();
    (void)program.train(20);
  });
  EXPECT_FALSE(program->saving());
  EXPECT_TRUE(fs::exists(folder.path().string() + "/own/checkpoints/step-1/manifest.json"));
}

TEST(Training, WithoutACheckpointThereIsNothingToLoad) {
  const ScratchFolder folder;
  Program program(folder.path().string());
  EXPECT_FALSE(program->load());
  (void)program.train(1);
  EXPECT_THROW((void)program->load(), Error) << "after the first step";
}

TEST(Training, WhatAnotherRunLeftAboveASaveIsMovedAside) {
  const ScratchFolder folder;
  {
    Program earlier(folder.path().string());
    (void)earlier.train(6);
    (void)earlier->save();
  }
  Program program(folder.path().string());
  EXPECT_FALSE(program->load("never"));
  (void)program.train(2);
  (void)program->save();
  EXPECT_TRUE(fs::exists(folder.path().string() + "/own/checkpoints/step-2"));
  EXPECT_FALSE(fs::exists(folder.path().string() + "/own/checkpoints/step-6"));
  EXPECT_TRUE(fs::exists(folder.path().string() + "/own/checkpoints/aside-1/step-6"));
}

TEST(Training, AStepThatEndsTheRunIsThrownAndNotSaved) {
  const ScratchFolder folder;
  Program program(folder.path().string(), {}, {"optimizer.params.lr=1e30", "scheduler=null"});
  EXPECT_THAT(error_text(ErrorKind::diverged,
                         [&] {
                           (void)program.train(20);
                           (void)program->save();
                         }),
              HasSubstr("not finite"));
  EXPECT_FALSE(fs::exists(folder.path().string() + "/own/checkpoints/step-20"));
}

TEST(Training, RefusesAJobForAModelOfLocksteps) {
  const ScratchFolder folder;
  EXPECT_THAT(error_text(ErrorKind::config,
                         [&] {
                           Program(folder.path().string(), {}, {"model.type=mlp", "data.type=clusters"});
                         }),
              HasSubstr("say model: {type: custom}"));
}

TEST(Training, RefusesACheckpointOfAnotherBatch) {
  const ScratchFolder folder;
  {
    Program earlier(folder.path().string());
    (void)earlier.train(1);
    (void)earlier->save();
  }
  Program program(folder.path().string(), {}, {"train_batch_size=24"});
  EXPECT_THAT(error_text(ErrorKind::checkpoint, [&] { (void)program->load(); }),
              HasSubstr("train_batch_size 12, this job has 24"));
}

TEST(Training, OutsideOfLaunchThereIsNoInitialize) {
  const auto model = nn::make_mlp({.features = 5, .hidden = {8}, .classes = 3});
  EXPECT_THAT(error_text(ErrorKind::internal, [&] { (void)initialize(*model, "job.yaml"); }),
              HasSubstr("outside of launch()"));
}

}  // namespace
}  // namespace lockstep::run
