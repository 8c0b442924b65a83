#pragma once

#include <cstddef>
#include <cstring>
#include <memory>

#include "core/device.hpp"

namespace lockstep::testing {

/// Memory that a test's device and the host can both follow a pointer to: pinned, which a GPU reads and writes over its
/// bus. Zero at first. Whoever uses it on the host waits for the device first.
class SharedMemory {
 public:
  SharedMemory() = default;
  SharedMemory(DeviceApi& device, std::size_t bytes) : memory_(std::make_unique<Pinned<std::byte>>(device, bytes)) {
    std::memset(memory_->data(), 0, bytes);
  }

  [[nodiscard]] std::byte* data() const { return memory_ == nullptr ? nullptr : memory_->data(); }
  [[nodiscard]] std::size_t bytes() const { return memory_ == nullptr ? 0 : memory_->size(); }
  template <class T>
  [[nodiscard]] View<T> as() const {
    return {reinterpret_cast<T*>(data()), bytes() / sizeof(T)};
  }

 private:
  std::unique_ptr<Pinned<std::byte>> memory_;
};

}  // namespace lockstep::testing
