// What every device promises (core/device.hpp), with kernels from the table that goes with it.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <ostream>
#include <string>
#include <thread>

#include "core/error.hpp"
#include "core/out_of_memory.hpp"
#include "kernels/cuda_loader.hpp"
#include "kernels/emu/emu_device.hpp"
#include "kernels/table.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep::testing {
namespace {

constexpr std::size_t count = std::size_t{1} << 16;  // long enough that a GPU is seen to be late

class DeviceContract : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string name = GetParam();
    if (name == "cuda" && !cuda_is_available()) GTEST_SKIP() << "cuda is not available on this machine";
    if (name == "cpu") make(make_cpu_device(), kernels::cpu_table());
    if (name == "emu") make(make_emulated_device(7), kernels::emulated_table());
    if (name == "cuda") make(load_cuda_module().make_device(0), *load_cuda_module().table);
  }
  void make(std::unique_ptr<DeviceApi> device, const KernelTable& table) {
    device_ = std::move(device);
    context_ = std::make_unique<kernels::Context>(table, *device_);
    table_ = &table;
    memory_ = Arena(*device_, 2 * count * sizeof(float));
    host_ = std::make_unique<Pinned<float>>(*device_, 4 * count);
    stream_ = device_->make_stream();
  }
  void TearDown() override {
    if (device_ == nullptr) return;
    device_->synchronize(stream_);
    device_->destroy(stream_);
  }

  [[nodiscard]] float* x() const { return memory_.as<float>().data(); }
  [[nodiscard]] float* y() const { return x() + count; }
  /// A part of pinned host memory, one for each use, full of `value`.
  [[nodiscard]] float* host(std::size_t part, float value) const {
    float* const values = host_->data() + part * count;
    std::fill(values, values + count, value);
    return values;
  }
  void move(float* to, const float* from, StreamRef stream) const {
    device_->copy(to, from, count * sizeof(float), stream);
  }
  /// y <- y + x
  void add(StreamRef stream) const {
    const Exec exec = {table_, device_.get(), stream, 1, context_->get()};
    kernels::axpy(exec, {.x = x(), .y = y(), .count = count});
  }
  static void expect_all(const float* values, float want) {
    EXPECT_EQ(std::count(values, values + count, want), static_cast<std::ptrdiff_t>(count)) << "not all are " << want;
  }
  static void increment(void* number) { ++*static_cast<int*>(number); }

  std::unique_ptr<DeviceApi> device_;
  std::unique_ptr<kernels::Context> context_;
  const KernelTable* table_ = nullptr;
  Arena memory_;
  std::unique_ptr<Pinned<float>> host_;
  StreamRef stream_;
};

TEST_P(DeviceContract, MemoryIsZeroAtFirst) {
  float* const out = host(0, 5.0F);

  move(out, y(), stream_);
  device_->synchronize(stream_);

  expect_all(out, 0.0F);
}

TEST_P(DeviceContract, WorkOfAStreamIsDoneInOrder) {
  float *const in = host(0, 3.0F), *const out = host(1, -1.0F);
  int calls = 0;

  move(x(), in, stream_);
  move(y(), in, stream_);
  device_->fill_zero(y(), count * sizeof(float), stream_);
  add(stream_);
  add(stream_);
  move(out, y(), stream_);
  device_->call_host(increment, &calls, stream_);
  device_->synchronize(stream_);

  expect_all(out, 6.0F);
  EXPECT_EQ(calls, 1);
}

TEST_P(DeviceContract, AStreamThatWaitsForAnEventSeesAllWorkBeforeIt) {
  const StreamRef other = device_->make_stream();
  const EventRef added = device_->make_event();
  float *const in = host(0, 1.0F), *const out = host(1, -1.0F);
  EXPECT_TRUE(device_->done(added)) << "never recorded";

  move(x(), in, stream_);
  for (int i = 0; i < 50; ++i) add(stream_);
  device_->record(added, stream_);
  device_->wait(other, added);
  move(out, y(), other);
  device_->synchronize(other);

  expect_all(out, 50.0F);
  EXPECT_TRUE(device_->done(added));
  device_->synchronize(added);
  device_->destroy(added);
  device_->destroy(other);
}

TEST_P(DeviceContract, AGraphDoesItsWorkAtEachLaunchOnWhatLiesThereThen) {
  if (!device_->can_capture()) {
    EXPECT_THROW(device_->begin_capture(stream_), Error);
    return;
  }
  const EventRef event = device_->make_event();
  float* const out = host(3, -1.0F);
  int calls = 0;

  device_->begin_capture(stream_);
  add(stream_);
  device_->record(event, stream_);
  device_->wait(stream_, event);
  device_->call_host(increment, &calls, stream_);
  device_->fill_zero(x(), count * sizeof(float), stream_);
  const GraphRef graph = device_->end_capture(stream_);
  device_->synchronize(stream_);
  const int calls_of_the_capture = calls;
  for (std::size_t i = 0; i < 3; ++i) {
    move(x(), host(i, static_cast<float>(1 << i)), stream_);
    device_->launch(graph, stream_);
  }
  move(out, y(), stream_);
  device_->synchronize(stream_);

  EXPECT_EQ(calls_of_the_capture, 0) << "what is captured is not done";
  EXPECT_EQ(calls, 3);
  expect_all(out, 7.0F);
  device_->destroy(graph);
  device_->destroy(event);
}

