#include "run/launch.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <span>

#include "kernels/emu/emu_device.hpp"
#include "run/agreement.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

Start start_of(int ranks) {
  const std::string text =
      "model: {type: mlp, hidden: [4]}\ndata: {type: clusters}\nrun: {steps: 1}\ntrain_batch_size: 4\n";
  return start_with([&] { return job::load_job_text("job.yaml", text, ".", {fmt::format("comm.ranks={}", ranks)}); });
}

/// Emulated devices, each with an order of its own.
SelectedPlace emulated_place(const job::JobConfig& /*job*/) {
  static std::atomic<std::uint64_t> seed{1};
  return {.device = make_emulated_device(seed++), .kernels = &kernels::emulated_table(), .text = "emulated"};
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

/// By number of ranks: one is a group of its own, more are threads.
class Launch : public ::testing::TestWithParam<int> {};

TEST_P(Launch, ACommunicatorServesItsRanksDeviceAndTheHost) {
  std::atomic<int> ranks{0};

  const int code = run_on_ranks(
      start_of(GetParam()),
      [&](RankContext& rank) {
        ++ranks;
        EXPECT_EQ(rank.place.device->memory(), Memory::device);
        EXPECT_EQ(rank.comm.size(), GetParam());
        expect_collectives_on_device_and_host(rank);
      },
      emulated_place);

  EXPECT_EQ(code, 0);
  EXPECT_EQ(ranks, GetParam());
}

TEST_P(Launch, RanksOnDevicesTrainAndAgree) {
  const testing::Task task = testing::mlp_task();
  testing::TrainingRun run{task, testing::engine_defaults(task, 4), GetParam(), 6};
  run.after_step = [](engine::Engine& engine, std::int64_t step) {
    if (step % 3 != 2) return;
    engine.drain();
    require_equal_parameters(engine.comm(), engine);  // throws: exit code 7
  };
  std::atomic<int> finished{0};

  const int code = run_on_ranks(
      start_of(GetParam()),
      [&](RankContext& rank) {
        EXPECT_FALSE(compare_statements(rank.comm, "a: 1\n"));
        const testing::Outcome outcome = testing::train_rank(run, rank.comm, rank.place);
        EXPECT_EQ(outcome.state.applied, 6);
        ++finished;
      },
      emulated_place);

  EXPECT_EQ(code, 0);
  EXPECT_EQ(finished, GetParam());
}

TEST_P(Launch, ADeviceThatCannotBeHadIsItsExitCode) {
  const int code = run_on_ranks(
      start_of(GetParam()), [](RankContext&) { ADD_FAILURE() << "ran without a device"; },
      [](const job::JobConfig&) -> SelectedPlace { fail(ErrorKind::environment, "no such device"); });

  EXPECT_EQ(code, exit_code(ErrorKind::environment));
}

INSTANTIATE_TEST_SUITE_P(Ranks, Launch, ::testing::Values(1, 2));

}  // namespace
}  // namespace lockstep::run
