#include "run/free_memory.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>

#include "tests/support/scratch.hpp"

namespace lockstep::run {
namespace {

/// The files of a machine with 1000 MiB to spare.
class Machine {
 public:
  Machine() { put("/proc/meminfo", "MemTotal:  9999999 kB\nMemFree:  1 kB\nMemAvailable:   1024000 kB\n"); }
  void put(const std::string& path, const std::string& text) const {
    const std::string whole = root() + path;
    std::filesystem::create_directories(std::filesystem::path(whole).parent_path());
    testing::write_text(whole, text);
  }
  [[nodiscard]] std::string root() const { return folder_.path().string(); }
  [[nodiscard]] FreeMemory free() const { return free_memory(root()); }

 private:
  testing::ScratchFolder folder_;
};

constexpr std::uint64_t mib = 1 << 20;

TEST(FreeMemory, IsWhatTheMachineHasIfNothingElseLimitsIt) {
  const FreeMemory free = Machine().free();

  EXPECT_EQ(free.host, 1000 * mib);
  EXPECT_EQ(free.host_limit, "the machine");
}

TEST(FreeMemory, AControlGroupOfVersionTwoOrOneAboveItMayLeaveLess) {
  const Machine machine;
  machine.put("/proc/self/cgroup", "0::/jobs/job7\n");
  machine.put("/sys/fs/cgroup/jobs/job7/memory.max", "max\n");
  machine.put("/sys/fs/cgroup/jobs/job7/memory.current", "1048576\n");
  machine.put("/sys/fs/cgroup/jobs/memory.max", std::to_string(300 * mib) + "\n");
  machine.put("/sys/fs/cgroup/jobs/memory.current", std::to_string(150 * mib) + "\n");
  machine.put("/sys/fs/cgroup/jobs/memory.stat", "anon 1\nfile 99\ninactive_file " + std::to_string(40 * mib) +
                                                     "\nactive_file " + std::to_string(10 * mib) + "\n");

  const FreeMemory free = machine.free();

  EXPECT_EQ(free.host, (300 - 150 + 40 + 10) * mib) << "the kernel gives pages of files back";
  EXPECT_EQ(free.host_limit, "the control group /jobs");
}

TEST(FreeMemory, AControlGroupOfVersionOneMayLeaveLess) {
  const Machine machine;
  machine.put("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n");
  // In the container the group's own folder is the topmost one.
  machine.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(200 * mib) + "\n");
  machine.put("/sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(50 * mib) + "\n");
  machine.put("/sys/fs/cgroup/memory/memory.stat",
              "inactive_file 1\ntotal_inactive_file " + std::to_string(5 * mib) + "\ntotal_active_file 0\n");

  const FreeMemory free = machine.free();

  EXPECT_EQ(free.host, 155 * mib);
  EXPECT_EQ(free.host_limit, "the control group /");
}

TEST(FreeMemory, AGroupThatHoldsMoreThanItsLimitLeavesNothing) {
  const Machine machine;
  machine.put("/proc/self/cgroup", "0::/\n");
  machine.put("/sys/fs/cgroup/memory.max", "1000\n");
  machine.put("/sys/fs/cgroup/memory.current", "2000\n");

  EXPECT_EQ(machine.free().host, 0U);
}

TEST(FreeMemory, RanksOfAHostShareItAndThreadsOfAProcessTheirAddressSpace) {
  const FreeMemory free{.host = 1200, .host_limit = "the machine", .process = 200};

  EXPECT_EQ(free.of_rank(4, 1), 200U);
  EXPECT_EQ(free.limit(4, 1), "the limit of this process's address space (ulimit -v)");
  EXPECT_EQ(free.of_rank(8, 1), 150U);
  EXPECT_EQ(free.limit(8, 1), "the machine");
  EXPECT_EQ(free.of_rank(4, 4), 50U);
  EXPECT_EQ(FreeMemory{}.of_rank(3, 3), FreeMemory::unlimited);
}

TEST(FreeMemory, TheLimitOfTheAddressSpaceCountsWithoutWhatIsInUse) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  EXPECT_EQ(free_memory().process, FreeMemory::unlimited);
  // More than an address sanitizer reserves: some 20 TiB.
  const rlim_t limit = rlim_t{1} << 50;
  const rlimit lower{.rlim_cur = limit, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &lower), 0);

  const std::uint64_t left = free_memory().process;
  setrlimit(RLIMIT_AS, &before);

  EXPECT_LT(left, limit);
  EXPECT_GT(left, limit / 2);
}

}  // namespace
}  // namespace lockstep::run
