#include "core/text.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace lockstep {
namespace {

TEST(HumanBytes, HasThreeDigitsAndTheUnitThatFits) {
  EXPECT_EQ(human_bytes(0), "0 bytes");
  EXPECT_EQ(human_bytes(1023), "1023 bytes");
  EXPECT_EQ(human_bytes(1024), "1.00 KiB");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(12.34 * 1048576), "12.3 MiB");
  EXPECT_EQ(human_bytes(411991807.4 * 1048576), "393 TiB");
}

TEST(HumanBytes, ReachesTheNextUnitWhereRoundingDoes) {
  EXPECT_EQ(human_bytes(1023.4 * 1024), "1023 KiB");
  EXPECT_EQ(human_bytes(1023.6 * 1024), "1.00 MiB");
  EXPECT_EQ(human_bytes(9.999 * 1024), "10.0 KiB");
  EXPECT_EQ(human_bytes(99.97 * 1024), "100 KiB");
  EXPECT_EQ(human_bytes(std::exp2(73)), "8192 EiB") << "the last unit has no next one";
}

TEST(Counted, OneHasNoS) {
  EXPECT_EQ(counted(1, "layer"), "1 layer");
  EXPECT_EQ(counted(0, "layer"), "0 layers");
  EXPECT_EQ(counted(12, "layer"), "12 layers");
}

TEST(Printable, LeavesTextAsItIs) {
  for (const char* text : {"", "runs/a b/step-10",
                           "Gr\xC3\xBC\xC3\x9F"
                           "e",
                           "\xE2\x82\xAC", "\xF0\x9F\x98\x80"})
    EXPECT_EQ(printable(text), text);
}

TEST(Printable, EscapesWhatATerminalWouldObey) {
  EXPECT_EQ(printable("\x1B[31mred\n"), "\\x1b[31mred\\x0a");
  EXPECT_EQ(printable("\x7F"), "\\x7f");
  EXPECT_EQ(printable("\xC2\x9B"
                      "31m"),
            "\\xc2\\x9b31m")
      << "the one-character form of escape and bracket";
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
}

TEST(Printable, EscapesWhatIsNoUtf8) {
  EXPECT_EQ(printable("\xFF"), "\\xff");
  EXPECT_EQ(printable("\xC3"), "\\xc3") << "cut short";
  EXPECT_EQ(printable("\xC0\xAF"), "\\xc0\\xaf") << "longer than needed";
  EXPECT_EQ(printable("\xE0\x80\xAF"), "\\xe0\\x80\\xaf");
  EXPECT_EQ(printable("\xED\xA0\x80"), "\\xed\\xa0\\x80") << "half of a surrogate pair";
  EXPECT_EQ(printable("\xE2\x28\xA1"), "\\xe2(\\xa1");
}

}  // namespace
}  // namespace lockstep
