#include "run/launch.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <span>

#include "kernels/emu/emu_device.hpp"
#include "run/agreement.hpp"
#include "run/trainer.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

Start start_of(int ranks) {
  const std::string text =
      "model: {type: mlp, hidden: [4]}\ndata: {type: clusters}\nrun: {steps: 1}\ntrain_batch_size: 4\n";
  return start_with([&] { return job::load_job_text("job.yaml", text, ".", {fmt::format("comm.ranks={}", ranks)}); });
}

/// Emulated devices, each with an order of its own.
SelectedPlace emulated_place(const job::JobConfig& /*job*/, HostRank /*host*/) {
  static std::atomic<std::uint64_t> seed{1};
  return {.device = make_emulated_device(seed++), .kernels = &kernels::emulated_table(), .text = "emulated"};
}
/// As a GPU: what its pointers lead to is no matter of the host.
SelectedPlace gpu_like_place(const job::JobConfig& job, HostRank host) {
  SelectedPlace place = emulated_place(job, host);
  place.host_reads_memory = false;
  return place;
}

/// Sums rank + 1 over the ranks in the device's memory, with a host collective under way at the same time.
void expect_collectives_on_device_and_host(RankContext& rank) {
  DeviceApi& device = *rank.place.device;
  const int size = rank.comm.size(), own = rank.comm.rank() + 1;
  const StreamRef stream = device.make_stream();
  {
    const Arena memory(device, sizeof(float));
    const Pinned<float> host(device, 1);
    std::vector<int> all(static_cast<std::size_t>(size));
    host[0] = static_cast<float>(own);
    all[static_cast<std::size_t>(own - 1)] = own;

    device.copy(memory.data(), host.data(), sizeof(float), stream);
    const comm::Pending sum =
        rank.comm.start_all_reduce({memory.data(), 1, DType::f32, device.memory()}, comm::Reduce::sum, stream);
    rank.comm.all_gather_values(std::span(all));
    rank.comm.wait(sum, stream);
    device.copy(host.data(), memory.data(), sizeof(float), stream);
    device.synchronize(stream);

    EXPECT_EQ(host[0], static_cast<float>(size * (size + 1) / 2));
    for (int r = 0; r < size; ++r) EXPECT_EQ(all[static_cast<std::size_t>(r)], r + 1);
  }
  device.destroy(stream);
}

/// By number of ranks, one a group of its own and more threads, and by how their devices' memory is reached.
class Launch : public ::testing::TestWithParam<std::tuple<int, bool>> {
 protected:
  [[nodiscard]] static int ranks() { return std::get<0>(GetParam()); }
  [[nodiscard]] static PlaceOf place_of() { return std::get<1>(GetParam()) ? gpu_like_place : emulated_place; }
};

TEST_P(Launch, ACommunicatorServesItsRanksDeviceAndTheHost) {
  std::atomic<int> ran{0};

  const int code = run_on_ranks(
      start_of(ranks()),
      [&](RankContext& rank) {
        ++ran;
        EXPECT_EQ(rank.place.device->memory(), Memory::device);
        EXPECT_EQ(rank.comm.size(), ranks());
        expect_collectives_on_device_and_host(rank);
      },
      place_of());

  EXPECT_EQ(code, 0);
  EXPECT_EQ(ran, ranks());
}

TEST_P(Launch, RanksOnDevicesTrainAndAgree) {
  const testing::Task task = testing::mlp_task();
  testing::TrainingRun run{task, testing::engine_defaults(task, 4), ranks(), 6};
  run.after_step = [](engine::Engine& engine, std::int64_t step) {
    if (step % 3 != 2) return;
    engine.drain();
    require_equal_parameters(engine.comm(), engine);  // throws: exit code 7
  };
  std::atomic<int> finished{0};

  const int code = run_on_ranks(
      start_of(ranks()),
      [&](RankContext& rank) {
        EXPECT_FALSE(compare_statements(rank.comm, "a: 1\n"));
        const testing::Outcome outcome = testing::train_rank(run, rank.comm, rank.place);
        EXPECT_EQ(outcome.state.applied, 6);
        ++finished;
      },
      place_of());

  EXPECT_EQ(code, 0);
  EXPECT_EQ(finished, ranks());
}

TEST_P(Launch, ADeviceThatCannotBeHadIsItsExitCode) {
  const int code = run_on_ranks(
      start_of(ranks()), [](RankContext&) { ADD_FAILURE() << "ran without a device"; },
      [](const job::JobConfig&, HostRank) -> SelectedPlace { fail(ErrorKind::environment, "no such device"); });

  EXPECT_EQ(code, exit_code(ErrorKind::environment));
}

