#pragma once

// One test body over every kind of device: INSTANTIATE_TEST_SUITE_P(x, Suite, all_places(), place_name).

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "kernels/cuda_loader.hpp"
#include "kernels/emu/emu_device.hpp"
#include "kernels/table.hpp"

namespace lockstep::testing {

/// A kind of device with its kernels.
struct TestPlace {
  enum class Kind { cpu, emulated, cuda };
  Kind kind = Kind::cpu;

  [[nodiscard]] bool immediate() const { return kind == Kind::cpu; }
  [[nodiscard]] bool emulated() const { return kind == Kind::emulated; }
  [[nodiscard]] std::string name() const {
    return kind == Kind::cpu ? "cpu" : kind == Kind::emulated ? "emulated" : "cuda";
  }
  [[nodiscard]] const KernelTable& kernels() const {
    if (kind == Kind::cpu) return kernels::cpu_table();
    return kind == Kind::emulated ? kernels::emulated_table() : *load_cuda_module().table;
  }
  /// `seed` draws the order in which an emulated device works.
  [[nodiscard]] std::unique_ptr<DeviceApi> make_device(std::uint64_t seed = 1) const {
    if (kind == Kind::cpu) return make_cpu_device();
    return kind == Kind::emulated ? make_emulated_device(seed) : load_cuda_module().make_device(0);
  }
  /// Where the emulator's speed matters: fewer steps there.
  [[nodiscard]] std::int64_t steps(std::int64_t wanted, std::int64_t on_emulator) const {
    return emulated() ? std::min(wanted, on_emulator) : wanted;
  }
};

inline void PrintTo(const TestPlace& place, std::ostream* out) { *out << place.name(); }

inline constexpr TestPlace cpu_place = {TestPlace::Kind::cpu}, emulated_place = {TestPlace::Kind::emulated},
                           cuda_place = {TestPlace::Kind::cuda};
[[nodiscard]] inline auto all_places() { return ::testing::Values(cpu_place, emulated_place, cuda_place); }
/// Those whose work is put off.
[[nodiscard]] inline auto devices() { return ::testing::Values(emulated_place, cuda_place); }
[[nodiscard]] inline std::string place_name(const ::testing::TestParamInfo<TestPlace>& info) {
  return info.param.name();
}

/// Why there is no GPU to test on; empty if there is one.
[[nodiscard]] inline const std::string& why_no_cuda() {
  static const std::string why = []() -> std::string {
    try {
      (void)load_cuda_module();
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }();
  return why;
}

/// A fixture whose cases skip, visibly, where the machine lacks the device.
class PlaceTest : public ::testing::TestWithParam<TestPlace> {
 protected:
  void SetUp() override {
    if (GetParam().kind == TestPlace::Kind::cuda && !why_no_cuda().empty()) GTEST_SKIP() << why_no_cuda();
  }
  [[nodiscard]] static const TestPlace& place() { return GetParam(); }
};

}  // namespace lockstep::testing
