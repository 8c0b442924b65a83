#include "core/device.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/out_of_memory.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep {
namespace {

TEST(CpuDevice, DoesEverythingAtOnce) {
  const auto device = make_cpu_device();
  EXPECT_EQ(device->name(), "cpu");
  EXPECT_EQ(device->memory(), Memory::host);
  EXPECT_TRUE(device->immediate());
  const StreamRef stream = device->make_stream();
  const EventRef event = device->make_event();
  int from = 5, to = 0;
  device->copy(&to, &from, sizeof to, stream);
  EXPECT_EQ(to, 5);
  device->fill_zero(&to, sizeof to, stream);
  EXPECT_EQ(to, 0);
  device->call_host([](void* p) { *static_cast<int*>(p) = 9; }, &to, stream);
  EXPECT_EQ(to, 9);
  device->record(event, stream);
  device->wait(stream, event);
  EXPECT_TRUE(device->done(event));
  device->synchronize(event);
  device->synchronize(stream);
  device->copy(nullptr, nullptr, 0, stream);
  device->destroy(event);
  device->destroy(stream);
}

TEST(CpuDevice, MemoryIsZeroAndAligned) {
  const auto device = make_cpu_device();
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{1000}, std::size_t{5} << 20}) {
    const Arena arena(*device, bytes);
    ASSERT_NE(arena.data(), nullptr);
    EXPECT_EQ(arena.bytes(), bytes);
    const std::uintptr_t alignment = bytes >= (std::size_t{2} << 20) ? std::uintptr_t{2} << 20 : 256;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arena.data()) % alignment, 0U);
    for (std::size_t i = 0; i < bytes; ++i) ASSERT_EQ(arena.data()[i], std::byte{0});
  }
}

TEST(CpuDevice, MemoryThatNoMachineHasIsOutOfMemory) {
  const auto device = make_cpu_device();
  for (const std::size_t bytes : {SIZE_MAX, SIZE_MAX - 100}) {
    const std::string text = testing::error_text(ErrorKind::environment, [&] { (void)device->allocate(bytes); });
    EXPECT_NE(text.find("out of memory"), std::string::npos) << text;
  }
}

TEST(CpuDevice, SaysThatItCannotCapture) {
  const auto device = make_cpu_device();
  EXPECT_FALSE(device->can_capture());
  try {
    device->begin_capture({});
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::internal);
    EXPECT_STREQ(error.what(), "device cpu cannot capture");
  }
}

/// A device that counts what is not given back.
class CountingDevice : public DeviceApi {
 public:
  int live = 0;
  std::unique_ptr<DeviceApi> host = make_cpu_device();

  [[nodiscard]] std::string name() const override { return "counting"; }
  [[nodiscard]] Memory memory() const noexcept override { return Memory::host; }
  [[nodiscard]] bool immediate() const noexcept override { return true; }
  [[nodiscard]] void* allocate(std::size_t bytes) override { return ++live, host->allocate(bytes); }
  void deallocate(void* data, std::size_t bytes) noexcept override { --live, host->deallocate(data, bytes); }
  [[nodiscard]] void* allocate_pinned(std::size_t bytes) override { return allocate(bytes); }
  void deallocate_pinned(void* data, std::size_t bytes) noexcept override { deallocate(data, bytes); }
  [[nodiscard]] StreamRef make_stream() override { return {}; }
  void destroy(StreamRef) noexcept override {}
  [[nodiscard]] EventRef make_event() override { return {}; }
  void destroy(EventRef) noexcept override {}
  void record(EventRef, StreamRef) override {}
  void wait(StreamRef, EventRef) override {}
  [[nodiscard]] bool done(EventRef) override { return true; }
  void synchronize(EventRef) override {}
  void synchronize(StreamRef) override {}
  void copy(void*, const void*, std::size_t, StreamRef) override {}
  void fill_zero(void*, std::size_t, StreamRef) override {}
  void call_host(void (*task)(void*), void* context, StreamRef) override { task(context); }
};

TEST(CpuDevice, KnowsTheMachinesMemory) {
  const MemoryInfo info = make_cpu_device()->memory_info();
  // MemTotal of /proc/meminfo is what the kernel manages, all of which sysconf counts in pages.
  EXPECT_EQ(info.total, static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(getpagesize()));
  EXPECT_GT(info.free, 0U);
  EXPECT_LE(info.free, info.total);
}

TEST(OutOfMemory, SaysWhatWasAskedAndWhatIsFree) {
  const OutOfMemory gpu(Memory::device, std::size_t{3} << 30,
                        {.free = std::size_t{1} << 30, .total = std::size_t{80} << 30});
  EXPECT_STREQ(gpu.what(),
               "out of GPU memory: 3.00 GiB asked for, 1.00 GiB of 80.0 GiB free; use a smaller model, micro-batch or "
               "fewer ranks on this GPU");
  const OutOfMemory host(Memory::host, std::size_t{3} << 30, {});
  EXPECT_STREQ(host.what(),
               "out of memory: 3.00 GiB asked for; use a smaller model, micro-batch or fewer ranks on this host");
}

