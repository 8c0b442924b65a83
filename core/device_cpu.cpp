#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/device.hpp"
#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;

/// Large buffers start on a huge page: 6 to 22 % of bandwidth in the optimizer's pass (docs/cpu.md).
void* allocate_host(std::size_t bytes) {
  if (bytes == 0) bytes = 1;
  const std::size_t alignment = bytes >= huge_page ? huge_page : 256;
  const bool fits = bytes <= SIZE_MAX - alignment;
  const std::size_t rounded = fits ? (bytes + alignment - 1) / alignment * alignment : 0;
  void* data = fits ? std::aligned_alloc(alignment, rounded) : nullptr;
  if (data == nullptr)
    fail(ErrorKind::environment,
         "out of memory: {} asked for; use a smaller model, micro-batch or fewer ranks on this host",
         human_bytes(static_cast<double>(bytes)));
  if (alignment == huge_page) (void)madvise(data, rounded, MADV_HUGEPAGE);
  std::memset(data, 0, rounded);
  return data;
}

class CpuDevice final : public DeviceApi {
 public:
  [[nodiscard]] std::string name() const override { return "cpu"; }
  [[nodiscard]] Memory memory() const noexcept override { return Memory::host; }
  [[nodiscard]] bool immediate() const noexcept override { return true; }
  [[nodiscard]] void* allocate(std::size_t bytes) override { return allocate_host(bytes); }
  void deallocate(void* data, std::size_t /*bytes*/) noexcept override { std::free(data); }
  [[nodiscard]] void* allocate_pinned(std::size_t bytes) override { return allocate_host(bytes); }
  void deallocate_pinned(void* data, std::size_t /*bytes*/) noexcept override { std::free(data); }
  [[nodiscard]] StreamRef make_stream() override { return {}; }
  void destroy(StreamRef /*stream*/) noexcept override {}
  [[nodiscard]] EventRef make_event() override { return {}; }
  void destroy(EventRef /*event*/) noexcept override {}
  void record(EventRef /*event*/, StreamRef /*stream*/) override {}
  void wait(StreamRef /*stream*/, EventRef /*event*/) override {}
  [[nodiscard]] bool done(EventRef /*event*/) override { return true; }
  void synchronize(EventRef /*event*/) override {}
  void synchronize(StreamRef /*stream*/) override {}
  void copy(void* to, const void* from, std::size_t bytes, StreamRef /*stream*/) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void fill_zero(void* data, std::size_t bytes, StreamRef /*stream*/) override {
    if (bytes > 0) std::memset(data, 0, bytes);
  }
  void call_host(void (*task)(void*), void* context, StreamRef /*stream*/) override { task(context); }
};

}  // namespace

void DeviceApi::begin_capture(StreamRef /*stream*/) { fail(ErrorKind::internal, "device {} cannot capture", name()); }
GraphRef DeviceApi::end_capture(StreamRef /*stream*/) { fail(ErrorKind::internal, "device {} cannot capture", name()); }
void DeviceApi::launch(GraphRef /*graph*/, StreamRef /*stream*/) {
  fail(ErrorKind::internal, "device {} cannot launch graphs: it cannot capture", name());
}
void DeviceApi::destroy(GraphRef /*graph*/) noexcept {}

std::unique_ptr<DeviceApi> make_cpu_device() { return std::make_unique<CpuDevice>(); }

Arena::Arena(DeviceApi& device, std::size_t bytes)
    : device_(&device), data_(static_cast<std::byte*>(device.allocate(bytes))), bytes_(bytes) {}

Arena::Arena(Arena&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Arena::~Arena() {
  if (device_ != nullptr) device_->deallocate(data_, bytes_);
}

}  // namespace lockstep