TEST_P(DeviceContract, AnEmptyCaptureIsNoGraph) {
  if (!device_->can_capture()) {
    EXPECT_THROW((void)device_->end_capture(stream_), Error);
    return;
  }

  device_->begin_capture(stream_);

  EXPECT_EQ(device_->end_capture(stream_), GraphRef{});
}

TEST_P(DeviceContract, SaysHowMuchMemoryIsFree) {
  const MemoryInfo info = device_->memory_info();

  EXPECT_GT(info.free, 0U);
  EXPECT_LE(info.free, info.total);
}

TEST_P(DeviceContract, WhatNoDeviceHasIsOutOfMemoryAndSaysWhatWasAskedAndIsFree) {
  const std::size_t absurd = std::size_t{1} << 60;
  try {
    (void)device_->allocate(absurd);
    FAIL() << "not refused";
  } catch (const OutOfMemory& error) {
    EXPECT_EQ(error.kind(), ErrorKind::environment);
    EXPECT_EQ(error.asked(), absurd);
    EXPECT_GT(error.memory().total, 0U);
    const std::string text = error.what();
    EXPECT_NE(text.find("memory: 1.05e+06 TiB asked for, "), std::string::npos) << text;
    EXPECT_NE(text.find(" free; use a smaller model"), std::string::npos) << text;
  }
}

TEST_P(DeviceContract, TimedEventsMeasureWhatLiesBetweenThem) {
  EventRef events[3];
  for (EventRef& event : events) event = device_->make_timed_event();

  for (const EventRef event : events) {
    device_->record(event, stream_);
    for (int i = 0; i < 5; ++i) add(stream_);
  }
  device_->synchronize(stream_);

  const double first = device_->elapsed_ms(events[0], events[1]), second = device_->elapsed_ms(events[1], events[2]);
  EXPECT_GT(first, 0.0);
  EXPECT_GT(second, 0.0);
  // A GPU's clock is read in steps of half a microsecond.
  EXPECT_NEAR(device_->elapsed_ms(events[0], events[2]), first + second, 2e-3);
  for (const EventRef event : events) device_->destroy(event);
}

TEST_P(DeviceContract, AnUrgentStreamIsAStream) {
  const StreamRef urgent = device_->make_urgent_stream();
  float *const in = host(0, 2.0F), *const out = host(1, -1.0F);

  move(x(), in, urgent);
  add(urgent);
  add(urgent);
  move(out, y(), urgent);
  device_->synchronize(urgent);

  expect_all(out, 4.0F);
  device_->destroy(urgent);
}

/// Work that lasts until it is let go of. On emu work is done by the host itself, so there it is plain work.
class Lasting {
 public:
  Lasting(DeviceApi& device, StreamRef stream, bool on_gpu) {
    if (on_gpu) device.call_host([](void* self) { static_cast<Lasting*>(self)->last(); }, this, stream);
  }
  void let_go() { over_ = true; }

 private:
  std::atomic<bool> over_ = false;
  void last() const {
    while (!over_) std::this_thread::yield();
  }
};

TEST_P(DeviceContract, WhatTheWaitCheckThrowsEndsTheWait) {
  if (device_->immediate()) GTEST_SKIP() << "the host never waits for this device";
  int calls = 0;
  Lasting lasting(*device_, stream_, GetParam() == "cuda");
  for (int i = 0; i < 20; ++i) add(stream_);
  device_->set_wait_check([&] {
    if (++calls == 3) fail(ErrorKind::desync, "a peer is gone");
  });

  const std::string text = error_text(ErrorKind::desync, [&] { device_->synchronize(stream_); });

  EXPECT_EQ(text, "a peer is gone");
  EXPECT_EQ(calls, 3);
  device_->set_wait_check([] { fail(ErrorKind::desync, "still gone"); });
  EXPECT_FALSE(device_->try_synchronize(stream_));
  device_->set_wait_check(nullptr);
  lasting.let_go();
  EXPECT_TRUE(device_->try_synchronize(stream_));
}

TEST_P(DeviceContract, AWaitPastItsDeadlineIsAHang) {
  if (device_->immediate()) GTEST_SKIP() << "the host never waits for this device";
  const EventRef event = device_->make_event();
  Lasting lasting(*device_, stream_, GetParam() == "cuda");
  for (int i = 0; i < 20; ++i) add(stream_);
  device_->record(event, stream_);
  device_->set_wait_deadline(std::chrono::nanoseconds(1));

  const std::string text = error_text(ErrorKind::hang, [&] { device_->synchronize(event); });

  EXPECT_NE(text.find("the work before an event is not done after 1e-09 s"), std::string::npos) << text;
  device_->set_wait_deadline(std::chrono::seconds(0));
  lasting.let_go();
  device_->synchronize(event);
  EXPECT_TRUE(device_->done(event));
  device_->destroy(event);
}

INSTANTIATE_TEST_SUITE_P(Devices, DeviceContract, ::testing::Values("cpu", "emu", "cuda"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace lockstep::testing
