#include "nn/workspace.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"

namespace lockstep::nn {
namespace {

TEST(Workspace, GivesTheFirstGapThatIsLargeEnough) {
  Workspace workspace;
  const std::size_t a = workspace.allocate(256);
  const std::size_t b = workspace.allocate(600);
  const std::size_t c = workspace.allocate(256);
  EXPECT_EQ(a, 0U);
  EXPECT_EQ(b, 256U);
  EXPECT_EQ(c, 256U + 768U);

  workspace.free(a);
  workspace.free(b);

  EXPECT_EQ(workspace.allocate(1100), 1280U) << "does not fit into the gap of 1024";
  EXPECT_EQ(workspace.allocate(1024), 0U) << "neighbouring free pieces are one gap";
}

TEST(Workspace, RoundsToPiecesSoThatEvenNothingHasAPlace) {
  Workspace workspace;
  EXPECT_EQ(workspace.allocate(0), 0U);
  EXPECT_EQ(workspace.allocate(1), 256U);
  EXPECT_EQ(workspace.allocate(257), 512U);
  EXPECT_EQ(workspace.in_use(), 256U + 256U + 512U);
}

TEST(Workspace, PeakIsTheFurthestByteEverUsed) {
  Workspace workspace;
  const std::size_t a = workspace.allocate(1000);
  const std::size_t b = workspace.allocate(1000);
  workspace.free(a);
  workspace.free(b);
  EXPECT_EQ(workspace.in_use(), 0U);
  EXPECT_EQ(workspace.peak(), 2048U);
  EXPECT_EQ(workspace.allocate(2048), 0U);
  EXPECT_EQ(workspace.peak(), 2048U);
}

TEST(Workspace, OverflowIsAnErrorWithTheNumbers) {
  alignas(256) std::byte memory[1024];
  Workspace workspace(memory, sizeof(memory));
  const std::size_t offset = workspace.allocate(1024);
  EXPECT_EQ(workspace.at(offset), memory);
  try {
    (void)workspace.allocate(300);
    FAIL() << "fitted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::internal);
    EXPECT_NE(std::string(error.what()).find("512 bytes at offset 1024 do not fit into 1024"), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(workspace.peak(), 1024U);
}

TEST(Workspace, FreeingTwiceIsAnError) {
  Workspace workspace;
  const std::size_t offset = workspace.allocate(8);
  workspace.free(offset);
  EXPECT_THROW(workspace.free(offset), Error);
}

}  // namespace
}  // namespace lockstep::nn
