// Which device the program takes, what it says where it cannot have one, and that it trains on it: with CUDA modules
// that are not NVIDIA's (tests/kernels/cuda_loader), beside a library that the program is led to.

#include <gmock/gmock.h>

#include <filesystem>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Devices : public ProgramTest {
 protected:
  Devices() { put(fs::path(LOCKSTEP_LIBRARIES) / "liblockstep.so"); }
  void put_module(const char* part) { put(fs::path(LOCKSTEP_LOADER_PARTS) / part / "liblockstep_cuda.so"); }
  void put(const fs::path& file) { fs::create_symlink(file, libraries_.path() / file.filename()); }

  /// `gpus`: "driver runtime devices build" of the module that is not NVIDIA's.
  [[nodiscard]] Outcome on(const std::string& gpus, const std::string& command) const {
    return run(command, {{"LD_LIBRARY_PATH", libraries_.path().string()}, {"LOCKSTEP_FAKE_CUDA", gpus}});
  }
  void refuses(const std::string& gpus, const std::string& text) const {
    for (const char* launcher : {"", "mpirun -n 2 "}) {
      const Outcome outcome = on(gpus, std::string(launcher) + "lockstep train job.yaml --set run.device=cuda");
      EXPECT_EQ(outcome.exit_code, 8) << outcome.all();
      EXPECT_EQ(count_of(outcome.err, text), 1) << outcome.all();
      EXPECT_THAT(outcome.err, HasSubstr("use device: cpu"));
    }
  }
  /// The device in the header of a run that auto chooses for.
  void takes_cpu(const std::string& gpus, const std::string& text) const {
    const Outcome outcome = on(gpus, "lockstep train job.yaml --resume never");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
    EXPECT_THAT(outcome.out, HasSubstr(text));
  }

 private:
  ScratchFolder libraries_;
};

TEST_F(Devices, AMissingModuleIsNamed) {
  refuses("", "device: cuda: the CUDA module is missing: there is no ");
  takes_cpu("", ", cpu (auto) ");
}

TEST_F(Devices, AMissingLibraryOfTheModuleIsNamed) {
  put_module("needy_cuda");
  refuses("", "device: cuda: the CUDA module is there, but libabsent.so, which it needs, is not found");
  takes_cpu("", ", cpu (auto: the CUDA module is there, but libabsent.so, which it needs, is not found) ");
}

TEST_F(Devices, AMissingDriverIsNamed) {
  put_module("fake_cuda");
  refuses("0 13000 0 same", "device: cuda: the NVIDIA driver is missing");
  takes_cpu("0 13000 0 same", ", cpu (auto: the NVIDIA driver is missing) ");
}

TEST_F(Devices, AMissingGpuIsNamed) {
  put_module("fake_cuda");
  refuses("13000 13000 0 same", "device: cuda: the NVIDIA driver is there, but no GPU");
  takes_cpu("13000 13000 0 same", ", cpu (auto: the NVIDIA driver is there, but no GPU) ");
}

/// Two GPUs that are emulated.
class TwoGpus : public Devices {
 protected:
  TwoGpus() { put_module("fake_cuda"); }
  [[nodiscard]] Outcome train(const std::string& launcher, const std::string& options) const {
    return on("13000 13000 2 same", launcher + "lockstep train job.yaml --resume never " + options);
  }
};

TEST_F(TwoGpus, OneRankTrainsOnTheFirstWithCapturedSteps) {
  const Outcome outcome = train("", "");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_THAT(outcome.out, HasSubstr("emu (auto)"));
  EXPECT_THAT(outcome.out, HasSubstr("graphs    steps are captured"));
  EXPECT_EQ(metrics_lines(), 20);
  const Outcome off = train("", "--set run.cuda_graph=off");
  EXPECT_THAT(off.out, HasSubstr("graphs    none, steps are enqueued anew each time: run.cuda_graph: off"));
}

TEST_F(TwoGpus, AreMeasuredBesideACopyOfTheirOwn) {
  const Outcome outcome = on(
      "13000 13000 2 same",
      "mpirun -n 2 lockstep bench all --device cuda --samples 2 --elements 20000 --copy-bytes 65536 --bytes 4096 "
      "--tokens 8 "
      "--width 32 --vocabulary 64 --batch 1 --length 8 --heads 2 --head-size 16 --peak 16 --set model.n_layer=1 --set "
      "model.n_head=2 --set model.n_embd=16 --set model.block_size=8 --set data.vocab_size=64 --set "
      "train_micro_batch_size_per_gpu=2 --set gradient_accumulation_steps=2 --set comm.backend=mpi");

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_THAT(outcome.out, HasSubstr("; emu; 2 ranks "));
  EXPECT_THAT(outcome.out, HasSubstr("of copy on the device"));
  EXPECT_THAT(outcome.out, HasSubstr("all-reduce of 4.0"));
  EXPECT_THAT(outcome.out, HasSubstr("bf16 compute, replayed as a graph"));
}

TEST_F(TwoGpus, RanksOfMpiExchangeByWayOfTheHost) {
  const Outcome outcome = train("mpirun -n 2 ", "--set run.device=cuda --set comm.backend=mpi");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_THAT(outcome.out, HasSubstr("through host memory) x "));
  EXPECT_EQ(metrics_lines(), 20);
}

TEST_F(TwoGpus, RanksThatAreThreadsDoToo) {
  const Outcome outcome = train("", "--set run.device=cuda --set comm.backend=local --set comm.ranks=2");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_THAT(outcome.out, HasSubstr("2 ranks (local through host memory)"));
}

TEST_F(TwoGpus, OfMpiTakeNcclAndSayIfItIsMissing) {
  const Outcome outcome = train("mpirun -n 2 ", "--set run.device=cuda");
  EXPECT_EQ(outcome.exit_code, 8) << outcome.all();
  EXPECT_THAT(outcome.err, HasSubstr("NCCL"));
  EXPECT_EQ(count_of(outcome.err, "lockstep: "), 1) << outcome.all();
}

TEST_F(TwoGpus, DoNotServeThreeRanksUnlessTheyMayShare) {
  const std::string job = "--set train_batch_size=12 --set comm.backend=mpi --set run.device=cuda ";
  const Outcome refused = train("mpirun -n 3 ", job);
  const Outcome shared = train("mpirun -n 3 ", job + "--set comm.share_gpu=true");

  EXPECT_EQ(refused.exit_code, 8) << refused.all();
  EXPECT_EQ(count_of(refused.err, "3 ranks on this host, but 2 GPUs"), 1) << refused.all();
  EXPECT_EQ(shared.exit_code, 0) << shared.all();
}

TEST_F(TwoGpus, ACheckpointMovesBetweenThemAndTheCpu) {
  EXPECT_EQ(train("", "--set run.steps=10").exit_code, 0);
  const Outcome onward = on("13000 13000 2 same", "lockstep train job.yaml --set run.device=cpu");
  EXPECT_EQ(onward.exit_code, 0) << onward.all();
  EXPECT_THAT(onward.out, HasSubstr("step 10, "));
  const Outcome back = on("13000 13000 2 same", "lockstep train job.yaml --set run.steps=24 --set run.device=cuda");
  EXPECT_EQ(back.exit_code, 0) << back.all();
  EXPECT_EQ(metrics_lines(), 24);
}

}  // namespace
}  // namespace lockstep::testing
