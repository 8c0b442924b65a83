#include "run/fault.hpp"

#include <gtest/gtest.h>

#include "tests/support/error_text.hpp"

namespace lockstep::run {
namespace {

using testing::error_text;

TEST(Faults, AreNoneUnlessAskedFor) {
  EXPECT_TRUE(Faults().all().empty());
  EXPECT_TRUE(Faults("").all().empty());
}

TEST(Faults, AreReadWithKindRankStepAndPoint) {
  const Faults faults("kill@rank1:step37,stop@rank0:step2:end,sleep=1.5@rank2:step3:save,kill@rank0:step4:commit");

  const std::vector<Fault> expected = {{.kind = FaultKind::kill, .rank = 1, .step = 37},
                                       {.kind = FaultKind::stop, .rank = 0, .step = 2, .point = FaultPoint::end},
                                       {.kind = FaultKind::sleep,
                                        .rank = 2,
                                        .step = 3,
                                        .point = FaultPoint::save,
                                        .seconds = std::chrono::duration<double>(1.5)},
                                       {.kind = FaultKind::kill, .rank = 0, .step = 4, .point = FaultPoint::commit}};
  EXPECT_EQ(faults.all(), expected);
}

TEST(Faults, ThatAreMalformedAreRefusedWithWhatIsUnderstood) {
  for (const char* text :
       {"kill", "kill@rank1", "kill@rank1:step0", "kill@rank-1:step1", "kill@rank1:step1:never", "kill@rank:step",
        "burn@rank1:step1", "sleep@rank1:step1", "kill=3@rank1:step1", "sleep=x@rank1:step1", "sleep=-1@rank1:step1",
        "kill@rank1:step1:commit", "flip@rank0:step1:save", "kill@rank1:step1x", "kill@rank1:step1,,stop@rank0:step1"})
    EXPECT_NE(error_text(ErrorKind::config, [&] { (void)Faults(text); }).find("KIND@rankR:stepS[:POINT]"),
              std::string::npos)
        << text;
}

}  // namespace
}  // namespace lockstep::run
