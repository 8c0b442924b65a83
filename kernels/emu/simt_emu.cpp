#include "kernels/emu/simt_emu.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "core/error.hpp"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

// Switches stacks, saving only the registers that a callee must keep (System V, x86-64).
extern "C" void lockstep_simt_switch(void** save_stack, void* load_stack);
#if !defined(__x86_64__)
#error "the SIMT emulator switches stacks with x86-64 instructions"
#endif
asm(R"(
.text
.local lockstep_simt_switch
.type lockstep_simt_switch,@function
lockstep_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size lockstep_simt_switch,.-lockstep_simt_switch
)");

namespace lockstep::simt {
namespace {

constexpr std::size_t stack_bytes = 128 * 1024;
constexpr std::size_t page = 4096;
constexpr unsigned lanes_per_warp = 32;
constexpr std::uint64_t poison = ~std::uint64_t{0};  ///< NaN as a floating-point number, -1 as an integer

enum class Wait : std::uint8_t { none, barrier, warp, done };

struct Fiber {
  void* sp = nullptr;
  unsigned char* stack = nullptr;
  Uint3 thread;
  unsigned linear = 0, lane = 0, warp = 0;
  Wait wait = Wait::none;
  // The warp operation it waits in.
  WarpOp op{};
  std::uint32_t mask = 0;
  std::uint64_t value = 0, result = 0;
  int argument = 0, width = 32;
  Where where;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#endif
#if defined(__SANITIZE_THREAD__)
  void* tsan = nullptr;
#endif
};

struct SharedArray {
  const void* declaration;
  std::size_t bytes;
  void* data;
};

bool is_in(std::uint32_t mask, unsigned lane) { return ((mask >> lane) & 1U) != 0; }

/// Which lane's value a shuffle gives to `lane`; may name a lane that does not take part.
int source_lane(const Fiber& fiber) {
  const int lane = static_cast<int>(fiber.lane), width = fiber.width, argument = fiber.argument;
  const int base = lane & ~(width - 1);
  switch (fiber.op) {
    case WarpOp::shfl:
      return base + (argument & (width - 1));
    case WarpOp::shfl_up:
      return lane - argument < base ? lane : lane - argument;
    case WarpOp::shfl_down:
      return lane + argument >= base + width ? lane : lane + argument;
    case WarpOp::shfl_xor:
      return (lane ^ argument) >= base + width ? lane : lane ^ argument;
    default:
      return lane;
  }
}

void check_limit(const char* what, std::uint64_t value, std::uint64_t limit, Where place) {
  if (value > limit)
    fail(ErrorKind::internal, "emulator: the kernel launched at {}:{} has {} of {}; devices allow {}", place.file,
         place.line, what, value, limit);
}

void check_limits(Dim3 grid, Dim3 block, std::size_t dynamic_shared, Where place) {
  namespace limits = device_limits;
  check_limit("a grid.x", grid.x, limits::grid_x, place);
  check_limit("a grid.y", grid.y, limits::grid_y, place);
  check_limit("a grid.z", grid.z, limits::grid_z, place);
  check_limit("a block.x", block.x, limits::block_x, place);
  check_limit("a block.y", block.y, limits::block_y, place);
  check_limit("a block.z", block.z, limits::block_z, place);
  check_limit("a number of threads a block", std::uint64_t{block.x} * block.y * block.z, limits::block_threads, place);
  check_limit("a dynamic shared memory (bytes)", dynamic_shared, limits::shared_bytes, place);
  if (std::uint64_t{grid.x} * grid.y * grid.z == 0 || std::uint64_t{block.x} * block.y * block.z == 0)
    fail(ErrorKind::internal,
         "emulator: the kernel launched at {}:{} has an empty grid ({}, {}, {}) or block ({}, {}, {})", place.file,
         place.line, grid.x, grid.y, grid.z, block.x, block.y, block.z);
}

std::string describe(const Fiber& fiber) {
  switch (fiber.wait) {
    case Wait::none:
      return "running";
    case Wait::done:
      return "returned";
    case Wait::barrier:
      return fmt::format("__syncthreads at line {}", fiber.where.line);
    case Wait::warp:
      return fmt::format("warp operation with mask {:#x} at line {}", fiber.mask, fiber.where.line);
  }
  return "";
}

}  // namespace

struct Machine::State {
  std::vector<Fiber> fibers;
  std::vector<SharedArray> shared;
  std::size_t shared_bytes = 0;  ///< of the running block, dynamic memory included
  Where launch;
  const std::function<void()>* kernel = nullptr;
  Fiber* current = nullptr;
  void* main_sp = nullptr;
  unsigned threads = 0;
  std::exception_ptr error;
#if defined(__SANITIZE_ADDRESS__)
  const void* main_bottom = nullptr;
  std::size_t main_size = 0;
  void* main_fake = nullptr;
#endif
#if defined(__SANITIZE_THREAD__)
  void* main_tsan = nullptr;
#endif

  ~State() {
    clear_shared();
    for (const Fiber& fiber : fibers) {
      forget_frames(fiber);
      munmap(fiber.stack, stack_bytes);
#if defined(__SANITIZE_THREAD__)
      __tsan_destroy_fiber(fiber.tsan);
#endif
    }
  }

