#include "core/device.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include "core/error.hpp"
#include "core/out_of_memory.hpp"
#include "core/text.hpp"

namespace lockstep {

// What a device does that implements no more than it must.

/// Of /proc/meminfo, where a line is "MemAvailable:   123 kB".
MemoryInfo DeviceApi::memory_info() {
  MemoryInfo info;
  std::ifstream in("/proc/meminfo");
  std::string word, unit;
  for (std::size_t kibibytes = 0; in >> word >> kibibytes; std::getline(in, unit)) {
    if (word == "MemTotal:") info.total = kibibytes * 1024;
    if (word == "MemAvailable:") info.free = kibibytes * 1024;
  }
  return info;
}

double DeviceApi::elapsed_ms(EventRef /*from*/, EventRef /*to*/) {
  fail(ErrorKind::internal, "device {} has no clock", name());
}

void DeviceApi::begin_capture(StreamRef /*stream*/) { fail(ErrorKind::internal, "device {} cannot capture", name()); }
GraphRef DeviceApi::end_capture(StreamRef /*stream*/) { fail(ErrorKind::internal, "device {} cannot capture", name()); }
void DeviceApi::launch(GraphRef /*graph*/, StreamRef /*stream*/) {
  fail(ErrorKind::internal, "device {} cannot launch graphs: it cannot capture", name());
}
void DeviceApi::destroy(GraphRef /*graph*/) noexcept {}

bool DeviceApi::try_synchronize(StreamRef stream) noexcept {
  try {
    synchronize(stream);
    return true;
  } catch (...) {
    return false;
  }
}

void DeviceApi::check_wait(std::chrono::steady_clock::time_point begin, const char* what) const {
  if (wait_check_) wait_check_();
  if (wait_deadline_.count() > 0 && std::chrono::steady_clock::now() - begin > wait_deadline_)
    fail(
        ErrorKind::hang,
        "{}: {} is not done after {:g} s: a kernel or a collective does not end, perhaps because another rank is gone; "
        "comm.timeout_s says how long is waited",
        name(), what, wait_deadline_.count());
}

void DeviceApi::wait_until(const std::function<bool()>& done, const char* what) const {
  using Clock = std::chrono::steady_clock;
  constexpr auto without_pause = std::chrono::microseconds(200);  // most waits of a training step are shorter
  constexpr std::chrono::microseconds longest_pause = std::chrono::milliseconds(1);
  const Clock::time_point begin = Clock::now();
  std::chrono::microseconds pause(20);
  while (!done()) {
    check_wait(begin, what);
    if (Clock::now() - begin < without_pause) {
      (void)sched_yield();
      continue;
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, longest_pause);
  }
  // A communicator that was stopped lets its work end, with anything in the buffers.
  if (wait_check_) wait_check_();
}

namespace {

std::string out_of_memory(Memory kind, std::size_t asked, MemoryInfo memory) {
  const bool host = kind == Memory::host;
  std::string text =
      fmt::format("out of {}memory: {} asked for", host ? "" : "GPU ", human_bytes(static_cast<double>(asked)));
  if (memory.total > 0)
    text += fmt::format(", {} of {} free", human_bytes(static_cast<double>(memory.free)),
                        human_bytes(static_cast<double>(memory.total)));
  return text + fmt::format("; use a smaller model, micro-batch or fewer ranks on this {}", host ? "host" : "GPU");
}

}  // namespace

OutOfMemory::OutOfMemory(Memory kind, std::size_t asked, MemoryInfo memory)
    : Error(ErrorKind::environment, out_of_memory(kind, asked, memory)), asked_(asked), memory_(memory) {}
OutOfMemory::~OutOfMemory() = default;

// Arena.

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
