#include "kernels/table.hpp"

#include <string>

#include "core/isa.hpp"
#include "kernels/guarded.hpp"

namespace lockstep::kernels {

namespace cpu_baseline {
const KernelTable& table();
}
namespace cpu_avx2 {
const KernelTable& table();
}
namespace cpu_avx512 {
const KernelTable& table();
}

const KernelTable& cpu_table(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return cpu_avx512::table();
    case Isa::avx2:
      return cpu_avx2::table();
    case Isa::baseline:
      break;
  }
  return cpu_baseline::table();
}

const KernelTable& cpu_table() { return cpu_table(current_isa()); }

const char* keep_error(const char* text) noexcept {
  static thread_local std::string kept;
  try {
    kept = text;
  } catch (...) {
    return "a kernel failed, and memory for its message is exhausted";
  }
  return kept.c_str();
}

}  // namespace lockstep::kernels
