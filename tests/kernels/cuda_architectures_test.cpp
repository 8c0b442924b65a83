// cmake/cuda_architectures.cmake: what is compiled for follows what nvcc knows.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <string>

#include "tests/support/scratch.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::testing {
namespace {

/// What CMake is told, or its error, for an nvcc that knows these architectures.
std::string architectures_of(const std::string& known) {
  const ScratchFolder folder;
  const std::string nvcc = folder / "nvcc", script = folder / "ask.cmake", output = folder / "answer";
  write_text(nvcc, "#!/bin/sh\nfor a in " + known + "; do echo compute_$a; done\n");
  EXPECT_EQ(chmod(nvcc.c_str(), 0755), 0);
  write_text(script, "cmake_minimum_required(VERSION 3.25)\ninclude(" + source_dir() +
                         "/cmake/cuda_architectures.cmake)\nlockstep_cuda_architectures(found " + nvcc +
                         ")\nmessage(\"found: ${found}.\")\n");
  (void)std::system(("cmake -P " + script + " > " + output + " 2>&1").c_str());
  return text_of(output);
}

TEST(CudaArchitectures, AreThoseOfTheToolkitWithCodeForTheNewestKeptPortable) {
  EXPECT_EQ(architectures_of("75 80 86 87 88 89 90 100 103 110 120 121"), "found: 80-real;90-real;100.\n");
  EXPECT_EQ(architectures_of("50 52 60 70 75 80 86 87 89 90"), "found: 80-real;90.\n") << "CUDA 12.0 to 12.6";
}

TEST(CudaArchitectures, AreAnErrorWhereNoneOfThemIsKnown) {
  const std::string answer = architectures_of("50 52 75");
  EXPECT_NE(answer.find("set CMAKE_CUDA_ARCHITECTURES"), std::string::npos) << answer;
}

}  // namespace
}  // namespace lockstep::testing