/// A device whose work ends after some looks, or never.
class SlowDevice : public CountingDevice {
 public:
  int looks_needed = 0;
  int looks = 0;

  [[nodiscard]] bool immediate() const noexcept override { return false; }
  [[nodiscard]] bool done(EventRef) override { return ++looks > looks_needed; }
  void synchronize(StreamRef) override {
    wait_until([&] { return done(EventRef{}); }, "the work of a stream");
  }
};

TEST(Wait, LooksAgainUntilTheWorkIsDoneAndChecksInBetween) {
  SlowDevice device;
  device.looks_needed = 40;
  int checks = 0;
  device.set_wait_check([&] { ++checks; });
  device.set_wait_deadline(std::chrono::hours(1));
  device.synchronize(StreamRef{});
  EXPECT_EQ(device.looks, 41);
  EXPECT_EQ(checks, 41) << "and once more at the end: what a peer's failure stopped is done too";
  EXPECT_TRUE(device.try_synchronize(StreamRef{})) << "done is done";
  EXPECT_EQ(checks, 42);
}

TEST(Wait, EndsWithWhatTheCheckThrows) {
  SlowDevice device;
  device.looks_needed = 1 << 30;
  device.set_wait_check([&] {
    if (device.looks == 3) fail(ErrorKind::hang, "rank 2 is gone");
  });
  EXPECT_EQ(testing::error_text(ErrorKind::hang, [&] { device.synchronize(StreamRef{}); }), "rank 2 is gone");
  EXPECT_EQ(device.looks, 3);
}

TEST(Wait, EndsAtItsDeadlineForWorkThatNeverEnds) {
  SlowDevice device;
  device.looks_needed = 1 << 30;
  device.set_wait_deadline(std::chrono::milliseconds(5));
  const std::string text = testing::error_text(ErrorKind::hang, [&] { device.synchronize(StreamRef{}); });
  EXPECT_EQ(text,
            "counting: the work of a stream is not done after 0.005 s: a kernel or a collective does not end, perhaps "
            "because another rank is gone; comm.timeout_s says how long is waited");
  EXPECT_FALSE(device.try_synchronize(StreamRef{}));
}

TEST(Arena, OwnsItsMemoryAcrossMoves) {
  CountingDevice device;
  {
    Arena a(device, 100);
    const std::byte* data = a.data();
    Arena b(std::move(a));
    EXPECT_EQ(b.data(), data);
    Arena c;
    c = std::move(b);
    EXPECT_EQ(c.data(), data);
    EXPECT_EQ(c.bytes(), 100U);
    EXPECT_EQ(device.live, 1);
    c = Arena(device, 50);
    EXPECT_EQ(c.bytes(), 50U);
  }
  EXPECT_EQ(device.live, 0);
}

TEST(Arena, ViewsCountWholeElements) {
  CountingDevice device;
  const Arena arena(device, 4 * sizeof(double) + 3);
  EXPECT_EQ(arena.as<double>().size(), 4U);
  EXPECT_EQ(static_cast<void*>(arena.as<double>().data()), static_cast<void*>(arena.data()));
}

TEST(Pinned, GivesItsMemoryBack) {
  CountingDevice device;
  {
    const Pinned<int> slots(device, 3);
    slots[2] = 7;
    EXPECT_EQ(slots.data()[2], 7);
    EXPECT_EQ(slots.size(), 3U);
    EXPECT_EQ(device.live, 1);
  }
  EXPECT_EQ(device.live, 0);
}

TEST(Buffer, PartsMoveByElements) {
  std::vector<double> values(10);
  const Buffer whole = buffer_of(View<double>(values.data(), values.size()));
  EXPECT_EQ(whole.dtype, DType::f64);
  EXPECT_EQ(whole.bytes(), 80U);
  const Buffer part = whole.part(3, 4);
  EXPECT_EQ(part.data, static_cast<void*>(values.data() + 3));
  EXPECT_EQ(part.count, 4U);
}

TEST(View, IteratesOverItsElementsAndNarrowsToAPart) {
  std::vector<int> values = {1, 2, 3, 4};
  const View<int> view(values.data(), values.size());
  const View<const int> tail = view.subview(1, 3);
  int sum = 0;
  for (const int x : tail) sum += x;
  EXPECT_EQ(sum, 9);
  EXPECT_TRUE(View<int>().empty());
}

}  // namespace
}  // namespace lockstep
