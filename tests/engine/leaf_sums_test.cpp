#include "engine/leaf_sums.hpp"

#include <gmock/gmock.h>

#include <numeric>

#include "core/rng.hpp"
#include "tests/support/numbers.hpp"
#include "tests/support/training.hpp"

namespace lockstep::engine {
namespace {

using testing::Outcome;
using testing::ScratchFolder;
using testing::Task;
using testing::TrainingRun;

constexpr std::int64_t elements = 1000;

/// Element i of a leaf's gradient: sums of these round at almost every addition.
float value(std::int64_t leaf, std::int64_t i) {
  return static_cast<float>(
      normal_at(1, RngStream::synthetic, static_cast<std::uint32_t>(leaf), static_cast<std::uint64_t>(i)));
}

/// T(first, last) of element i, by its definition.
float tree(std::int64_t first, std::int64_t last, std::int64_t i) {
  if (last - first == 1) return value(first, i);
  std::int64_t half = 1;
  while (2 * half < last - first) half *= 2;
  return tree(first, first + half, i) + tree(first + half, last, i);
}

/// What a rank has at the end when every leaf's gradient comes in two ranges.
std::vector<float> sum_over(comm::Communicator& comm, std::int64_t leaves, int threads) {
  const auto device = make_cpu_device();
  const Exec exec = {.table = &kernels::cpu_table(), .device = device.get(), .threads = threads};
  const auto arena = comm.make_arena(*device, elements * sizeof(float));
  auto* const sum = reinterpret_cast<float*>(arena->data());
  LeafSums sums(comm, exec, sum, elements, leaves);
  std::vector<LeafSums::Exchange> ranges = {sums.plan(0, 640), sums.plan(640, elements - 640)};
  sums.make_room();

  for (int step = 0; step < 2; ++step) {  // the second finds what the first left
    for (std::int64_t leaf = sums.own().begin; leaf < sums.own().end; ++leaf) {
      const auto micro = static_cast<int>(leaf - sums.own().begin);
      float* const to = sums.of(micro);
      for (LeafSums::Exchange& range : ranges) {
        for (std::int64_t i = range.begin; i < range.begin + range.count; ++i) to[i] = value(leaf, i);
        sums.merge(micro, range.begin, range.count);
        if (leaf + 1 == sums.own().end) sums.start(range);
      }
    }
    std::vector<comm::Pending> pending;
    for (LeafSums::Exchange& range : ranges) pending.push_back(sums.finish(range));
    for (const comm::Pending each : pending) comm.wait(each);
  }
  return {sum, sum + elements};
}

TEST(LeafSums, AreTheTreeOverAllLeavesOnAnyNumberOfRanks) {
  for (const std::int64_t leaves : {1, 2, 3, 5, 8, 11, 12, 21}) {
    std::vector<float> expected;
    for (std::int64_t i = 0; i < elements; ++i) expected.push_back(tree(0, leaves, i));
    for (const int ranks : {1, 2, 3, 4, 5, 8}) {
      if (ranks > leaves) continue;
      comm::run_ranks(ranks, [&](comm::Communicator& comm) {
        EXPECT_EQ(testing::count_differing(sum_over(comm, leaves, 1 + ranks % 3), expected), 0U)
            << leaves << " leaves, " << ranks << " ranks, rank " << comm.rank();
      });
    }
  }
}

TEST(LeafSums, NeedAsManyBuffersAsTheirShareHasSubtreesOnTheWay) {
  const auto buffers = [](std::int64_t leaves, int ranks, int rank) {
    std::size_t bytes = 0;
    comm::run_ranks(ranks, [&](comm::Communicator& comm) {
      const auto device = make_cpu_device();
      std::vector<float> sum(elements);
      const LeafSums sums(comm, {.table = &kernels::cpu_table(), .device = device.get()}, sum.data(), elements, leaves);
      if (comm.rank() == rank) bytes = sums.bytes();
    });
    return bytes / (elements * sizeof(float));
  };
  EXPECT_EQ(buffers(1, 1, 0), 0U);
  EXPECT_EQ(buffers(2, 1, 0), 1U);
  EXPECT_EQ(buffers(16, 1, 0), 4U);
  EXPECT_EQ(buffers(16, 16, 3), 0U) << "one leaf a rank is plain data-parallel training";
  EXPECT_EQ(buffers(16, 4, 1), 2U);
}

TEST(LeafSums, RefuseADeviceThatWorksBehindTheHost) {
  const auto device = make_emulated_device(1);
  const auto comm = comm::make_single(device.get());
  const std::string text = testing::error_text(ErrorKind::config, [&] {
    const LeafSums sums(*comm, {.table = &kernels::emulated_table(), .device = device.get()}, nullptr, elements, 4);
  });
  EXPECT_THAT(text, ::testing::HasSubstr("use exact"));
}

constexpr std::int64_t leaves_a_step = 8;

/// Training of `task` where nothing may depend on `ranks` and `threads`; rank 0's outcome, which all have.
Outcome train(const Task& task, DType compute, int ranks, int threads) {
  TrainingRun run{task, testing::engine_defaults(task, 2, 1, 1e-2), ranks, 6, threads};
  run.options.compute = compute;
  if (compute == DType::bf16) run.options.scaler.on_overflow = ScalerConfig::OnOverflow::skip;
  run.options.leaves = leaves_a_step;
  run.adjust = [ranks](EngineOptions& options, int rank) {
    options.grad_accum = static_cast<int>(sum_tree::share(leaves_a_step, rank, ranks).size());
  };
  const std::vector<Outcome> outcomes = testing::train_on_cpu(run);
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.master, outcomes.front().master);
  return outcomes.front();
}

void expect_the_same_everywhere(const Task& task, DType compute) {
  const Outcome alone = train(task, compute, 1, 1);
  for (const int ranks : {1, 2, 3, 4, 5, 8})
    for (const int threads : {1, 2, 3}) {
      SCOPED_TRACE(fmt::format("{} ranks x {} threads", ranks, threads));
      const Outcome outcome = train(task, compute, ranks, threads);
      EXPECT_EQ(outcome.losses(), alone.losses());
      EXPECT_EQ(outcome.column(&StepResult::grad_norm), alone.column(&StepResult::grad_norm));
      EXPECT_EQ(testing::count_differing(outcome.master, alone.master), 0U);
    }
}

TEST(InvariantTraining, OfGpt2HasTheSameBitsOnAnyNumberOfRanksAndThreads) {
  const ScratchFolder folder;
  expect_the_same_everywhere(testing::gpt_task(folder), DType::f32);
  expect_the_same_everywhere(testing::gpt_task(folder), DType::bf16);
}

TEST(InvariantTraining, OfAnMlpHasTheSameBitsOnAnyNumberOfRanksAndThreads) {
  expect_the_same_everywhere(testing::mlp_task(), DType::f32);
}

TEST(InvariantTraining, IsTheMeanOverAllSamples) {
  const ScratchFolder folder;
  const Task task = testing::gpt_task(folder);
  TrainingRun plain{task, testing::engine_defaults(task, 2, 4, 1e-2), 2, 6};

  const Outcome exact = testing::train_on_cpu(plain).front();
  const Outcome invariant = train(task, DType::f32, 2, 1);

  for (std::size_t i = 0; i < exact.results.size(); ++i) {
    // The same mean in another order of fp32 sums, six steps long.
    EXPECT_NEAR(invariant.results[i].loss, exact.results[i].loss, 1e-5) << "step " << i;
    EXPECT_NEAR(invariant.results[i].grad_norm, exact.results[i].grad_norm, 1e-4) << "step " << i;
  }
}

}  // namespace
}  // namespace lockstep::engine
