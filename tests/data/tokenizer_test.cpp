#include "data/tokenizer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string_view>

#include "core/error.hpp"

namespace lockstep::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Tokenizer of_string(std::string_view text) {
  return Tokenizer::of_text({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

TEST(Tokenizer, NumbersTheDistinctBytesInByteOrder) {
  const Tokenizer tokenizer = of_string("cabbage");

  EXPECT_EQ(tokenizer.size(), 5);  // a b c e g
  EXPECT_THAT(tokenizer.encode("cage"), ElementsAre(2, 0, 4, 3));
}

TEST(Tokenizer, DecodesWhatItEncoded) {
  const std::string text = "In the beginning God created the heaven and the earth.\n";

  EXPECT_EQ(of_string(text).decode(of_string(text).encode(text)), text);
  EXPECT_EQ(Tokenizer::of_bytes().decode(Tokenizer::of_bytes().encode("\xC3\xA9 x")), "\xC3\xA9 x");
}

TEST(Tokenizer, OfBytesHas256SymbolsThatAreTheBytesThemselves) {
  const Tokenizer tokenizer = Tokenizer::of_bytes();

  EXPECT_EQ(tokenizer.size(), 256);
  EXPECT_THAT(tokenizer.encode("A\xFF"), ElementsAre(65, 255));
}

TEST(Tokenizer, NamesTheByteThatTheTextNeverContains) {
  try {
    (void)of_string("abc").encode("abz");
    FAIL() << "an unknown symbol was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::data);
    EXPECT_THAT(error.what(), HasSubstr("byte 2 of the text is 0x7a ('z')"));
  }
}

TEST(Tokenizer, RefusesATokenThatIsNoSymbol) {
  const std::vector<std::int32_t> above = {0, 3};
  const std::vector<std::int32_t> below = {-1};

  EXPECT_THROW((void)of_string("abc").decode(above), Error);
  EXPECT_THROW((void)of_string("abc").decode(below), Error);
}

}  // namespace
}  // namespace lockstep::data
