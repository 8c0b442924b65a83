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

Bf16Features bf16_features() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  Bf16Features features{.isa = current_isa(), .amd = __builtin_cpu_is("amd") != 0};
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) features.amx_bf16 = ((d >> 22) & 1U) != 0 && ((d >> 24) & 1U) != 0;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) features.avx512_bf16 = ((a >> 5) & 1U) != 0;
  return features;
}

Bf16Products choose_bf16_products() {
  const Bf16Features features = bf16_features();
  const char* asked = std::getenv("LOCKSTEP_BF16");
  if (asked == nullptr) return fastest_bf16_products(features);
  for (const Bf16Products products : {Bf16Products::widened, Bf16Products::dot, Bf16Products::tiles}) {
    if (to_string(products) != asked) continue;
    const bool there =
        products == Bf16Products::widened ||
        (features.isa == Isa::avx512 && (products == Bf16Products::dot ? features.avx512_bf16 : features.amx_bf16));
    if (!there)
      fail(ErrorKind::environment, "LOCKSTEP_BF16={}: this CPU, with {}, does not have it; the fastest way here is {}",
           asked, to_string(features.isa), to_string(fastest_bf16_products(features)));
    return products;
  }
  fail(ErrorKind::environment, "LOCKSTEP_BF16={}: expected widened, dot or tiles", asked);
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

std::string_view to_string(Bf16Products products) noexcept {
  switch (products) {
    case Bf16Products::widened:
      return "widened";
    case Bf16Products::dot:
      return "dot";
    case Bf16Products::tiles:
      return "tiles";
  }
  return "?";
}

std::string_view expectation(Bf16Products products) noexcept {
  switch (products) {
    case Bf16Products::widened:
      return "in fp32 instructions, after widening: bf16 saves memory here, not time";
    case Bf16Products::dot:
      return "with AVX512_BF16: up to twice the rate of fp32";
    case Bf16Products::tiles:
      return "in AMX tiles: several times the rate of fp32";
  }
  return "?";
}

Bf16Products fastest_bf16_products(const Bf16Features& features) noexcept {
  if (features.isa != Isa::avx512) return Bf16Products::widened;
  if (features.amx_bf16) return Bf16Products::tiles;
  return features.avx512_bf16 && features.amd ? Bf16Products::dot : Bf16Products::widened;
}

Bf16Products current_bf16_products() {
  static const Bf16Products products = choose_bf16_products();
  return products;
}

std::string isa_for_bits(bool bf16_products) {
  std::string text(to_string(current_isa()));
  if (bf16_products) text.append(", bf16 products ").append(to_string(current_bf16_products()));
  return text;
}

bool has_amx_bf16() { return current_bf16_products() == Bf16Products::tiles; }

}  // namespace lockstep
