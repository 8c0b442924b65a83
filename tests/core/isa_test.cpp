#include "core/isa.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

namespace lockstep {
namespace {

TEST(Bf16ProductsOf, AreTilesWhereThereIsAmx) {
  EXPECT_EQ(fastest_bf16_products({.isa = Isa::avx512, .avx512_bf16 = true, .amx_bf16 = true}), Bf16Products::tiles);
}

TEST(Bf16ProductsOf, AreDotProductsOnlyWhereThoseAreFasterThanMultiplyAdds) {
  EXPECT_EQ(fastest_bf16_products({.isa = Isa::avx512, .avx512_bf16 = true, .amd = true}), Bf16Products::dot);
  EXPECT_EQ(fastest_bf16_products({.isa = Isa::avx512, .avx512_bf16 = true}), Bf16Products::widened);
  EXPECT_EQ(fastest_bf16_products({.isa = Isa::avx512, .amd = true}), Bf16Products::widened);
}

TEST(Bf16ProductsOf, AreWidenedBelowAvx512) {
  for (const Isa isa : {Isa::baseline, Isa::avx2})
    EXPECT_EQ(fastest_bf16_products({.isa = isa, .avx512_bf16 = true, .amx_bf16 = true, .amd = true}),
              Bf16Products::widened);
}

TEST(Bf16ProductsOf, ThisCpuAreOfItsInstructionSet) {
  if (std::getenv("LOCKSTEP_BF16") != nullptr) GTEST_SKIP() << "LOCKSTEP_BF16 asks for a way";
  if (current_isa() != Isa::avx512) {
    EXPECT_EQ(current_bf16_products(), Bf16Products::widened);
  }
  EXPECT_EQ(has_amx_bf16(), current_bf16_products() == Bf16Products::tiles);
}

}  // namespace
}  // namespace lockstep
