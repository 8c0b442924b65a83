#include "core/isa.hpp"

#include <cpuid.h>

#include <cstdlib>
#include <string>

#include "core/error.hpp"

namespace lockstep {
namespace {

Isa best_isa() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    return Isa::avx2;
  return Isa::baseline;
}

Isa choose_isa() {
  const Isa best = best_isa();
  const char* asked = std::getenv("LOCKSTEP_ISA");
  if (asked == nullptr) return best;
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (to_string(isa) != asked) continue;
    if (isa > best) fail(ErrorKind::environment, "LOCKSTEP_ISA={}: this CPU has only {}", asked, to_string(best));
    return isa;
  }
  fail(ErrorKind::environment, "LOCKSTEP_ISA={}: expected baseline, avx2 or avx512", asked);
}

}  // namespace

Isa current_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

std::string_view to_string(Isa isa) noexcept {
  switch (isa) {
    case Isa::baseline:
      return "baseline";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "?";
}

bool has_amx_bf16() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  return ((d >> 22) & 1U) != 0 && ((d >> 24) & 1U) != 0;
}

}  // namespace lockstep
