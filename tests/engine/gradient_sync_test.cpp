#include "engine/gradient_sync.hpp"

#include <numeric>

#include "core/error.hpp"
#include "kernels/decide/decide.hpp"
#include "tests/support/training.hpp"

namespace lockstep::engine {
namespace {

using testing::Task;

/// Rank 0 of two whose partner contributes nothing; keeps the start of every all-reduce, in elements of `base`.
class RecordingCommunicator final : public comm::Communicator {
 public:
  [[nodiscard]] int rank() const noexcept override { return 0; }
  [[nodiscard]] int size() const noexcept override { return 2; }
  [[nodiscard]] std::string name() const override { return "recording"; }
  [[nodiscard]] comm::Capabilities capabilities() const noexcept override {
    return {.host_memory = true, .ordered_sum = true};
  }
  void progress() override {}
  void do_barrier() override {}
  void abort(std::string_view /*why*/, int /*exit_code*/) noexcept override {}

  std::vector<const float*> reduced;  ///< start of every all-reduce, in order
  std::vector<std::uint64_t> waited;

 private:
  comm::Pending next() { return {++number_}; }
  comm::Pending do_all_reduce(Buffer data, comm::Reduce /*op*/, StreamRef /*after*/) override {
    reduced.push_back(static_cast<const float*>(data.data));
    return next();
  }
  comm::Pending do_reduce_scatter(Buffer, const comm::Parts&, comm::Reduce, StreamRef) override { return next(); }
  comm::Pending do_all_gather(Buffer, const comm::Parts&, StreamRef) override { return next(); }
  comm::Pending do_broadcast(Buffer, int, StreamRef) override { return next(); }
  comm::Pending do_all_to_all(Buffer, std::span<const std::size_t>, Buffer, std::span<const std::size_t>,
                              StreamRef) override {
    return next();
  }
  void do_wait(comm::Pending pending, StreamRef /*stream*/) override { waited.push_back(pending.id); }
  bool do_test(comm::Pending /*pending*/) override { return true; }

