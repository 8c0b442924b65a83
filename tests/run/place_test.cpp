#include "run/place.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "kernels/emu/emu_device.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep::run {
namespace {

using testing::error_text;

job::JobConfig job_on(const std::string& device, const std::string& backend = "auto") {
  job::JobConfig job;
  job.run.device = device;
  job.comm.backend = backend;
  return job;
}

/// A module with two GPUs, which are emulated; the one that was made last.
int made = -1;
const CudaModule& two_gpus() {
  static const CudaModule module = {
      .table = &kernels::emulated_table(),
      .status = [] { return CudaStatus{.driver = 13000, .runtime = 13000, .devices = 2}; },
      .new_device = [](int ordinal) -> DeviceApi* {
        made = ordinal;
        return make_emulated_device(static_cast<std::uint64_t>(ordinal)).release();
      }};
  return module;
}
const CudaModule& no_gpu() {
  fail(ErrorKind::environment, "device: cuda: the NVIDIA driver is there, but no GPU (none visible): look; or use cpu");
}

TEST(Place, CpuIsMadeWithItsKernelsAndAutoSaysWhatItTook) {
  const SelectedPlace asked = select_place(job_on("cpu"), {});
  const SelectedPlace chosen = select_place(job_on("auto"), {}, Gpus{.module_is_there = false, .load = no_gpu});

  EXPECT_EQ(asked.device->memory(), Memory::host);
  EXPECT_NE(asked.kernels, nullptr);
  EXPECT_TRUE(asked.text.starts_with("cpu ")) << asked.text;
  EXPECT_TRUE(chosen.text.starts_with("cpu (auto) ")) << chosen.text;
  EXPECT_EQ(asked.with_threads(3).threads, 3);
  EXPECT_EQ(asked.with_threads(3).device, asked.device.get());
}

TEST(Place, WhatTheMachineLacksIsNamed) {
  const Gpus none{.module_is_there = true, .load = no_gpu};
  for (const job::JobConfig& job : {job_on("cuda"), job_on("auto", "nccl")})
    EXPECT_NE(error_text(ErrorKind::environment, [&] { (void)select_place(job, {}, none); }).find("but no GPU"),
              std::string::npos);
  EXPECT_NE(error_text(ErrorKind::environment, [&] { (void)select_place(job_on("cpu", "nccl"), {}, none); })
                .find("needs run.device: cuda"),
            std::string::npos);
}

TEST(Place, ARankGetsTheGpuWithItsNumberOnTheHost) {
  const Gpus gpus{.module_is_there = true, .load = two_gpus};
  for (const char* device : {"cuda", "auto"})
    for (const int rank : {0, 1}) {
      const SelectedPlace place = select_place(job_on(device), {.rank = rank, .ranks = 2}, gpus);
      EXPECT_EQ(made, rank);
      EXPECT_EQ(place.kernels, &kernels::emulated_table());
      EXPECT_FALSE(place.host_reads_memory);
      EXPECT_EQ(place.sharing, 1);
      EXPECT_EQ(place.text, device == std::string("auto") ? "emu (auto)" : "emu");
    }
}

TEST(Place, MoreRanksThanGpusAreRefusedUnlessTheyMayShare) {
  const Gpus gpus{.module_is_there = true, .load = two_gpus};
  job::JobConfig job = job_on("cuda");

  const std::string text =
      error_text(ErrorKind::environment, [&] { (void)select_place(job, {.rank = 0, .ranks = 3}, gpus); });
  const SelectedPlace fallen = select_place(job_on("auto"), {.rank = 0, .ranks = 3}, gpus);
  job.comm.share_gpu = true;
  int sharing[3] = {}, ordinals[3] = {};
  for (int rank = 0; rank < 3; ++rank) {
    sharing[rank] = select_place(job, {.rank = rank, .ranks = 3}, gpus).sharing;
    ordinals[rank] = made;
  }

  EXPECT_EQ(text,
            "device: cuda: 3 ranks on this host, but 2 GPUs: start as many ranks as there are GPUs, or let ranks share "
            "them with comm.share_gpu: true (correct, but slower than one rank a GPU)");
  EXPECT_TRUE(fallen.text.starts_with("cpu (auto: 3 ranks on this host, but 2 GPUs) ")) << fallen.text;
  EXPECT_EQ(std::vector<int>(ordinals, ordinals + 3), (std::vector<int>{0, 1, 0}));
  EXPECT_EQ(std::vector<int>(sharing, sharing + 3), (std::vector<int>{2, 1, 2}));
}

TEST(Place, AutoTakesTheCpuAndSaysWhyInOneLine) {
  const SelectedPlace no_device = select_place(job_on("auto"), {}, Gpus{.module_is_there = true, .load = no_gpu});
  job::JobConfig job = job_on("auto");
  job.run.determinism = "invariant";
  const SelectedPlace invariant = select_place(job, {}, Gpus{.module_is_there = true, .load = two_gpus});

  EXPECT_TRUE(no_device.text.starts_with("cpu (auto: the NVIDIA driver is there, but no GPU) ")) << no_device.text;
  EXPECT_TRUE(invariant.text.starts_with("cpu (auto: run.determinism: invariant is for CPUs) ")) << invariant.text;
}

}  // namespace
}  // namespace lockstep::run
