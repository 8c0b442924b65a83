#pragma once

#include <string>
#include <string_view>

namespace lockstep {

/// Instruction sets that the hot CPU files are compiled for; one portable binary picks at run time.
enum class Isa { baseline, avx2, avx512 };

/// The best one this CPU has, or what the environment variable LOCKSTEP_ISA (baseline | avx2 | avx512) asks for if
/// the CPU has it; ErrorKind::environment if it does not.
[[nodiscard]] Isa current_isa();
[[nodiscard]] std::string_view to_string(Isa isa) noexcept;

/// What multiplies matrices of bf16 on a CPU. Sums are fp32 with each of them.
enum class Bf16Products {
  widened,  ///< fp32 instructions on widened operands
  dot,      ///< AVX512_BF16: dot products of pairs, two multiplications a lane and instruction
  tiles,    ///< AMX
};
[[nodiscard]] std::string_view to_string(Bf16Products products) noexcept;
/// What a user may expect of bf16 with it, as a part of a sentence about "bf16 products".
[[nodiscard]] std::string_view expectation(Bf16Products products) noexcept;

/// What decides about bf16 products.
struct Bf16Features {
  Isa isa = Isa::baseline;
  bool avx512_bf16 = false;
  bool amx_bf16 = false;
  bool amd = false;  ///< the CPU's vendor
};
/// The fastest way. Having AVX512_BF16 is not enough: AMD's cores start as many vdpbf16ps a cycle as fp32
/// multiply-adds, so twice the products, while a Xeon with AMX was measured to need four times as long for one
/// (docs/cpu.md), half the products. By vendor rather than by a clock, because bits depend on the answer.
[[nodiscard]] Bf16Products fastest_bf16_products(const Bf16Features& features) noexcept;

/// The fastest way on this CPU with current_isa(), or what the environment variable LOCKSTEP_BF16 (widened | dot |
/// tiles) asks for; ErrorKind::environment if the CPU, or LOCKSTEP_ISA, does not have it.
[[nodiscard]] Bf16Products current_bf16_products();

/// What bits depend on besides the build, for a run's records: "avx512"; where products of bf16 are computed as such
/// and not always widened, "avx512, bf16 products tiles".
[[nodiscard]] std::string isa_for_bits(bool bf16_products);

/// Whether bf16 is multiplied in tiles: then a library's bf16 GEMM is several times its fp32 one.
[[nodiscard]] bool has_amx_bf16();

}  // namespace lockstep
