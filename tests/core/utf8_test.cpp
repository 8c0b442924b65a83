#include "core/utf8.hpp"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

using Form = Utf8Front::Form;

std::string replaced(std::string_view bytes) {
  Utf8Stream stream;
  const std::string shown = stream.push(bytes);
  return shown + stream.finish();
}

TEST(Utf8, EveryCodePointReadsBackAsItWasWritten) {
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, code);

    const Utf8Front front = utf8_front(text + "x");

    ASSERT_EQ(front.form, Form::whole) << static_cast<std::uint32_t>(code);
    ASSERT_EQ(front.code, code);
    ASSERT_EQ(front.bytes, text.size());
    if (text.size() > 1) {
      ASSERT_EQ(utf8_front(text.substr(0, text.size() - 1)).form, Form::cut) << static_cast<std::uint32_t>(code);
    }
  }
}

TEST(Utf8, WhatRfc3629ForbidsIsWrong) {
  for (const char* text : {"\x80", "\xFF", "\xC0\xAF", "\xC1\xBF", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF0\x80\x80\x80",
                           "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xC3("})
    EXPECT_EQ(utf8_front(text).form, Form::wrong) << text;
}

TEST(Utf8, CharactersAreVisitedUpToTheFirstWrongByte) {
  std::u32string codes;
  const auto visit = [&](char32_t code) { codes.push_back(code); };

  EXPECT_EQ(each_character("a\xC3\xA9\xE2\x82\xAC", visit), 6U);
  EXPECT_EQ(codes, U"a\u00E9\u20AC");
  EXPECT_EQ(each_character("ab\xE9 c", visit), 2U);
  EXPECT_EQ(each_character("ab\xE2\x82", visit), 2U) << "cut short";
}

TEST(Utf8Stream, ACharacterIsHeldBackUntilItIsWhole) {
  Utf8Stream stream;

  EXPECT_EQ(stream.push("x\xE2"), "x");
  EXPECT_EQ(stream.push("\x82"), "");
  EXPECT_EQ(stream.push("\xAC!"), "\u20AC!");
  EXPECT_EQ(stream.finish(), "");
}

// The examples of the Unicode standard, 3.9, "U+FFFD substitution of maximal subparts".
TEST(Utf8Stream, EachWrongPartBecomesOneReplacementCharacter) {
  EXPECT_EQ(replaced("a\xF1\x80\x80\xE1\x80\xC2"
                     "b\x80"
                     "c\x80\xBF"
                     "d"),
            "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
  EXPECT_EQ(replaced("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replaced("end\xE2\x82"), "end\uFFFD");
}

TEST(Utf8Stream, WhereTheStreamIsCutDoesNotMatter) {
  const std::string bytes = "\xF0\x9F\x98\x80 \xE2\x28\xA1 \xC3\xA9 \xF4\x90";
  Utf8Stream stream;
  std::string shown;

  for (const char byte : bytes) shown += stream.push({&byte, 1});
  shown += stream.finish();

  EXPECT_EQ(shown, replaced(bytes));
}

}  // namespace
}  // namespace lockstep
