#pragma once

#include <cstddef>
#include <type_traits>

#include "core/dtype.hpp"
#include "core/host_device.hpp"

namespace lockstep {

/// Where an address can be dereferenced.
enum class Memory : std::uint8_t { host, device };

/// A non-owning run of elements. Usable in device code, unlike std::span without extra compiler flags.
template <class T>
class View {
 public:
  constexpr View() = default;
  LOCKSTEP_HOST_DEVICE constexpr View(T* data, std::size_t size) : data_(data), size_(size) {}
  /// View<T> converts to View<const T>.
  template <class U>
  requires(std::is_same_v<const U, T> && !std::is_const_v<U>) LOCKSTEP_HOST_DEVICE constexpr View(View<U> other)
      : data_(other.data()), size_(other.size()) {}

  [[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr T* data() const { return data_; }
  [[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr std::size_t size() const { return size_; }
  [[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr bool empty() const { return size_ == 0; }
  LOCKSTEP_HOST_DEVICE constexpr T& operator[](std::size_t i) const { return data_[i]; }
  [[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr T* begin() const { return data_; }
  [[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr T* end() const { return data_ + size_; }
  [[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr View subview(std::size_t offset, std::size_t count) const {
    return {data_ + offset, count};
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A run of elements whose type is known at run time: what collectives and checkpoints move.
struct Buffer {
  void* data = nullptr;
  std::size_t count = 0;  ///< elements
  DType dtype = DType::f32;
  Memory memory = Memory::host;

  [[nodiscard]] std::size_t bytes() const { return count * size_of(dtype); }
  [[nodiscard]] Buffer part(std::size_t offset, std::size_t n) const {
    return {static_cast<std::byte*>(data) + offset * size_of(dtype), n, dtype, memory};
  }
};

template <class T>
[[nodiscard]] Buffer buffer_of(View<T> view, Memory memory = Memory::host) {
  return {const_cast<std::remove_const_t<T>*>(view.data()), view.size(), dtype_of<std::remove_const_t<T>>, memory};
}

}  // namespace lockstep
