// What the engine may ask of a device, and what it does when the device or a peer does not answer.

#include <gtest/gtest.h>

#include <chrono>

#include "engine/evaluate.hpp"
#include "tests/support/training.hpp"
#include "tests/support/watched_device.hpp"

namespace lockstep::engine {
namespace {

using testing::error_text;
using testing::Task;
using testing::WatchedDevice;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// An engine of one rank on a device under watch.
struct Watched {
  explicit Watched(EngineOptions with = testing::engine_defaults(testing::mlp_task(), 4)) : options(std::move(with)) {
    model = task.model();
    engine.emplace(*model, *comm, Place{.device = &device, .kernels = &kernels::emulated_table(), .threads = 1},
                   options);
  }
  void step() { testing::train_step(*engine, *dataset, steps++); }

  Task task = testing::mlp_task();
  EngineOptions options;
  std::unique_ptr<data::Dataset> dataset = task.dataset();
  std::unique_ptr<nn::Model> model;
  WatchedDevice device;
  std::unique_ptr<comm::Communicator> comm = comm::make_single(&device);
  std::optional<Engine> engine;
  std::int64_t steps = 0;
};

TEST(DeviceWaits, AtMostThreeStepsAreInFlightTheOneBeingEnqueuedIncluded) {
  Watched run;
  run.device.slow = true;  // nothing is done before the host insists
  std::int64_t returned = 0, most = 0;
  data::HostBatch batch;
  for (std::int64_t step = 0; step < 12; ++step) {
    run.dataset->train_batch(step * 4, 4, batch);
    run.engine->forward(batch);
    returned += static_cast<std::int64_t>(run.engine->results().size());
    most = std::max(most, step + 1 - returned);
    run.engine->backward();
    run.engine->step();
    returned += static_cast<std::int64_t>(run.engine->results().size());
    most = std::max(most, step + 1 - returned);
    if (step >= 3) {
      EXPECT_EQ(step + 1 - returned, 3) << "and no fewer: the device never runs dry";
    }
  }
  EXPECT_EQ(most, 3);
  EXPECT_EQ(run.engine->result_delay(), 3);
}

/// Two ranks that accumulate, evaluate and save in between.
TEST(DeviceWaits, NothingIsAllocatedAfterTheSecondStep) {
  const Task task = testing::mlp_task();
  for (const bool captured : {false, true}) {
    comm::run_rank_threads(2, [&](const std::shared_ptr<comm::LocalGroup>& group, int rank) {
      WatchedDevice device(static_cast<std::uint64_t>(rank));
      const auto comm = comm::make_local(group, rank, {.device = &device});
      const auto dataset = task.dataset();
      const auto model = task.model();
      EngineOptions options = testing::engine_defaults(task, 4, 2);
      options.captured = captured;
      Engine engine(*model, *comm, {.device = &device, .kernels = &kernels::emulated_table(), .threads = 1}, options);
      const std::int64_t made = device.allocations;
      for (std::int64_t step = 0; step < 2; ++step) testing::train_step(engine, *dataset, step);
      EXPECT_EQ(device.allocations, made) << "not in the first steps either";
      EXPECT_EQ(device.allocated, device.peak);
      EXPECT_LE(device.allocated, engine.bytes()) << "pinned host memory is counted there too";
      for (std::int64_t step = 2; step < 8; ++step) testing::train_step(engine, *dataset, step);
      (void)evaluate_all(engine, *dataset);
      (void)testing::read_buffer(engine, "exp_avg");
      (void)engine.read_state();
      (void)engine.results();
      testing::train_step(engine, *dataset, 8);
      engine.drain();
      EXPECT_EQ(device.allocations, made);
    });
  }
}

TEST(DeviceWaits, AStepAsksTheHostToWaitForNothing) {
  Watched run;
  for (int i = 0; i < 3; ++i) run.step();
  run.engine->drain();
  const std::int64_t before = run.device.host_waits;
  run.step();
  run.step();
  // Only for the memory that batches are staged in, which was used four batches ago.
  EXPECT_LE(run.device.host_waits - before, 2);
  run.engine->drain();
}

TEST(DeviceWaits, ADeviceThatHangsEndsTheWaitAndHoldsUpNoDestructor) {
  EngineOptions options = testing::engine_defaults(testing::mlp_task(), 4);
  options.wait_timeout_s = 0.3;
  std::optional<Watched> run(std::in_place, options);
  run->step();
  run->device.hangs = true;
  const auto begin = Clock::now();

  const std::string text = error_text(ErrorKind::hang, [&] { run->engine->drain(); });
  run->engine.reset();

  EXPECT_NE(text.find("not done after 0.3 s"), std::string::npos) << text;
  EXPECT_LT(seconds_since(begin), 10) << "two waits of 0.3 s on a busy machine";
  run->device.hangs = false;  // the emulator's memory is the test's
}

/// A group of one whose peers are gone.
class Bereft final : public comm::Communicator {
 public:
  explicit Bereft(comm::Communicator& inner) : inner_(inner) {}
  bool alone = false;
  std::int64_t checks = 0;
  [[nodiscard]] int rank() const noexcept override { return 0; }
  [[nodiscard]] int size() const noexcept override { return 1; }
  [[nodiscard]] std::string name() const override { return "bereft"; }
  [[nodiscard]] comm::Capabilities capabilities() const noexcept override { return inner_.capabilities(); }
  void progress() override {}
  void check() override {
    ++checks;
    if (alone) fail(ErrorKind::hang, "rank 1 is gone");
  }
  void do_barrier() override {}
  void abort(std::string_view /*why*/, int /*exit_code*/) noexcept override {}

