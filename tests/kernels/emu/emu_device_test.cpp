#include "kernels/emu/emu_device.hpp"

#include <gtest/gtest.h>

#include <barrier>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/error.hpp"

namespace lockstep {
namespace {

constexpr std::uint64_t seeds = 200;

EmuDevice& emulated(DeviceApi& device) { return dynamic_cast<EmuDevice&>(device); }

enum class Mistake { none, no_wait, slot_reused_too_early, read_before_synchronize };

/// Three steps of a two-stream loop: copy the rate in, "backward" on one stream, "reduce" on the other, "update".
double train(std::uint64_t seed, Mistake mistake) {
  const auto device = make_emulated_device(seed);
  const Arena memory(*device, 4 * sizeof(double));
  auto* rate = reinterpret_cast<double*>(memory.data());
  double *gradient = rate + 1, *reduced = rate + 2, *parameter = rate + 3;
  const Pinned<double> slots(*device, 3);
  const Pinned<double> result(*device, 1);
  const StreamRef compute = device->make_stream(), comm = device->make_stream();
  const EventRef ready = device->make_event(), summed = device->make_event();
  EmuDevice& queue = emulated(*device);
  for (int step = 0; step < 3; ++step) {
    const std::size_t slot = mistake == Mistake::slot_reused_too_early ? 0 : static_cast<std::size_t>(step);
    slots[slot] = 0.5 / (step + 1);
    device->copy(rate, &slots[slot], sizeof(double), compute);
    queue.enqueue(compute, [=] { *gradient = *parameter + 1; });
    device->record(ready, compute);
    device->wait(comm, ready);
    queue.enqueue(comm, [=] { *reduced = 2 * *gradient; });
    device->record(summed, comm);
    if (mistake != Mistake::no_wait) device->wait(compute, summed);
    queue.enqueue(compute, [=] { *parameter -= *rate * *reduced; });
  }
  device->copy(result.data(), parameter, sizeof(double), compute);
  if (mistake != Mistake::read_before_synchronize) device->synchronize(compute);
  const double value = result[0];
  device->synchronize(compute);
  device->synchronize(comm);
  device->destroy(ready);
  device->destroy(summed);
  device->destroy(compute);
  device->destroy(comm);
  return value;
}

int wrong_seeds(Mistake mistake) {
  double parameter = 0;
  for (int step = 0; step < 3; ++step) parameter -= 0.5 / (step + 1) * 2 * (parameter + 1);
  int wrong = 0;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) wrong += train(seed, mistake) != parameter ? 1 : 0;
  return wrong;
}

TEST(EmuDevice, RightProgramsGiveOneAnswer) { EXPECT_EQ(wrong_seeds(Mistake::none), 0); }
TEST(EmuDevice, FindsAMissingWait) { EXPECT_GT(wrong_seeds(Mistake::no_wait), static_cast<int>(seeds) / 2); }
TEST(EmuDevice, FindsAStagingSlotReusedTooEarly) {
  EXPECT_GT(wrong_seeds(Mistake::slot_reused_too_early), static_cast<int>(seeds) / 2);
}
TEST(EmuDevice, FindsAReadBeforeSynchronize) {
  EXPECT_EQ(wrong_seeds(Mistake::read_before_synchronize), static_cast<int>(seeds));
}

TEST(EmuDevice, MemoryIsZeroAlignedAndCalledDeviceMemory) {
  const auto device = make_emulated_device(1);
  EXPECT_EQ(device->memory(), Memory::device);
  EXPECT_FALSE(device->immediate());
  EXPECT_EQ(device->name(), "emu");
  const Arena arena(*device, 1000);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arena.data()) % 256, 0U);
  for (std::size_t i = 0; i < arena.bytes(); ++i) EXPECT_EQ(arena.data()[i], std::byte{0});
}

TEST(EmuDevice, NothingRunsWhenEnqueuedAndStreamsInterleaveInManyOrders) {
  std::set<std::vector<int>> seen;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const auto device = make_emulated_device(seed);
    const StreamRef a = device->make_stream(), b = device->make_stream();
    std::vector<int> order;
    for (int i = 0; i < 2; ++i) {
      emulated(*device).enqueue(a, [&order, i] { order.push_back(i); });
      emulated(*device).enqueue(b, [&order, i] { order.push_back(10 + i); });
    }
    EXPECT_TRUE(order.empty());
    device->synchronize(a);
    device->synchronize(b);
    seen.insert(order);
    device->destroy(a);
    device->destroy(b);
  }
  EXPECT_EQ(seen.size(), 6U);  // all interleavings of two streams of two
}

TEST(EmuDevice, PollingAnEventFinishesAndRunsAtMostOnePieceEach) {
  const auto device = make_emulated_device(3);
  const EventRef event = device->make_event();
  int ran = 0;
  EXPECT_TRUE(device->done(event));  // never recorded
  for (int i = 0; i < 5; ++i) emulated(*device).enqueue({}, [&ran] { ++ran; });
  device->record(event, {});
  int polls = 1;
  while (!device->done(event)) EXPECT_EQ(ran, polls++);
  EXPECT_EQ(ran, 5);
  EXPECT_EQ(polls, 5);
  device->destroy(event);
}

