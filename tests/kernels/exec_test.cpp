#include "kernels/exec.hpp"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <string>

#include "core/error.hpp"
#include "kernels/guarded.hpp"

namespace lockstep {
namespace {

void run_out_of_memory(const Exec& /*exec*/, const CastArgs& /*args*/) {
  fail(ErrorKind::environment, "out of GPU memory: 3 GiB asked for");
}
void run_out_of_host_memory(const Exec& /*exec*/, const CastArgs& /*args*/) { throw std::bad_alloc(); }
void meet_bad_data(const Exec& /*exec*/, const CastArgs& /*args*/) { fail(ErrorKind::data, "token 70 of 63"); }
void break_a_promise(const Exec& /*exec*/, const CastArgs& /*args*/) { throw std::out_of_range("index 9"); }
void do_nothing(const Exec& /*exec*/, const CastArgs& /*args*/) {}

/// What a caller of kernels::cast meets when the table's entry is `entry`.
template <void (*entry)(const Exec&, const CastArgs&)>
std::pair<int, std::string> exit_code_of_cast() {
  KernelTable table = kernels::reference_table();
  table.cast = &kernels::guarded<CastArgs, entry>;
  float x = 0;
  try {
    kernels::cast({.table = &table}, {&x, DType::f32, &x, DType::f32, 1});
  } catch (const Error& error) {
    return {exit_code(error.kind()), error.what()};
  }
  return {0, ""};
}

using Met = std::pair<int, std::string>;

TEST(KernelErrors, KeepTheirKindAndTextAcrossTheTable) {
  EXPECT_EQ(exit_code_of_cast<run_out_of_memory>(), Met(8, "out of GPU memory: 3 GiB asked for"));
  EXPECT_EQ(exit_code_of_cast<meet_bad_data>(), Met(3, "token 70 of 63"));
  EXPECT_EQ(exit_code_of_cast<break_a_promise>(), Met(1, "index 9"));
  EXPECT_EQ(exit_code_of_cast<do_nothing>(), Met(0, ""));
}

TEST(KernelErrors, ExhaustedHostMemoryIsTheEnvironments) {
  const Met met = exit_code_of_cast<run_out_of_host_memory>();
  EXPECT_EQ(met.first, 8);
  EXPECT_NE(met.second.find("out of host memory"), std::string::npos) << met.second;
}

}  // namespace
}  // namespace lockstep
