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
  const Faults faults(
      "kill@rank1:step37,stop@rank0:step2:end,sleep=1.5@rank2:step3:save,kill@rank0:step4:commit,"
      "kill@rank1:step5:writing,enospc@rank1:step37,eio@rank0:step2:save");

  const std::vector<Fault> expected = {{.kind = FaultKind::kill, .rank = 1, .step = 37},
                                       {.kind = FaultKind::stop, .rank = 0, .step = 2, .point = FaultPoint::end},
                                       {.kind = FaultKind::sleep,
                                        .rank = 2,
                                        .step = 3,
                                        .point = FaultPoint::save,
                                        .seconds = std::chrono::duration<double>(1.5)},
                                       {.kind = FaultKind::kill, .rank = 0, .step = 4, .point = FaultPoint::commit},
                                       {.kind = FaultKind::kill, .rank = 1, .step = 5, .point = FaultPoint::writing},
                                       {.kind = FaultKind::enospc, .rank = 1, .step = 37},
                                       {.kind = FaultKind::eio, .rank = 0, .step = 2, .point = FaultPoint::save}};
  EXPECT_EQ(faults.all(), expected);
}

TEST(Faults, ThatAreMalformedAreRefusedWithWhatIsUnderstood) {
  for (const char* text :
       {"kill", "kill@rank1", "kill@rank1:step0", "kill@rank-1:step1", "kill@rank1:step1:never", "kill@rank:step",
        "burn@rank1:step1", "sleep@rank1:step1", "kill=3@rank1:step1", "sleep=x@rank1:step1", "sleep=-1@rank1:step1",
        "kill@rank1:step1:commit", "flip@rank0:step1:save", "flip@rank0:step1:writing", "eio@rank0:step1:writing",
        "kill@rank1:step1x", "kill@rank1:step1,,stop@rank0:step1"})
    EXPECT_NE(error_text(ErrorKind::config, [&] { (void)Faults(text); }).find("KIND@rankR:stepS[:POINT]"),
              std::string::npos)
        << text;
}

}  // namespace
}  // namespace lockstep::run