 private:
  comm::Pending do_all_reduce(Buffer data, comm::Reduce op, StreamRef after) override {
    return inner_.start_all_reduce(data, op, after);
  }
  comm::Pending do_reduce_scatter(Buffer, const comm::Parts&, comm::Reduce, StreamRef) override { return {}; }
  comm::Pending do_all_gather(Buffer data, const comm::Parts& parts, StreamRef after) override {
    const std::size_t offsets[] = {parts[0].begin, parts[0].end};
    return inner_.start_all_gather(data, offsets, after);
  }
  comm::Pending do_broadcast(Buffer data, int root, StreamRef after) override {
    return inner_.start_broadcast(data, root, after);
  }
  comm::Pending do_all_to_all(Buffer, std::span<const std::size_t>, Buffer, std::span<const std::size_t>,
                              StreamRef) override {
    return {};
  }
  void do_wait(comm::Pending pending, StreamRef stream) override { inner_.wait(pending, stream); }
  bool do_test(comm::Pending pending) override { return inner_.test(pending); }

  comm::Communicator& inner_;
};

TEST(DeviceWaits, APeerThatFailsEndsAWaitForTheDevice) {
  const Task task = testing::mlp_task();
  const auto dataset = task.dataset();
  const auto model = task.model();
  WatchedDevice device;
  const auto single = comm::make_single(&device);
  Bereft comm(*single);
  std::optional<Engine> engine(std::in_place, *model, comm,
                               Place{.device = &device, .kernels = &kernels::emulated_table(), .threads = 1},
                               testing::engine_defaults(task, 4));
  testing::train_step(*engine, *dataset, 0);
  engine->drain();
  EXPECT_GT(comm.checks, 0) << "between two looks";
  testing::train_step(*engine, *dataset, 1);
  device.hangs = true;
  comm.alone = true;
  const auto begin = Clock::now();

  const std::string text = error_text(ErrorKind::hang, [&] { engine->drain(); });
  engine.reset();

  EXPECT_EQ(text, "rank 1 is gone");
  EXPECT_LT(seconds_since(begin), 10) << "the deadline is 600 s";
  device.hangs = false;
}

TEST(DeviceWaits, MemoryThatADeviceDoesNotHaveIsAnErrorWithNumbers) {
  const Task task = testing::mlp_task();
  const auto model = task.model();
  WatchedDevice device;
  device.limit = 20'000;
  const auto comm = comm::make_single(&device);
  const std::string text = error_text(ErrorKind::environment, [&] {
    const Engine engine(*model, *comm, {.device = &device, .kernels = &kernels::emulated_table(), .threads = 1},
                        testing::engine_defaults(task, 64));
  });
  EXPECT_NE(text.find("out of GPU memory: "), std::string::npos) << text;
  EXPECT_EQ(device.allocated, 0U) << "what it had taken is given back";
}

}  // namespace
}  // namespace lockstep::engine