  std::uint64_t number_ = 0;
};

FlatLayout layout_of(nn::Model& model) {
  const nn::Plan plan = nn::plan(model, kernels::cpu_table(), {.batch = 2, .length = 1}, DType::f32);
  return {model.parameters(), plan, std::vector<int>(model.parameters().size(), 0)};
}

/// Steps as they come.
struct NoGraphs {
  std::unique_ptr<DeviceApi> device = make_cpu_device();
  StepGraphs graphs{*device, {}, false, false};
};

/// One contribution to each parameter's gradient.
std::vector<int> once_each(const FlatLayout& layout) { return std::vector<int>(layout.slices().size(), 1); }

TEST(GradientSync, ABucketWaitsForEveryContributionToItsSlices) {
  const auto model = testing::mlp_task().model();
  const FlatLayout layout = layout_of(*model);
  std::vector<float> grads(static_cast<std::size_t>(layout.size()));
  RecordingCommunicator comm;
  std::vector<int> uses = once_each(layout);
  uses[static_cast<std::size_t>(layout.slices()[0].param)] = 2;  // as a tied weight
  NoGraphs no;
  const ShardMap map(layout, layout.size(), optim::Granularity::element, false, 0, 1);
  GradientSync sync(comm, no.graphs, layout, map, uses, {grads.data(), grads.size(), DType::f32, Memory::host});

  sync.begin_micro_batch(0, true);
  for (int slice = 0; slice < static_cast<int>(layout.slices().size()); ++slice) sync.contributed(slice, {});
  const std::size_t before_the_second = comm.reduced.size();
  sync.contributed(0, {});

  EXPECT_EQ(before_the_second + 1, comm.reduced.size());
  EXPECT_THROW(sync.contributed(0, {}), Error) << "a third one is not in the plan";
}

TEST(GradientSync, ABucketGoesOutWithItsLastSlice) {
  const auto model = testing::mlp_task().model();
  const FlatLayout layout = layout_of(*model);
  std::vector<float> grads(static_cast<std::size_t>(layout.size()));
  RecordingCommunicator comm;
  NoGraphs no;
  const ShardMap map(layout, 200, optim::Granularity::element, false, 0, 1);
  GradientSync sync(comm, no.graphs, layout, map, once_each(layout),
                    {grads.data(), grads.size(), DType::f32, Memory::host});
  const auto buckets = layout.buckets(200);
  ASSERT_GT(buckets.size(), 3U);
  ASSERT_EQ(sync.bucket_count(), buckets.size());

  sync.begin_micro_batch(0, true);
  for (int slice = 0; slice < static_cast<int>(layout.slices().size()); ++slice) {
    sync.contributed(slice, {});
    std::size_t complete = 0;
    for (const auto& bucket : buckets) complete += bucket.last_slice <= slice ? 1 : 0;
    EXPECT_EQ(comm.reduced.size(), complete) << "after slice " << slice;
  }
  sync.finish({});
  ASSERT_EQ(comm.reduced.size(), buckets.size());
  for (std::size_t b = 0; b < buckets.size(); ++b) EXPECT_EQ(comm.reduced[b], grads.data() + buckets[b].begin);
  EXPECT_EQ(comm.waited.size(), buckets.size());
  EXPECT_EQ(sync.bytes_per_step(), grads.size() * sizeof(float));
}

TEST(GradientSync, WithoutReduceEverythingGoesOutAtTheEnd) {
  const auto model = testing::mlp_task().model();
  const FlatLayout layout = layout_of(*model);
  std::vector<float> grads(static_cast<std::size_t>(layout.size()));
  RecordingCommunicator comm;
  NoGraphs no;
  const ShardMap map(layout, 200, optim::Granularity::element, false, 0, 1);
  GradientSync sync(comm, no.graphs, layout, map, once_each(layout),
                    {grads.data(), grads.size(), DType::f32, Memory::host});
  sync.begin_micro_batch(0, false);
  for (int slice = 0; slice < static_cast<int>(layout.slices().size()); ++slice) sync.contributed(slice, {});
  EXPECT_TRUE(comm.reduced.empty());
  sync.finish({});
  EXPECT_EQ(comm.reduced.size(), sync.bucket_count());
  // The next step starts afresh.
  sync.begin_micro_batch(0, true);
  for (int slice = 0; slice < static_cast<int>(layout.slices().size()); ++slice) sync.contributed(slice, {});
  EXPECT_EQ(comm.reduced.size(), 2 * sync.bucket_count());
}

TEST(GradientSync, OneRankHasNothingToDo) {
  const auto model = testing::mlp_task().model();
  const FlatLayout layout = layout_of(*model);
  std::vector<float> grads(static_cast<std::size_t>(layout.size()), 2.0F);
  const auto comm = comm::make_single();
  NoGraphs no;
  const ShardMap map(layout, 200, optim::Granularity::element, false, 0, 1);
  GradientSync sync(*comm, no.graphs, layout, map, once_each(layout),
                    {grads.data(), grads.size(), DType::f32, Memory::host});
  EXPECT_EQ(sync.bucket_count(), 0U);
  EXPECT_EQ(sync.bytes_per_step(), 0U);
  sync.begin_micro_batch(0, true);
  sync.contributed(0, {});
  sync.finish({});
  EXPECT_EQ(grads, std::vector<float>(grads.size(), 2.0F));
}

TEST(GradientSync, TheGradientBecomesTheSumOverRanks) {
  for (const int ranks : {2, 3, 4}) {
    comm::run_ranks(ranks, [&](comm::Communicator& comm) {
      const auto model = testing::mlp_task().model();
      const FlatLayout layout = layout_of(*model);
      const auto device = make_cpu_device();
      const auto arena = comm.make_arena(*device, static_cast<std::size_t>(layout.size()) * sizeof(float));
      auto* grads = reinterpret_cast<float*>(arena->data());
      NoGraphs no;
      const ShardMap map(layout, 200, optim::Granularity::element, false, 0, 1);
      GradientSync sync(comm, no.graphs, layout, map, once_each(layout),
                        {grads, static_cast<std::size_t>(layout.size()), DType::f32, Memory::host});
      for (int step = 0; step < 3; ++step) {
        for (std::int64_t i = 0; i < layout.size(); ++i)
          grads[i] = static_cast<float>((i % 97 + step) * (comm.rank() + 1));
        sync.begin_micro_batch(0, true);
        for (int slice = 0; slice < static_cast<int>(layout.slices().size()); ++slice) {
          sync.contributed(slice, {});
          comm.progress();
        }
        sync.finish({});
        for (std::int64_t i = 0; i < layout.size(); ++i) {
          const auto expected = static_cast<float>((i % 97 + step) * ranks * (ranks + 1) / 2);
          ASSERT_EQ(grads[i], expected) << "element " << i << " of rank " << comm.rank();
        }
      }
    });
  }
}

/// All reductions that had started when backward of micro-batch `micro` returned.
std::vector<std::size_t> started_after_backward(bool no_sync) {
  const Task task = testing::mlp_task();
  const auto dataset = task.dataset();
  const auto model = task.model();
  const auto device = make_cpu_device();
  RecordingCommunicator comm;
  Engine engine(*model, comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                testing::engine_defaults(task, 4, 2));
  EXPECT_GT(engine.gradient_sync().bucket_count(), 1U);
  std::vector<std::size_t> started;
  data::HostBatch batch;
  {
    std::optional<Engine::NoSync> guard;
    if (no_sync) guard.emplace(engine);
    for (int i = 0; i < 2; ++i) {
      dataset->train_batch(4 * i, 4, batch);
      engine.forward(batch);
      engine.backward();
      started.push_back(comm.reduced.size());
    }
  }
  engine.step();
  started.push_back(comm.reduced.size());
  EXPECT_EQ(started.back(), engine.gradient_sync().bucket_count());
  return started;
}

TEST(GradientSync, TheEngineReducesUnderTheLastBackward) {
  const auto started = started_after_backward(false);
  EXPECT_EQ(started[0], 0U);
  EXPECT_EQ(started[1], started[2]);
}

TEST(GradientSync, NoSyncLeavesReductionsToTheStep) {
  const auto started = started_after_backward(true);
  EXPECT_EQ(started[0], 0U);
  EXPECT_EQ(started[1], 0U);
  EXPECT_GT(started[2], 1U);
}

}  // namespace
}  // namespace lockstep::engine
