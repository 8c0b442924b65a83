#include "run/process_memory.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/scratch.hpp"

namespace lockstep::run {
namespace {

TEST(ProcessMemory, IsThePssOfTheSystemsAccount) {
  const testing::ScratchFolder root;
  std::filesystem::create_directories(root.path() / "proc/self");
  testing::write_text(root / "proc/self/smaps_rollup",
                      "55d0-7ffc ---p 00000000 00:00 0    [rollup]\nRss:   90 kB\nPss:   70 kB\nPss_Anon:   60 kB\n");

  EXPECT_EQ(process_memory(root.path().string()), 70U * 1024);
  EXPECT_EQ(process_memory(root.path().string() + "/nowhere"), std::nullopt);
}

TEST(ProcessMemory, ThePeakStaysWhenMemoryIsGivenBack) {
  PeakMemory peak;
  peak.look();
  const std::uint64_t before = peak.bytes();
  if (before == 0) GTEST_SKIP() << "this system has no smaps_rollup";
  constexpr std::size_t size = std::size_t{64} << 20;
  {
    const std::vector<char> some(size, 1);
    peak.look();
    EXPECT_GE(peak.bytes(), before + size * 9 / 10) << some.size();
  }
  const std::uint64_t most = peak.bytes();
  peak.look();
  EXPECT_EQ(peak.bytes(), most);
}

TEST(ProcessMemory, ThreadsOfAProcessShareItsProgramAndNothingElse) {
  const job::LoadedJob job = job::load_job_text("job.yaml",
                                                "model: {type: mlp, hidden: [16]}\n"
                                                "data: {type: clusters, classes: 4, features: 8, samples: 512}\n"
                                                "run: {steps: 1}\ntrain_batch_size: 8\n",
                                                "/");
  MemoryNeed need;
  need.state = std::size_t{100} << 20;
  const std::size_t one = planned_process_bytes(job.config, need, 1, 1, true),
                    two = planned_process_bytes(job.config, need, 2, 2, true),
                    processes = planned_process_bytes(job.config, need, 2, 1, true);

  EXPECT_EQ(two - one, need.total() + 512 * 8 * sizeof(float));
  EXPECT_LT(processes, one) << "two processes share their code";
  EXPECT_LT(planned_process_bytes(job.config, need, 1, 1, false), need.total()) << "the engine is on a GPU";
}

}  // namespace
}  // namespace lockstep::run
