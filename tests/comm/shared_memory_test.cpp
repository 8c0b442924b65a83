#include "comm/shared_memory.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace lockstep::comm {
namespace {

constexpr std::size_t small = 1000, large = (std::size_t{5} << 20) + 3;

std::unique_ptr<SharedMemory> make(std::size_t bytes) {
  std::string why;
  auto memory = SharedMemory::make(bytes, why);
  EXPECT_NE(memory, nullptr) << why;
  return memory;
}

TEST(SharedMemory, IsZeroAndLargeBlocksBeginOnAHugePage) {
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, small, large}) {
    const auto memory = make(bytes);

    EXPECT_EQ(memory->bytes(), bytes);
    EXPECT_TRUE(std::all_of(memory->data(), memory->data() + bytes, [](std::byte b) { return b == std::byte{0}; }));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory->data()) % (bytes < large ? 4096 : std::size_t{2} << 20), 0U);
  }
}

TEST(SharedMemory, TwoProcessesReadAndWriteEachOthersBlocks) {
  const auto ours = make(large);
  int to_child[2], to_parent[2];
  ASSERT_EQ(pipe(to_child), 0);
  ASSERT_EQ(pipe(to_parent), 0);
  const pid_t child = fork();
  if (child == 0) {
    std::string why;
    const auto theirs = SharedMemory::make(small, why);
    if (theirs == nullptr) _exit(1);
    theirs->data()[small - 1] = std::byte{7};
    if (write(to_parent[1], &theirs->handle(), sizeof(SharedHandle)) != sizeof(SharedHandle)) _exit(2);
    const std::array<SharedHandle, 2> handles = {ours->handle(), theirs->handle()};
    if (!theirs->map_peers(handles, 1, why)) _exit(3);
    theirs->of(0)[large - 1] = std::byte{9};
    char go = 0;  // stays until the parent has looked
    if (write(to_parent[1], "x", 1) != 1 || read(to_child[0], &go, 1) != 1) _exit(4);
    _exit(theirs->data()[0] == std::byte{5} ? 0 : 5);
  }
  std::array<SharedHandle, 2> handles = {ours->handle(), {}};
  ASSERT_EQ(read(to_parent[0], &handles[1], sizeof(SharedHandle)), static_cast<ssize_t>(sizeof(SharedHandle)));
  std::string why;
  ASSERT_TRUE(ours->map_peers(handles, 0, why)) << why;
  char mapped = 0;
  ASSERT_EQ(read(to_parent[0], &mapped, 1), 1);
  ours->close_file();

  EXPECT_EQ(ours->of(1)[small - 1], std::byte{7});
  EXPECT_EQ(ours->data()[large - 1], std::byte{9});
  ours->of(1)[0] = std::byte{5};
  ASSERT_EQ(write(to_child[1], "x", 1), 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(ours->of(1)[small - 1], std::byte{7}) << "a block outlives its process where it is mapped";
  for (const int end : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) close(end);
}

TEST(SharedMemory, WhatIsNotThePeersBlockIsRefusedAndNamed) {
  const auto memory = make(small);
  const auto refused = [&](SharedHandle handle) {
    std::string why;
    const auto own = make(small);
    const std::array<SharedHandle, 2> handles = {own->handle(), handle};
    EXPECT_FALSE(own->map_peers(handles, 0, why));
    return why;
  };
  SharedHandle other_mark = memory->handle(), other_file = memory->handle(), gone = memory->handle();
  other_mark.mark += 2;
  other_file.file = 0;
  gone.file = 1 << 20;

  EXPECT_NE(refused(other_mark).find("is another process's memory"), std::string::npos);
  EXPECT_NE(refused(other_file).find("different process namespaces"), std::string::npos) << refused(other_file);
  EXPECT_NE(refused(gone).find("No such file"), std::string::npos) << refused(gone);
}

TEST(SharedMemory, SaysWhatTheSystemSaysWhereThereIsNone) {
  std::string why;
  EXPECT_EQ(SharedMemory::make(std::size_t{1} << 62, why), nullptr);
  EXPECT_FALSE(why.empty());
}

}  // namespace
}  // namespace lockstep::comm