  void clear_shared() {
    for (const SharedArray& array : shared) std::free(array.data);
    shared.clear();
  }

  void make_fibers(unsigned count) {
    while (fibers.size() < count) {
      void* stack =
          mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (stack == MAP_FAILED) fail(ErrorKind::environment, "emulator: no memory for the stack of a thread");
      mprotect(stack, page, PROT_NONE);  // so that an overflow faults
      Fiber fiber;
      fiber.stack = static_cast<unsigned char*>(stack);
#if defined(__SANITIZE_THREAD__)
      fiber.tsan = __tsan_create_fiber(0);
#endif
      fibers.push_back(fiber);
    }
  }

  /// The frames of the thread that had the stack before never returned: their red zones are still there, and would be
  /// for whoever gets the memory next.
  static void forget_frames([[maybe_unused]] const Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
    if (fiber.sp == nullptr) return;
    auto* const last = static_cast<unsigned char*>(fiber.sp);
    ASAN_UNPOISON_MEMORY_REGION(last, static_cast<std::size_t>(fiber.stack + stack_bytes - last));
#endif
  }

  void prepare(unsigned index, Dim3 block, void (*start)()) {
    Fiber& fiber = fibers[index];
    fiber.linear = index;
    fiber.lane = index % lanes_per_warp;
    fiber.warp = index / lanes_per_warp;
    fiber.wait = Wait::none;
    fiber.thread = {index % block.x, index / block.x % block.y, index / block.x / block.y};
    forget_frames(fiber);
    auto* top = reinterpret_cast<void**>(fiber.stack + stack_bytes);
    *--top = nullptr;  // leaves the stack pointer at 8 modulo 16 on entry, as after a call
    *--top = reinterpret_cast<void*>(start);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    fiber.sp = top;
  }

  void resume(Fiber& fiber) {
    current = &fiber;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&main_fake, fiber.stack + page, stack_bytes - page);
#endif
#if defined(__SANITIZE_THREAD__)
    main_tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber.tsan, 0);
#endif
    lockstep_simt_switch(&main_sp, fiber.sp);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(main_fake, nullptr, nullptr);
#endif
  }

  void yield([[maybe_unused]] bool dying) {
    Fiber* fiber = current;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(dying ? nullptr : &fiber->fake_stack, main_bottom, main_size);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(main_tsan, 0);
#endif
    lockstep_simt_switch(&fiber->sp, main_sp);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber->fake_stack, &main_bottom, &main_size);
#endif
  }

  [[noreturn]] void report(const char* what, Uint3 block) const {
    std::string text = fmt::format("emulator: {} in block ({}, {}, {}):", what, block.x, block.y, block.z);
    for (unsigned from = 0; from < threads;) {
      const std::string place = describe(fibers[from]);
      unsigned to = from + 1;
      while (to < threads && describe(fibers[to]) == place) ++to;
      text += fmt::format("\n  threads {}-{}: {}", from, to - 1, place);
      from = to;
    }
    throw Error(ErrorKind::internal, text);
  }

  /// Finishes the warp operation of `me` if every lane of its mask has arrived.
  bool complete_warp_op(const Fiber& me) {
    Fiber* warp = &fibers[std::size_t{me.warp} * lanes_per_warp];
    const unsigned lanes = std::min(lanes_per_warp, threads - me.warp * lanes_per_warp);
    std::uint32_t mask = me.mask;
    if (lanes < lanes_per_warp) mask &= (1U << lanes) - 1U;  // lanes past the block's end do not exist
    std::uint32_t ballot = 0;
    for (unsigned l = 0; l < lanes; ++l) {
      if (!is_in(mask, l)) continue;
      if (warp[l].wait != Wait::warp || warp[l].mask != me.mask || warp[l].op != me.op) return false;
      if (warp[l].value != 0) ballot |= 1U << l;
    }
    for (unsigned l = 0; l < lanes; ++l) {
      if (!is_in(mask, l)) continue;
      const int source = source_lane(warp[l]);
      if (me.op == WarpOp::ballot)
        warp[l].result = ballot;
      else if (source >= 0 && source < static_cast<int>(lanes) && is_in(mask, static_cast<unsigned>(source)))
        warp[l].result = warp[source].value;
      else
        warp[l].result = poison;  // undefined on a GPU
    }
    for (unsigned l = 0; l < lanes; ++l)
      if (is_in(mask, l)) warp[l].wait = Wait::none;
    return true;
  }
};

Machine::Machine() : state_(new State) {}
Machine::~Machine() { delete state_; }

Machine& Machine::here() {
  static thread_local Machine machine;
  return machine;
}

ScopedOrder::ScopedOrder(std::uint64_t order) : before_(Machine::here().order) { Machine::here().order = order; }
ScopedOrder::~ScopedOrder() { Machine::here().order = before_; }

void Machine::entry() {
  Machine& machine = here();
  State& state = *machine.state_;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &state.main_bottom, &state.main_size);
