#include <gtest/gtest.h>

#include "core/dtype.hpp"
#include "core/isa.hpp"
#include "tests/kernels/cpu/vector_math_cases.hpp"

#include "tests/kernels/cpu/vector_math_body.hpp"

namespace lockstep::testing {
namespace {

TEST(VectorMath, ErrorsStayWithinWhatIsPromisedOnBaseline) {
  if (current_isa() < Isa::baseline) GTEST_SKIP() << "this machine has no baseline";
  const SweepResult result = sweep();
  EXPECT_LT(result.exp_ulp, 2.0);
  EXPECT_LT(result.exp2_ulp, 2.0);
  EXPECT_LT(result.tanh_ulp, 4.0);
  EXPECT_LT(result.sigmoid2_ulp, 4.0);
  EXPECT_LT(result.reciprocal_ulp, 2.0);
  EXPECT_EQ(result.lost_nan, 0);
}

TEST(VectorMath, ConversionsAreThoseOfTheElementTypesOnBaseline) {
  if (current_isa() < Isa::baseline) GTEST_SKIP() << "this machine has no baseline";
  const ConversionResult result = convert();
  EXPECT_GT(result.checked, 1000000);
  EXPECT_EQ(result.bf16_differs, 0);
  EXPECT_EQ(result.f16_differs, 0);
  EXPECT_EQ(result.tail_differs, 0);
}

}  // namespace
}  // namespace lockstep::testing
