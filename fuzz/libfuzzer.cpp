// What libFuzzer calls: one program a target, named by LOCKSTEP_FUZZ_TARGET. An exception that leaves the target ends
// the program, which libFuzzer keeps the input of.

#include <cstddef>
#include <cstdint>

#include "fuzz/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const lockstep::fuzz::Target& target = lockstep::fuzz::target(LOCKSTEP_FUZZ_TARGET);
  target.run({reinterpret_cast<const char*>(data), size});
  return 0;
}
