#pragma once

// A small SIMT emulator: .cu kernels compile with plain g++ and run on the CPU, one block at a time, each thread of the
// block a fiber that switches only at barriers and warp operations.
//
// It finds, without a GPU: wrong indices and tails, accesses out of bounds (ASan: global buffers and shared arrays are
// heap blocks), misaligned vector accesses (UBSan), missing barriers (threads run in adversarial orders, shared memory
// is poisoned), divergent barriers and shuffles (reported with their places), wrong masks, launches that every device
// refuses (device_limits).
// It does not find: speed, registers, memory-model effects between two barriers, races between blocks.

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

#include "kernels/emu/emu_device.hpp"
#include "kernels/emu/machine_order.hpp"
#include "kernels/exec.hpp"

namespace lockstep::simt {

struct Uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr Dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

enum class WarpOp : std::uint8_t { shfl, shfl_up, shfl_down, shfl_xor, ballot, sync };

/// The caller's place.
struct Where {
  const char* file = "";
  int line = 0;
  static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

/// What every device of compute capability 8.0 and newer has; a launch beyond it fails there, and so it does here.
namespace device_limits {
inline constexpr std::uint64_t grid_x = 0x7fffffff;
inline constexpr std::uint64_t grid_y = 65535;
inline constexpr std::uint64_t grid_z = 65535;
inline constexpr std::uint64_t block_x = 1024;
inline constexpr std::uint64_t block_y = 1024;
inline constexpr std::uint64_t block_z = 64;
inline constexpr std::uint64_t block_threads = 1024;
inline constexpr std::uint64_t shared_bytes = 48 * 1024;  ///< static and dynamic, without an opt-in
}  // namespace device_limits

/// What a kernel sees of the thread that is running.
struct Registers {
  Uint3 thread, block;
  Dim3 block_size, grid_size;
};

/// The emulated multiprocessor of the calling host thread: ranks that are threads emulate side by side.
class Machine {
 public:
  [[nodiscard]] static Machine& here();

  /// In which order a block's warps and lanes, and a grid's blocks, get their turns: forward_order, reverse_order or
  /// the seed of a random one. Each warp runs as far ahead as it can before the next one moves: fair orders hide races.
  std::uint64_t order = forward_order;
  std::uint64_t switches = 0;  ///< fibers resumed so far

  /// Runs a whole grid that was launched at `place`. Throws ErrorKind::internal: with the place, the limit and the
  /// value for what no device would launch; with the places where threads stand if they cannot go on.
  void run(Dim3 grid, Dim3 block, std::size_t dynamic_shared, Where place, const std::function<void()>& kernel);

  [[nodiscard]] const Registers& registers() const { return registers_; }
  /// The running block's array of a LOCKSTEP_SHARED declaration, poisoned with NaN bits when the block starts.
  [[nodiscard]] void* shared(const void* declaration, std::size_t bytes);
  [[nodiscard]] void* dynamic_shared() const { return dynamic_; }
  void barrier(Where where);
  [[nodiscard]] std::uint64_t warp_op(WarpOp op, std::uint32_t mask, std::uint64_t value, int argument, int width,
                                      Where where);

  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  ~Machine();

 private:
  struct State;
  Machine();
  static void entry();

  Registers registers_;
  void* dynamic_ = nullptr;
  State* state_;
};

template <class T>
requires(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>) std::uint64_t to_bits(T value) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace lockstep::simt

// CUDA's words.
#define __global__ static
#define __device__
#define __host__
#define __shared__ lockstep_use_LOCKSTEP_SHARED_instead
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define threadIdx (::lockstep::simt::Machine::here().registers().thread)
#define blockIdx (::lockstep::simt::Machine::here().registers().block)
#define blockDim (::lockstep::simt::Machine::here().registers().block_size)
#define gridDim (::lockstep::simt::Machine::here().registers().grid_size)
#define LOCKSTEP_SHARED(T, name, ...)       \
  using name##_type = T __VA_ARGS__;        \
  static const char name##_declaration = 0; \
  auto& name =                              \
      *static_cast<name##_type*>(::lockstep::simt::Machine::here().shared(&name##_declaration, sizeof(name##_type)))
#define LOCKSTEP_DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(::lockstep::simt::Machine::here().dynamic_shared())

namespace lockstep {

using dim3 = simt::Dim3;
using uint3 = simt::Uint3;

/// An Exec with the place of the launch that it is given to.
struct LaunchExec {
  const Exec& exec;
  simt::Where place;
  LaunchExec(const Exec& exec_, simt::Where place_ = simt::Where::here()) : exec(exec_), place(place_) {}
};

/// Runs the kernel at once, or puts it in stream order on an EmuDevice; its arguments are copied.
template <class... Parameters, class... Args>
void launch(LaunchExec at, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared,
            Args&&... args) {
  kernels::run_in_stream_order(
      at.exec,
      [=, place = at.place, values = std::tuple<std::decay_t<Parameters>...>(static_cast<Parameters>(args)...)] {
        simt::Machine::here().run(grid, block, dynamic_shared, place, [&] { std::apply(kernel, values); });
      });
}

// CUDA's device functions that kernels use. Names and meanings are CUDA's; found from every namespace below lockstep.

inline void __syncthreads(simt::Where where = simt::Where::here()) { simt::Machine::here().barrier(where); }
inline void __syncwarp(unsigned mask = 0xffffffffU, simt::Where where = simt::Where::here()) {
  (void)simt::Machine::here().warp_op(simt::WarpOp::sync, mask, 0, 0, 32, where);
}

#define LOCKSTEP_SIMT_SHUFFLE(name, op)                                                                       \
  template <class T>                                                                                          \
  T name(unsigned mask, T value, int argument, int width = 32, simt::Where where = simt::Where::here()) {     \
    return simt::from_bits<T>(                                                                                \
        simt::Machine::here().warp_op(simt::WarpOp::op, mask, simt::to_bits(value), argument, width, where)); \
  }
LOCKSTEP_SIMT_SHUFFLE(__shfl_sync, shfl)
LOCKSTEP_SIMT_SHUFFLE(__shfl_up_sync, shfl_up)
LOCKSTEP_SIMT_SHUFFLE(__shfl_down_sync, shfl_down)
LOCKSTEP_SIMT_SHUFFLE(__shfl_xor_sync, shfl_xor)
#undef LOCKSTEP_SIMT_SHUFFLE

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Where where = simt::Where::here()) {
  return static_cast<unsigned>(
      simt::Machine::here().warp_op(simt::WarpOp::ballot, mask, predicate != 0 ? 1 : 0, 0, 32, where));
}
inline int __any_sync(unsigned mask, int predicate, simt::Where where = simt::Where::here()) {
  return __ballot_sync(mask, predicate, where) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate, simt::Where where = simt::Where::here()) {
  return __ballot_sync(mask, predicate == 0 ? 1 : 0, where) == 0 ? 1 : 0;
}

template <std::integral T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  *address = static_cast<T>(old + value);
  return old;
}
template <std::integral T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  if (value > old) *address = value;
  return old;
}
template <std::integral T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  if (value < old) *address = value;
  return old;
}
template <std::integral T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  *address = static_cast<T>(old | value);
  return old;
}

template <class T>
T __ldg(const T* address) {
  return *address;
}
inline void __threadfence() {}
inline float rsqrtf(float x) { return 1.0F / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }

}  // namespace lockstep
