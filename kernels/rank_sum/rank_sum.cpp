#include "kernels/rank_sum/rank_sum.hpp"

#include "core/error.hpp"
#include "core/isa.hpp"

namespace lockstep::kernels {

namespace cpu_baseline {
void rank_sum(const RankSumArgs& args);
}
namespace cpu_avx2 {
void rank_sum(const RankSumArgs& args);
}
namespace cpu_avx512 {
void rank_sum(const RankSumArgs& args);
}

void rank_sum(const RankSumArgs& args) {
  require(args.source_count > 0 && args.source_count <= rank_sum_sources, "rank_sum: 1 to 64 sources");
  switch (current_isa()) {
    case Isa::avx512:
      return cpu_avx512::rank_sum(args);
    case Isa::avx2:
      return cpu_avx2::rank_sum(args);
    case Isa::baseline:
      return cpu_baseline::rank_sum(args);
  }
}

}  // namespace lockstep::kernels
