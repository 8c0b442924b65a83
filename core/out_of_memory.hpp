#pragma once

#include <cstddef>

#include "core/device.hpp"
#include "core/error.hpp"

namespace lockstep {

/// ErrorKind::environment: a device has not the memory that was asked for. Whoever knows the job adds what would fit.
class OutOfMemory : public Error {
 public:
  /// memory: zeros where it is not known
  OutOfMemory(Memory kind, std::size_t asked, MemoryInfo memory);
  OutOfMemory(const OutOfMemory&) = default;
  OutOfMemory& operator=(const OutOfMemory&) = default;
  ~OutOfMemory() override;

  [[nodiscard]] std::size_t asked() const noexcept { return asked_; }
  [[nodiscard]] MemoryInfo memory() const noexcept { return memory_; }

 private:
  std::size_t asked_;
  MemoryInfo memory_;
};

}  // namespace lockstep
