#include <sys/mman.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "core/device.hpp"
#include "core/out_of_memory.hpp"

namespace lockstep {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;

/// Large buffers start on a huge page: 6 to 22 % of bandwidth in the optimizer's pass (docs/cpu.md). Null: no memory.
void* allocate_host(std::size_t bytes) {
  if (bytes == 0) bytes = 1;
  const std::size_t alignment = bytes >= huge_page ? huge_page : 256;
  const bool fits = bytes <= SIZE_MAX - alignment;
  const std::size_t rounded = fits ? (bytes + alignment - 1) / alignment * alignment : 0;
  void* data = fits ? std::aligned_alloc(alignment, rounded) : nullptr;
  if (data == nullptr) return nullptr;
  if (alignment == huge_page) (void)madvise(data, rounded, MADV_HUGEPAGE);
  std::memset(data, 0, rounded);
  return data;
}

using Clock = std::chrono::steady_clock;

class CpuDevice final : public DeviceApi {
 public:
  [[nodiscard]] std::string name() const override { return "cpu"; }
  [[nodiscard]] Memory memory() const noexcept override { return Memory::host; }
  [[nodiscard]] bool immediate() const noexcept override { return true; }
  [[nodiscard]] void* allocate(std::size_t bytes) override {
    void* const data = allocate_host(bytes);
    if (data == nullptr) throw OutOfMemory(Memory::host, bytes, memory_info());
    return data;
  }
  void deallocate(void* data, std::size_t /*bytes*/) noexcept override { std::free(data); }
  [[nodiscard]] void* allocate_pinned(std::size_t bytes) override { return allocate(bytes); }
  void deallocate_pinned(void* data, std::size_t /*bytes*/) noexcept override { std::free(data); }
  [[nodiscard]] StreamRef make_stream() override { return {}; }
  void destroy(StreamRef /*stream*/) noexcept override {}
  // Only a timed event is anything: the time at which it was recorded.
  [[nodiscard]] EventRef make_event() override { return {}; }
  [[nodiscard]] EventRef make_timed_event() override { return {new Clock::time_point}; }
  void destroy(EventRef event) noexcept override { delete time_of(event); }
  void record(EventRef event, StreamRef /*stream*/) override {
    if (event.handle != nullptr) *time_of(event) = Clock::now();
  }
  void wait(StreamRef /*stream*/, EventRef /*event*/) override {}
  [[nodiscard]] bool done(EventRef /*event*/) override { return true; }
  void synchronize(EventRef /*event*/) override {}
  void synchronize(StreamRef /*stream*/) override {}
  [[nodiscard]] double elapsed_ms(EventRef from, EventRef to) override {
    require(from.handle != nullptr && to.handle != nullptr, "elapsed_ms: an event is not a timed one");
    return std::chrono::duration<double, std::milli>(*time_of(to) - *time_of(from)).count();
  }
  void copy(void* to, const void* from, std::size_t bytes, StreamRef /*stream*/) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void fill_zero(void* data, std::size_t bytes, StreamRef /*stream*/) override {
    if (bytes > 0) std::memset(data, 0, bytes);
  }
  void call_host(void (*task)(void*), void* context, StreamRef /*stream*/) override { task(context); }

 private:
  static Clock::time_point* time_of(EventRef event) { return static_cast<Clock::time_point*>(event.handle); }
};

}  // namespace

std::unique_ptr<DeviceApi> make_cpu_device() { return std::make_unique<CpuDevice>(); }

}  // namespace lockstep
