#include "run/place.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"

namespace lockstep::run {
namespace {

job::JobConfig job_on(const std::string& device, const std::string& backend = "auto") {
  job::JobConfig job;
  job.run.device = device;
  job.comm.backend = backend;
  return job;
}

TEST(Place, CpuIsMadeWithItsKernelsAndAutoSaysWhatItTook) {
  const SelectedPlace asked = select_place(job_on("cpu"));
  const SelectedPlace chosen = select_place(job_on("auto"));

  EXPECT_EQ(asked.device->memory(), Memory::host);
  EXPECT_NE(asked.kernels, nullptr);
  EXPECT_TRUE(asked.text.starts_with("cpu ")) << asked.text;
  EXPECT_TRUE(chosen.text.starts_with("cpu (auto) ")) << chosen.text;
  EXPECT_EQ(asked.with_threads(3).threads, 3);
  EXPECT_EQ(asked.with_threads(3).device, asked.device.get());
}

TEST(Place, WhatTheMachineLacksIsNamed) {
  for (const auto& [job, part] : {std::pair{job_on("cuda"), "cuda"}, std::pair{job_on("cpu", "nccl"), "nccl"}}) {
    try {
      (void)select_place(job);
      FAIL() << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::environment);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace lockstep::run
