// The engine's work on a device may be done in any order that its streams and events permit, with the same bits; and
// where one wait is forgotten, some order shows it.

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "tests/support/numbers.hpp"
#include "tests/support/training.hpp"
#include "tests/support/watched_device.hpp"

namespace lockstep::engine {
namespace {

using testing::Outcome;
using testing::ScratchFolder;
using testing::Task;
using testing::TrainingRun;
using testing::WatchedDevice;

constexpr int orders = 50;

/// One layer, 8 wide, 8 positions.
Task tiny_gpt(const ScratchFolder& folder) {
  Task task = testing::gpt_task(folder);
  const int symbols = task.dataset()->classes();
  task.length = 8;
  task.dataset = [path = folder / "text.txt"] { return data::make_text({.path = path, .length = 8, .seed = 5}); };
  task.model = [symbols] {
    return nn::make_gpt2(
        {.n_layer = 1, .n_head = 2, .n_embd = 8, .block_size = 8, .vocab_size = symbols, .padded_vocab = symbols});
  };
  return task;
}

/// fp16 from a scale that overflows, two micro-batches a step, buckets that go out under backward.
TrainingRun run_of(const Task& task, bool captured) {
  TrainingRun run{task, testing::engine_defaults(task, 1, 2, 1e-2), 2, 6};
  run.options.compute = DType::f16;
  run.options.scaler = testing::dynamic_scaler(19, 3);
  run.options.captured = captured;
  run.options.bucket_elements = 256;
  return run;
}

using Forget = std::function<bool(int stream, std::int64_t wait)>;

/// By rank. `forgets`: waits of rank `who`'s device that do not happen.
std::vector<Outcome> train(const TrainingRun& run, std::uint64_t seed, const Forget& forgets = {}, int who = 1) {
  std::vector<Outcome> outcomes(2);
  comm::run_rank_threads(2, [&](const std::shared_ptr<comm::LocalGroup>& group, int rank) {
    WatchedDevice device(2 * seed + static_cast<std::uint64_t>(rank));
    if (rank == who) device.forgets = forgets;
    const auto comm = comm::make_local(group, rank, {.device = &device});
    outcomes[static_cast<std::size_t>(rank)] =
        testing::train_rank(run, *comm, {.device = &device, .kernels = &kernels::emulated_table(), .threads = 1});
  });
  return outcomes;
}

bool same(const Outcome& a, const Outcome& b) {
  return testing::count_differing(a.losses(), b.losses()) == 0 &&
         testing::count_differing(a.column(&StepResult::grad_norm), b.column(&StepResult::grad_norm)) == 0 &&
         a.scales() == b.scales() && a.skips() == b.skips() && testing::count_differing(a.master, b.master) == 0;
}

TEST(StreamOrders, FiftyOfThemGiveOneAnswerWhetherStepsAreCapturedOrNot) {
  const ScratchFolder folder;
  const Task task = tiny_gpt(folder);
  const Outcome first = train(run_of(task, false), 1).front();
  for (std::uint64_t seed = 2; seed <= orders; ++seed)
    for (const Outcome& other : train(run_of(task, seed % 2 == 0), seed)) ASSERT_TRUE(same(other, first)) << seed;

  const std::vector<int> skips = first.skips();
  EXPECT_GT(std::count(skips.begin(), skips.end(), 1), 0) << "the scale must overflow on the way";
  EXPECT_GE(std::count(skips.begin(), skips.end(), 0), 3);
}

/// The first order in which forgetting that wait changes the answer; 0 if there is none among so many.
std::uint64_t first_to_show(const TrainingRun& run, const Outcome& right, const Forget& forgets, int tried = orders,
                            int who = 1) {
  for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(tried); ++seed) {
    try {
      for (const Outcome& rank : train(run, seed, forgets, who))
        if (!same(rank, right)) return seed;
    } catch (const Error&) {
      return seed;  // the numbers were so wrong that the run ended
    }
  }
  return 0;
}

TEST(StreamOrders, AForgottenWaitIsFound) {
  const ScratchFolder folder;
  const Task task = tiny_gpt(folder);
  const TrainingRun run = run_of(task, false);
  std::int64_t buckets = 0;
  TrainingRun counting = run;
  counting.prepare = [&](Engine& engine) {
    if (engine.comm().rank() == 0) buckets = static_cast<std::int64_t>(engine.gradient_sync().bucket_count());
  };
  const Outcome right = train(counting, 1).front();
  ASSERT_GT(buckets, 3);

  // Each step the communicator's stream waits for the record, each bucket and the reports, and the engine's for each
  // bucket, the reports and the record.
  constexpr int comm_stream = 0, engine_stream = 1;
  constexpr std::int64_t step = 2;
  ASSERT_EQ(right.skips()[step], 0) << "a skipped step's numbers are NaN, however it comes to them";
  const std::int64_t first = step * (buckets + 2);
  const auto forget = [](int stream, std::int64_t wait) {
    return [=](int s, std::int64_t w) { return s == stream && w == wait; };
  };
  EXPECT_GT(first_to_show(run, right, forget(comm_stream, first + 1)), 0U) << "a bucket goes out before it is full";
  EXPECT_GT(first_to_show(run, right, forget(comm_stream, first + buckets)), 0U) << "so does the last one";
  EXPECT_GT(first_to_show(run, right, forget(comm_stream, first + buckets + 1)), 0U) << "a report before it is made";
  EXPECT_GT(first_to_show(run, right, forget(engine_stream, first + buckets - 1), orders, 0), 0U)
      << "the norm is taken before the last bucket is summed: on rank 0, whose norm is everybody's";
  EXPECT_EQ(first_to_show(run, right, forget(engine_stream, 1'000'000), 3), 0U) << "nothing was forgotten";
}

/// Writes NaN into a weight, in stream order.
void poison(Engine& engine) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  engine.write_range("master", engine.layout().of(0).begin, 1, &nan);
}

class HaltInFlight : public testing::PlaceTest {};
INSTANTIATE_TEST_SUITE_P(Engines, HaltInFlight, testing::devices(), testing::place_name);

/// Steps that were enqueued before the host could know of the end change nothing any more.
TEST_P(HaltInFlight, IsStickyAndReportedWithItsStep) {
  const Task task = testing::mlp_task();
  const auto dataset = task.dataset();
  for (const bool captured : {false, true}) {
    std::vector<std::string> texts(2);
    testing::on_ranks(place(), 2, [&](comm::Communicator& comm, const Place& where) {
      const auto model = task.model();
      EngineOptions options = testing::engine_defaults(task, 4);
      options.captured = captured;
      Engine engine(*model, comm, where, options);
      for (std::int64_t step = 0; step < 5; ++step) testing::train_step(engine, *dataset, step);
      poison(engine);
      const std::vector<float> before = testing::read_buffer(engine, "master");
      for (std::int64_t step = 5; step < 8; ++step) testing::train_step(engine, *dataset, step);
      engine.drain();

      EXPECT_EQ(testing::count_differing(testing::read_buffer(engine, "master"), before), 0U);
      const StepState state = engine.read_state();
      EXPECT_EQ(state.halt, Halt::non_finite);
      EXPECT_EQ(state.applied, 5);
      EXPECT_EQ(engine.results().size(), 5U) << "what finished before goes out first";
      texts[static_cast<std::size_t>(comm.rank())] =
          testing::error_text(ErrorKind::diverged, [&] { (void)engine.results(); });
    });
    for (const std::string& text : texts) EXPECT_NE(text.find("step 6: "), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace lockstep::engine
