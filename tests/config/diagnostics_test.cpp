#include "config/diagnostics.hpp"
#include "config/words.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"

namespace lockstep::config {
namespace {

TEST(Nearest, OneSlipOfTheHandIsFound) {
  const std::vector<std::string> keys = {"warmup_num_steps", "warmup_min_lr", "warmup_max_lr", "lr", "seed"};
  EXPECT_EQ(nearest("warmup_num_step", keys), "warmup_num_steps");
  EXPECT_EQ(nearest("warmup_nmu_steps", keys), "warmup_num_steps");
  EXPECT_EQ(nearest("WARMUP_MIN_LR", keys), "warmup_min_lr");
  EXPECT_EQ(nearest("sead", keys), "seed");
  EXPECT_EQ(nearest("l", keys), "lr");
  EXPECT_EQ(nearest("xy", keys), "");
  EXPECT_EQ(nearest("gradient_clipping", keys), "");
  EXPECT_EQ(nearest("x", {}), "");
}

TEST(Diagnostics, AnErrorShowsLineCaretRemedyAndAllowedValues) {
  const auto source = make_source("job.yaml", "a: 1\n  key: oops\n");
  Diagnostics diagnostics;
  diagnostics.error({source, 2, 8, 4}, "bad value", "try again", "x, y");
  EXPECT_EQ(diagnostics.render(),
            "job.yaml:2:8: error: bad value\n"
            "    2 |   key: oops\n"
            "      |        ^~~~ try again\n"
            "   allowed: x, y\n"
            "1 error");
}

TEST(Diagnostics, ErrorsAreSortedByPlaceWithinEachSource) {
  const auto job = make_source("job.yaml", "a\nb\nc\n");
  const auto other = make_source("ds.json", "x\n");
  Diagnostics diagnostics;
  diagnostics.error({job, 3, 1}, "third");
  diagnostics.error({other, 1, 1}, "fourth");
  diagnostics.error({job, 1, 1}, "first");
  diagnostics.error({job, 2, 1}, "second");
  const std::string text = diagnostics.render();
  EXPECT_LT(text.find("first"), text.find("second"));
  EXPECT_LT(text.find("second"), text.find("third"));
  EXPECT_LT(text.find("third"), text.find("fourth"));
}

TEST(Diagnostics, OneConfigErrorHoldsAllOfThem) {
  Diagnostics diagnostics;
  diagnostics.throw_if_errors();
  for (int i = 0; i < 150; ++i) diagnostics.error({make_source("f", "x"), 1, 1}, "wrong");
  try {
    diagnostics.throw_if_errors();
    FAIL() << "must throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    EXPECT_NE(std::string(error.what()).find("150 errors, the first 100 shown"), std::string::npos);
  }
}

TEST(Diagnostics, TheCaretStaysAlignedUnderTabs) {
  Diagnostics diagnostics;
  diagnostics.error({make_source("f", "\tx: 1"), 1, 2, 1}, "bad", "here");
  EXPECT_NE(diagnostics.render().find("      | \t^ here"), std::string::npos) << diagnostics.render();
}

TEST(Diagnostics, ControlBytesAreShownNotObeyed) {
  Diagnostics diagnostics;
  const auto source = make_source("job\x1b[2J.yaml", "a\tb\x1b[31m: \x07oops");
  diagnostics.error({source, 1, 11, 1}, "bad value '\x1b[31m'", "not \x07");
  EXPECT_EQ(diagnostics.render(),
            "job\\x1b[2J.yaml:1:11: error: bad value '\\x1b[31m'\n"
            "    1 | a\tb\\x1b[31m: \\x07oops\n"
            "      |  \t           ^~~~ not \\x07\n"
            "1 error");
}

TEST(Diagnostics, OfALongLineThePieceAroundThePlaceIsShown) {
  Diagnostics diagnostics;
  const std::string line = std::string(400, 'a') + "BAD" + std::string(400, 'b');
  diagnostics.error({make_source("f", line), 1, 401, 3}, "bad", "here");
  EXPECT_EQ(diagnostics.render(), "f:1:401: error: bad\n    1 | ..." + std::string(60, 'a') + "BAD" +
                                      std::string(100, 'b') + "...\n      | " + std::string(63, ' ') +
                                      "^~~ here\n1 error");
}

TEST(Diagnostics, PlacesOutsideTheSourceAreShownAsFarAsTheyGo) {
  Diagnostics diagnostics;
  diagnostics.error({make_source("f", "x"), 9, 9, 5}, "beyond the end");
  diagnostics.error({make_source("f", "x"), 1, 50, 5}, "beyond the line");
  diagnostics.error({}, "nowhere");
  EXPECT_NE(diagnostics.render().find("3 errors"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::config