TEST(EmuDevice, AnEventRecordedAfterAWaitIncludesIt) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto device = make_emulated_device(seed);
    const StreamRef a = device->make_stream(), b = device->make_stream();
    const EventRef first = device->make_event(), second = device->make_event();
    bool ran = false;
    emulated(*device).enqueue(a, [&ran] { ran = true; });
    device->record(first, a);
    device->wait(b, first);
    device->record(second, b);
    device->synchronize(second);
    EXPECT_TRUE(ran);
    for (const EventRef event : {first, second}) device->destroy(event);
    for (const StreamRef stream : {a, b}) device->destroy(stream);
  }
}

TEST(EmuDevice, HostTasksOfTwoRanksMayWaitForEachOther) {
  // Each rank has two streams with a task that meets the other rank; ranks wait for them in opposite orders.
  std::barrier meeting(2);
  std::vector<int> met(2, 0);
  const auto rank = [&](int self) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
      const auto device = make_emulated_device(seed * 2 + static_cast<std::uint64_t>(self));
      const StreamRef streams[2] = {device->make_stream(), device->make_stream()};
      struct Context {
        std::barrier<>& meeting;
        int& count;
      } context{meeting, met[static_cast<std::size_t>(self)]};
      for (const StreamRef stream : streams) {
        emulated(*device).enqueue(stream, [] {});
        device->call_host(
            [](void* p) {
              auto& c = *static_cast<Context*>(p);
              c.meeting.arrive_and_wait();
              ++c.count;
            },
            &context, stream);
      }
      device->synchronize(streams[self]);
      device->synchronize(streams[1 - self]);
      for (const StreamRef stream : streams) device->destroy(stream);
    }
  };
  {
    const std::jthread other(rank, 1);
    rank(0);
  }
  EXPECT_EQ(met, (std::vector<int>{100, 100}));
}

TEST(EmuDevice, MemoryGivenBackWhileWorkIsPendingStaysValid) {
  const auto device = make_emulated_device(1);
  auto* data = static_cast<int*>(device->allocate(4));
  emulated(*device).enqueue({}, [data] { *data = 5; });
  device->deallocate(data, 4);
  device->synchronize(StreamRef{});  // under ASan a use after free would be reported here
}

TEST(EmuDevice, WorkMustNotCallTheDevice) {
  const auto device = make_emulated_device(1);
  EmuDevice& queue = emulated(*device);
  queue.enqueue({}, [&queue] { queue.enqueue({}, [] {}); });
  EXPECT_THROW(device->synchronize(StreamRef{}), Error);
}

TEST(EmuDevice, AGraphDoesItsWorkAtEachLaunchOnWhatLiesThereThen) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto device = make_emulated_device(seed);
    const Arena memory(*device, 3 * sizeof(int));
    int* const in = reinterpret_cast<int*>(memory.data());
    int* const sum = in + 1;
    int* const calls = in + 2;
    const StreamRef stream = device->make_stream();
    const EventRef event = device->make_event();
    device->begin_capture(stream);
    emulated(*device).enqueue(stream, [=] { *sum += *in; });
    device->record(event, stream);
    device->wait(stream, event);
    device->call_host([](void* p) { ++*static_cast<int*>(p); }, calls, stream);
    device->fill_zero(in, sizeof(int), stream);
    const GraphRef graph = device->end_capture(stream);
    device->synchronize(stream);
    const int after_capture = *calls;

    const Pinned<int> values(*device, 3);
    for (std::size_t i = 0; i < 3; ++i) {
      values[i] = 1 << i;
      device->copy(in, &values[i], sizeof(int), stream);
      device->launch(graph, stream);
    }
    device->synchronize(stream);

    EXPECT_EQ(after_capture, 0) << "a capture does nothing";
    EXPECT_EQ(*sum, 7);
    EXPECT_EQ(*calls, 3);
    EXPECT_EQ(*in, 0);
    device->destroy(graph);
    device->destroy(event);
    device->destroy(stream);
  }
}

TEST(EmuDevice, ACaptureRefusesWhatAGpuRefuses) {
  const auto device = make_emulated_device(1);
  const StreamRef stream = device->make_stream(), other = device->make_stream();
  const EventRef before = device->make_event(), inside = device->make_event();
  const auto refused = [](const auto& call, const char* word) {
    try {
      call();
      ADD_FAILURE() << "not refused: " << word;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::internal);
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  };
  emulated(*device).enqueue(other, [] {});
  device->record(before, other);

  refused([&] { (void)device->end_capture(stream); }, "not captured");
  device->begin_capture(stream);
  device->record(inside, stream);
  refused([&] { device->begin_capture(other); }, "second capture");
  refused([&] { device->wait(stream, before); }, "across the edge");
  refused([&] { device->wait(other, inside); }, "across the edge");
  refused([&] { (void)device->allocate(8); }, "allocation");
  refused([&] { (void)device->allocate_pinned(8); }, "allocation");
  refused([&] { (void)device->done(before); }, "question");
  refused([&] { device->synchronize(other); }, "synchronisation");
  refused([&] { device->synchronize(before); }, "synchronisation");
  refused([&] { (void)device->end_capture(other); }, "not captured");
  const GraphRef graph = device->end_capture(stream);
  refused([&] { device->wait(stream, inside); }, "across the edge");

  EXPECT_EQ(graph, GraphRef{}) << "nothing was captured";
  device->synchronize(other);
  for (const EventRef event : {before, inside}) device->destroy(event);
  for (const StreamRef each : {stream, other}) device->destroy(each);
}

}  // namespace
}  // namespace lockstep
