#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "core/out_of_memory.hpp"
#include "kernels/emu/emu_device.hpp"

namespace lockstep::testing {

/// An emulated device that counts what is asked of it, and that can be told to fail.
class WatchedDevice final : public EmuDevice {
 public:
  explicit WatchedDevice(std::uint64_t seed = 1)
      : inner_(make_emulated_device(seed)), device_(dynamic_cast<EmuDevice&>(*inner_)) {}

  // What happened.
  std::int64_t allocations = 0;  ///< of its own memory
  std::size_t allocated = 0;     ///< bytes, now
  std::size_t peak = 0;          ///< bytes
  std::int64_t host_waits = 0;   ///< for an event or a stream
  std::int64_t questions = 0;    ///< done()

  // What is to go wrong.
  std::size_t limit = SIZE_MAX;  ///< bytes that there are
  bool hangs = false;            ///< work does not end any more, and none begins
  bool slow = false;             ///< work is only done when the host waits for it
  /// Whether to forget a wait: the stream by the order in which streams were made, and which of its waits, both from 0.
  std::function<bool(int stream, std::int64_t wait)> forgets = {};

  [[nodiscard]] std::string name() const override { return "watched"; }
  [[nodiscard]] Memory memory() const noexcept override { return Memory::device; }
  [[nodiscard]] bool immediate() const noexcept override { return false; }

  [[nodiscard]] MemoryInfo memory_info() override {
    return limit == SIZE_MAX ? inner_->memory_info() : MemoryInfo{.free = limit - allocated, .total = limit};
  }
  [[nodiscard]] void* allocate(std::size_t bytes) override {
    if (bytes > limit - allocated) throw OutOfMemory(Memory::device, bytes, memory_info());
    ++allocations;
    allocated += bytes;
    peak = std::max(peak, allocated);
    return inner_->allocate(bytes);
  }
  void deallocate(void* data, std::size_t bytes) noexcept override {
    allocated -= bytes;
    inner_->deallocate(data, bytes);
  }
  [[nodiscard]] void* allocate_pinned(std::size_t bytes) override { return inner_->allocate_pinned(bytes); }
  void deallocate_pinned(void* data, std::size_t bytes) noexcept override { inner_->deallocate_pinned(data, bytes); }

  [[nodiscard]] StreamRef make_stream() override {
    const StreamRef stream = inner_->make_stream();
    const auto number = static_cast<int>(waits_.size());
    waits_[stream.handle] = {number, 0};
    return stream;
  }
  void destroy(StreamRef stream) noexcept override { inner_->destroy(stream); }
  [[nodiscard]] EventRef make_event() override { return inner_->make_event(); }
  [[nodiscard]] EventRef make_timed_event() override { return inner_->make_timed_event(); }
  void destroy(EventRef event) noexcept override { inner_->destroy(event); }
  void record(EventRef event, StreamRef stream) override { inner_->record(event, stream); }
  void wait(StreamRef stream, EventRef event) override {
    Waits& waits = waits_[stream.handle];
    if (!forgets || !forgets(waits.stream, waits.count++)) inner_->wait(stream, event);
  }
  [[nodiscard]] bool done(EventRef event) override {
    ++questions;
    return !hangs && !slow && inner_->done(event);
  }
  void synchronize(EventRef event) override {
    ++host_waits;
    const auto begin = std::chrono::steady_clock::now();
    while (hangs || !inner_->done(event)) check_wait(begin, "work before an event");
  }
  void synchronize(StreamRef stream) override {
    const EventRef event = inner_->make_event();
    const auto end = [&] { inner_->destroy(event); };
    inner_->record(event, stream);
    try {
      synchronize(event);
    } catch (...) {
      end();
      throw;
    }
    end();
  }
  [[nodiscard]] double elapsed_ms(EventRef from, EventRef to) override { return inner_->elapsed_ms(from, to); }

  void copy(void* to, const void* from, std::size_t bytes, StreamRef stream) override {
    inner_->copy(to, from, bytes, stream);
  }
  void fill_zero(void* data, std::size_t bytes, StreamRef stream) override { inner_->fill_zero(data, bytes, stream); }
  void call_host(void (*task)(void*), void* context, StreamRef stream) override {
    inner_->call_host(task, context, stream);
  }
  void enqueue(StreamRef stream, std::function<void()> work) override { device_.enqueue(stream, std::move(work)); }

  [[nodiscard]] bool can_capture() const noexcept override { return true; }
  void begin_capture(StreamRef stream) override { inner_->begin_capture(stream); }
  [[nodiscard]] GraphRef end_capture(StreamRef stream) override { return inner_->end_capture(stream); }
  void launch(GraphRef graph, StreamRef stream) override { inner_->launch(graph, stream); }
  void destroy(GraphRef graph) noexcept override { inner_->destroy(graph); }

 private:
  struct Waits {
    int stream = -1;
    std::int64_t count = 0;
  };
  std::unique_ptr<DeviceApi> inner_;
  EmuDevice& device_;
  std::map<void*, Waits> waits_;
};

}  // namespace lockstep::testing
