#include "run/launcher.hpp"

#include <gtest/gtest.h>

#include <map>

namespace lockstep::run {
namespace {

using Environment = std::map<std::string, std::string>;

std::string explained(const Environment& environment) {
  return explain_unknown_launcher([&](const char* name) {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

TEST(Launcher, OneProcessNeedsNoExplanation) {
  EXPECT_EQ(explained({}), "");
  EXPECT_EQ(explained({{"WORLD_SIZE", "1"}, {"RANK", "0"}}), "");
  EXPECT_EQ(explained({{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}}), "");
}

TEST(Launcher, SizesThatABatchScriptMayCarryDoNotCount) {
  EXPECT_EQ(explained({{"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}}), "");
  EXPECT_EQ(explained({{"WORLD_SIZE", "8"}}), "");
  EXPECT_EQ(explained({{"JSM_NAMESPACE_SIZE", "8"}}), "");
}

TEST(Launcher, RanksOfAnMpirunThatSrunCarriedToAnotherHostDoNotCount) {
  EXPECT_EQ(explained({{"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_PROCID", "1"}, {"OMPI_COMM_WORLD_SIZE", "1"}}), "");
}

TEST(Launcher, EveryLauncherThatMpiDoesNotSpeakWithIsNamedWithItsSize) {
  const std::map<std::string, Environment> launchers = {
      {"torchrun", {{"WORLD_SIZE", "4"}, {"RANK", "1"}, {"LOCAL_RANK", "1"}}},
      {"srun without MPI", {{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "0"}}},
      {"MVAPICH", {{"MV2_COMM_WORLD_SIZE", "4"}, {"MV2_COMM_WORLD_RANK", "0"}}},
      {"Intel MPI", {{"MPI_LOCALNRANKS", "4"}, {"MPI_LOCALRANKID", "0"}}},
      {"jsrun", {{"JSM_NAMESPACE_SIZE", "4"}, {"JSM_NAMESPACE_RANK", "0"}}},
      {"PALS", {{"PALS_SIZE", "4"}, {"PALS_RANKID", "0"}}},
      {"Flux", {{"FLUX_JOB_SIZE", "4"}, {"FLUX_TASK_RANK", "0"}}},
  };

  for (const auto& [name, environment] : launchers) {
    const std::string text = explained(environment);

    EXPECT_NE(text.find(name), std::string::npos) << name << ": " << text;
    EXPECT_NE(text.find("started 4 processes"), std::string::npos) << name << ": " << text;
    EXPECT_NE(text.find("mpirun"), std::string::npos) << "the remedy; " << name << ": " << text;
  }
}

}  // namespace
}  // namespace lockstep::run
