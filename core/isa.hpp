#pragma once

#include <string_view>

namespace lockstep {

/// Instruction sets that the hot CPU files are compiled for; one portable binary picks at run time.
enum class Isa { baseline, avx2, avx512 };

/// The best one this CPU has, or what the environment variable LOCKSTEP_ISA (baseline | avx2 | avx512) asks for if
/// the CPU has it; ErrorKind::environment if it does not.
[[nodiscard]] Isa current_isa();
[[nodiscard]] std::string_view to_string(Isa isa) noexcept;

/// Whether the CPU multiplies bf16 tiles (AMX): then a library's bf16 GEMM is several times its fp32 one.
[[nodiscard]] bool has_amx_bf16() noexcept;

}  // namespace lockstep
