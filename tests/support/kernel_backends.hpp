#pragma once

// One test body over every implementation of a kernel: INSTANTIATE_TEST_SUITE_P(x, Suite, all_backends(),
// backend_name).

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "core/isa.hpp"
#include "kernels/attention/flash_attention.hpp"
#include "kernels/cuda_loader.hpp"
#include "kernels/emu/machine_order.hpp"
#include "kernels/guarded.hpp"
#include "kernels/table.hpp"
#include "tests/support/places.hpp"

namespace lockstep::testing {

struct Backend {
  enum class Kind { reference, cpu, emulated, cuda };
  std::string name;
  Kind kind = Kind::reference;
  Isa isa = Isa::baseline;
  bool own_attention = false;  ///< our own kernel in place of the table's (kernels/attention/flash_attention.hpp)

  /// Whether this machine can run it.
  [[nodiscard]] bool available() const {
    if (kind == Kind::cuda) return cuda_is_available();
    return kind != Kind::cpu || isa <= current_isa();
  }
  /// Where it cannot.
  [[nodiscard]] std::string why_not() const {
    return kind == Kind::cuda ? why_no_cuda() : name + " is not available on this machine";
  }
};

inline void PrintTo(const Backend& backend, std::ostream* out) { *out << backend.name; }

/// For ::testing::ValuesIn: each implementation once.
[[nodiscard]] inline std::vector<Backend> backend_list() {
  using Kind = Backend::Kind;
  return {{"reference", Kind::reference, Isa::baseline},
          {"cpu_baseline", Kind::cpu, Isa::baseline},
          {"cpu_avx2", Kind::cpu, Isa::avx2},
          {"cpu_avx512", Kind::cpu, Isa::avx512},
          {"emulated", Kind::emulated, Isa::baseline},
          {"cuda", Kind::cuda, Isa::baseline}};
}
/// The same, and our own attention wherever a table has another one.
[[nodiscard]] inline std::vector<Backend> attention_backend_list() {
  std::vector<Backend> list = backend_list();
  for (const Backend& backend : backend_list())
    if (backend.kind == Backend::Kind::emulated || backend.kind == Backend::Kind::cuda)
      list.push_back({backend.name + "_own", backend.kind, backend.isa, true});
  return list;
}

/// The emulated table with our own attention.
[[nodiscard]] inline const KernelTable& emulated_table_with_own_attention() {
  static const KernelTable result = [] {
    using namespace kernels;
    KernelTable table = emulated_table();
    table.attention_forward = &guarded<AttentionForwardArgs, &emu::flash_attention_forward>;
    table.attention_backward = &guarded<AttentionBackwardArgs, &emu::flash_attention_backward>;
    table.attention_backward_scratch = &emu::flash_attention_backward_scratch;
    return table;
  }();
  return result;
}

[[nodiscard]] inline auto all_backends() { return ::testing::ValuesIn(backend_list()); }
[[nodiscard]] inline std::string backend_name(const ::testing::TestParamInfo<Backend>& info) { return info.param.name; }

/// An Exec on a backend with what it points at. Emulated kernels run at once, on host memory.
class Session {
 public:
  explicit Session(const Backend& backend, int threads = 2) : backend_(backend) {
    switch (backend.kind) {
      case Backend::Kind::reference:
        table_ = &kernels::reference_table();
        break;
      case Backend::Kind::cpu:
        table_ = &kernels::cpu_table(backend.isa);
        break;
      case Backend::Kind::emulated:
        table_ = backend.own_attention ? &emulated_table_with_own_attention() : &kernels::emulated_table();
        break;
      case Backend::Kind::cuda:
        // Read when the context is made, below.
        if (setenv("LOCKSTEP_ATTENTION", backend.own_attention ? "own" : "auto", 1) != 0) std::abort();
        table_ = load_cuda_module().table;
        device_ = load_cuda_module().make_device(0);
        break;
    }
    if (device_ == nullptr) device_ = make_cpu_device();
    context_ = std::make_unique<kernels::Context>(*table_, *device_);
    exec_ = {table_, device_.get(), device_->make_stream(), threads, context_->get()};
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() { device_->destroy(exec_.stream); }

  [[nodiscard]] const Exec& exec() const { return exec_; }
  [[nodiscard]] DeviceApi& device() const { return *device_; }
  [[nodiscard]] bool emulated() const { return backend_.kind == Backend::Kind::emulated; }
  [[nodiscard]] bool on_gpu() const { return backend_.kind == Backend::Kind::cuda; }
  [[nodiscard]] bool is_reference() const { return backend_.kind == Backend::Kind::reference; }
  void set_threads(int threads) { exec_.threads = threads; }

 private:
  Backend backend_;
  const KernelTable* table_ = nullptr;
  std::unique_ptr<DeviceApi> device_;
  std::unique_ptr<kernels::Context> context_;
  Exec exec_;
};

/// An array in a backend's memory, filled from the host and read back.
template <class T>
class Array {
 public:
  Array(const Session& session, const std::vector<T>& values)
      : session_(session), size_(values.size()), arena_(session.device(), values.size() * sizeof(T)) {
    session.device().copy(arena_.data(), values.data(), size_ * sizeof(T), session.exec().stream);
    session.device().synchronize(session.exec().stream);
  }
  Array(const Session& session, std::size_t size) : Array(session, std::vector<T>(size)) {}

  [[nodiscard]] T* data() const { return reinterpret_cast<T*>(arena_.data()); }
  [[nodiscard]] std::size_t size() const { return size_; }
  /// After all work enqueued so far.
  [[nodiscard]] std::vector<T> host() const {
    std::vector<T> values(size_);
    session_.device().copy(values.data(), arena_.data(), size_ * sizeof(T), session_.exec().stream);
    session_.device().synchronize(session_.exec().stream);
    return values;
  }

 private:
  const Session& session_;
  std::size_t size_;
  Arena arena_;
};

/// Runs a kernel that needs scratch with as much as its table asks for; none at all where that is nothing.
template <class Args>
void run_with_scratch(const Session& session, void (*kernel)(const Exec&, const Args&), Args args) {
  const Array<std::byte> scratch(session, kernels::scratch_bytes(session.exec(), args));
  if (scratch.size() > 0) args.scratch = scratch.data();
  kernel(session.exec(), args);
  session.device().synchronize(session.exec().stream);
}

/// Runs `body` once; on the emulator under several thread orders, and then calls `same` with every later result and
/// the first one: emulated results must not depend on the order.
template <class Body, class Same>
void under_thread_orders(const Session& session, const Body& body, const Same& same) {
  const auto first = body();
  if (!session.emulated()) return;
  for (const std::uint64_t seed : {simt::reverse_order, std::uint64_t{1}, std::uint64_t{2}}) {
    const simt::ScopedOrder order(seed);
    same(body(), first);
  }
}

/// A fixture whose cases skip, visibly, where the machine cannot run the backend.
class KernelTest : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    if (!GetParam().available()) GTEST_SKIP() << GetParam().why_not();
    session_ = std::make_unique<Session>(GetParam());
  }
  [[nodiscard]] Session& session() const { return *session_; }
  [[nodiscard]] const Exec& exec() const { return session_->exec(); }

 private:
  std::unique_ptr<Session> session_;
};

}  // namespace lockstep::testing
