#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "run/launch.hpp"

namespace lockstep::run::bench {

/// What one rank's measurement works with: its kernels, a stream, and memory of the device that goes with it.
class Workbench {
 public:
  explicit Workbench(RankContext& rank);
  Workbench(const Workbench&) = delete;
  Workbench& operator=(const Workbench&) = delete;
  ~Workbench();

  [[nodiscard]] Exec exec() const;
  [[nodiscard]] StreamRef stream() const { return stream_; }
  [[nodiscard]] DeviceApi& device() const { return device_; }

  /// Zero-filled.
  template <class T>
  [[nodiscard]] T* memory(std::size_t count) {
    return reinterpret_cast<T*>(arenas_.emplace_back(device_, count * sizeof(T)).data());
  }
  /// Numbers spread evenly over (-scale, scale), the same in every run: kernels and memory of zeros alone would look
  /// better than they are.
  [[nodiscard]] void* numbers(std::size_t count, DType dtype, float scale);
  [[nodiscard]] float* numbers(std::size_t count, float scale) {
    return static_cast<float*>(numbers(count, DType::f32, scale));
  }
  template <class T>
  [[nodiscard]] T* copy_of(const std::vector<T>& values) {
    T* there = memory<T>(values.size());
    to_device(there, values.data(), values.size() * sizeof(T));
    return there;
  }

 private:
  void to_device(void* to, const void* from, std::size_t bytes);

  DeviceApi& device_;
  const KernelTable& table_;
  int threads_;
  kernels::Context context_;
  StreamRef stream_;
  std::vector<Arena> arenas_;
};

}  // namespace lockstep::run::bench