#endif
  try {
    (*state.kernel)();
  } catch (...) {
    if (!state.error) state.error = std::current_exception();
  }
  state.current->wait = Wait::done;
  state.yield(true);
  std::abort();
}

void* Machine::shared(const void* declaration, std::size_t bytes) {
  for (const SharedArray& array : state_->shared)
    if (array.declaration == declaration) return array.data;
  state_->shared_bytes += bytes;
  check_limit("static and dynamic shared memory (bytes)", state_->shared_bytes, device_limits::shared_bytes,
              state_->launch);
  void* data = std::malloc(bytes);
  if (data == nullptr) fail(ErrorKind::environment, "emulator: no memory for a shared array of {} bytes", bytes);
  std::memset(data, 0xFF, bytes);
  state_->shared.push_back({declaration, bytes, data});
  return data;
}

void Machine::barrier(Where where) {
  state_->current->wait = Wait::barrier;
  state_->current->where = where;
  state_->yield(false);
}

std::uint64_t Machine::warp_op(WarpOp op, std::uint32_t mask, std::uint64_t value, int argument, int width,
                               Where where) {
  Fiber& me = *state_->current;
  if (!is_in(mask, me.lane))
    fail(ErrorKind::internal, "emulator: thread {} is not in its own mask {:#x} at {}:{}", me.linear, mask, where.file,
         where.line);
  me.op = op;
  me.mask = mask;
  me.value = value;
  me.argument = argument;
  me.width = width;
  me.where = where;
  me.wait = Wait::warp;
  if (!state_->complete_warp_op(me)) state_->yield(false);  // the last one to arrive goes on at once
  return me.result;
}

void Machine::run(Dim3 grid, Dim3 block, std::size_t dynamic_shared, Where place, const std::function<void()>& kernel) {
  check_limits(grid, block, dynamic_shared, place);
  State& state = *state_;
  state.launch = place;
  const unsigned threads = block.x * block.y * block.z;
  const std::size_t blocks = std::size_t{grid.x} * grid.y * grid.z;
  registers_.block_size = block;
  registers_.grid_size = grid;
  state.kernel = &kernel;
  state.threads = threads;
  state.make_fibers(threads);

  std::mt19937_64 random(order);
  const bool is_random = order != forward_order && order != reverse_order;
  std::vector<std::size_t> block_order(blocks);
  std::vector<unsigned> lane_order(lanes_per_warp), warp_order((threads + lanes_per_warp - 1) / lanes_per_warp);
  std::iota(block_order.begin(), block_order.end(), std::size_t{0});
  std::iota(lane_order.begin(), lane_order.end(), 0U);
  std::iota(warp_order.begin(), warp_order.end(), 0U);
  if (order == reverse_order) {
    std::reverse(block_order.begin(), block_order.end());
    std::reverse(lane_order.begin(), lane_order.end());
    std::reverse(warp_order.begin(), warp_order.end());
  }
  if (is_random) std::shuffle(block_order.begin(), block_order.end(), random);

  // Runs every thread as far as it gets; true when all have returned.
  const auto turn = [&] {
    bool ran = false;
    for (const unsigned warp : warp_order) {
      for (bool more = true; more;) {
        more = false;
        for (const unsigned lane : lane_order) {
          const unsigned index = warp * lanes_per_warp + lane;
          if (index >= threads || state.fibers[index].wait != Wait::none) continue;
          registers_.thread = state.fibers[index].thread;
          ++switches;
          state.resume(state.fibers[index]);
          ran = more = true;
          if (state.error) std::rethrow_exception(std::exchange(state.error, nullptr));
        }
      }
    }
    unsigned done = 0, at_barrier = 0;
    for (unsigned i = 0; i < threads; ++i) {
      done += state.fibers[i].wait == Wait::done ? 1 : 0;
      at_barrier += state.fibers[i].wait == Wait::barrier ? 1 : 0;
    }
    if (done == threads) return true;
    if (at_barrier + done == threads) {
      if (done != 0) state.report("__syncthreads after other threads have returned", registers_.block);
      for (unsigned i = 0; i < threads; ++i) state.fibers[i].wait = Wait::none;
    } else if (!ran) {
      state.report("divergent barriers or warp operations: nobody can go on", registers_.block);
    }
    return false;
  };

  for (const std::size_t b : block_order) {
    registers_.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                        static_cast<unsigned>(b / grid.x / grid.y)};
    state.clear_shared();
    state.shared_bytes = dynamic_shared;
    void* dynamic = dynamic_shared > 0 ? std::malloc(dynamic_shared) : nullptr;
    if (dynamic != nullptr) std::memset(dynamic, 0xFF, dynamic_shared);
    const std::unique_ptr<void, decltype(&std::free)> owner(dynamic, &std::free);
    dynamic_ = dynamic;
    for (unsigned i = 0; i < threads; ++i) state.prepare(i, block, &Machine::entry);
    do {
      if (is_random) {
        std::shuffle(warp_order.begin(), warp_order.end(), random);
        std::shuffle(lane_order.begin(), lane_order.end(), random);
      }
    } while (!turn());
  }
  state.clear_shared();
  dynamic_ = nullptr;
}

}  // namespace lockstep::simt