INSTANTIATE_TEST_SUITE_P(Ranks, Launch, ::testing::Combine(::testing::Values(1, 2), ::testing::Bool()));

TEST(LaunchPlaces, ARankIsToldItsNumberOnTheHost) {
  std::atomic<int> seen{0};
  const int code = run_on_ranks(
      start_of(3), [&](RankContext& rank) { EXPECT_EQ(rank.comm.name(), "local"); },
      [&](const job::JobConfig& job, HostRank host) {
        EXPECT_EQ(host.ranks, 3);
        seen += 1 << host.rank;
        return select_place(job, host);
      });
  EXPECT_EQ(code, 0);
  EXPECT_EQ(seen, 7);
}

TEST(LaunchPlaces, GradientsOfWhatTheHostCannotReadGoByWayOfItsMemory) {
  const int code = run_on_ranks(
      start_of(2), [](RankContext& rank) { EXPECT_EQ(rank.comm.name(), "local through host memory"); }, gpu_like_place);
  EXPECT_EQ(code, 0);
}

/// Results of a device come late, those of the last steps together: a run whose last step diverges has diverged.
TEST(LaunchPlaces, ADivergenceInTheLastStepIsSeenOnADevice) {
  const testing::ScratchFolder folder;
  const Start start = start_with([&] {
    return job::load_job_text("job.yaml",
                              "model: {type: mlp, hidden: [8]}\n"
                              "data: {type: clusters, samples: 64}\n"
                              "run: {steps: 2, output_dir: " +
                                  folder.path().string() +
                                  "}\n"
                                  "train_batch_size: 4\n"
                                  "gradient_clipping: 0\n"
                                  "optimizer: {type: SGD, params: {lr: 1.0e+38}}\n",
                              ".");
  });
  ASSERT_FALSE(start.failure) << start.failure->text;

  const int code = run_on_ranks(
      start, [&](RankContext& rank) { (void)train(*start.job, "never", rank); }, emulated_place);

  EXPECT_EQ(code, exit_code(ErrorKind::diverged));
}

/// In the middle of a run ranks learn of it at different steps; they go on together to where all know, and look for its
/// beginning together.
TEST(LaunchPlaces, RanksOnDevicesLookTogetherForWhereNumbersWentBad) {
  const testing::ScratchFolder folder;
  for (const char* more : {"", "zero_optimization: {stage: 3}\n"}) {
    const Start start = start_with([&] {
      return job::load_job_text("job.yaml",
                                "model: {type: mlp, hidden: [8]}\n"
                                "data: {type: clusters, samples: 64}\n"
                                "run: {steps: 40, eval_every: 0, checkpoint: {every: 0}, output_dir: " +
                                    folder.path().string() +
                                    "}\n"
                                    "comm: {backend: local, ranks: 2}\n"
                                    "train_batch_size: 4\n"
                                    "gradient_clipping: 0\n"
                                    "optimizer: {type: SGD, params: {lr: 1.0e+38}}\n" +
                                    more,
                                ".");
    });
    ASSERT_FALSE(start.failure) << start.failure->text;

    ::testing::internal::CaptureStderr();
    const int code = run_on_ranks(
        start, [&](RankContext& rank) { (void)train(*start.job, "never", rank); }, emulated_place);
    const std::string told = ::testing::internal::GetCapturedStderr();

    EXPECT_EQ(code, exit_code(ErrorKind::diverged));
    EXPECT_NE(told.find("Run again operation by operation"), std::string::npos) << told;
    EXPECT_NE(told.find("on rank "), std::string::npos) << told;
  }
}

TEST(LaunchPlaces, RanksTakeTheSameKindOfDevice) {
  comm::run_ranks(3, [](comm::Communicator& comm) {
    const std::vector<std::string> hosts = {"a", "b", "c"};
    const bool gpu = comm.rank() == 2;
    EXPECT_EQ(compare_places(comm, "cpu", Memory::host, hosts), std::nullopt);
    const auto failure =
        compare_places(comm, gpu ? "cuda:0 (auto)" : "cpu (auto)", gpu ? Memory::device : Memory::host, hosts);
    ASSERT_TRUE(failure);
    EXPECT_EQ(failure->kind, ErrorKind::environment);
    EXPECT_EQ(failure->text.find("rank 0 (a) took cpu (auto), but rank 2 (c) took cuda:0 (auto): all ranks must"), 0U)
        << failure->text;
  });
}

}  // namespace
}  // namespace lockstep::run
