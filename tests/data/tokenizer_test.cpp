#include "data/tokenizer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/error_text.hpp"

namespace lockstep::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tokenizer of_string(std::string_view text) { return Tokenizer::of_characters(text, "text.txt"); }

std::string refusal(std::string_view text, std::string_view prompt) {
  return lockstep::testing::error_text(ErrorKind::data, [&] { (void)of_string(text).encode(prompt); });
}

TEST(Tokenizer, NumbersTheDistinctCharactersInTheOrderOfTheirCodePoints) {
  const Tokenizer tokenizer = of_string("na\u00EFve caf\u00E9 \U0001F600");

  EXPECT_EQ(tokenizer.size(), 10);  // space a c e f n v e-acute i-diaeresis and a face
  EXPECT_THAT(tokenizer.encode("\u00E9f\U0001F600"), ElementsAre(7, 4, 9));
}

TEST(Tokenizer, AnAsciiTextHasTheVocabularyOfItsBytes) {
  const std::string text = "In the beginning God created the heaven and the earth.\n";
  std::string kinds = text;
  std::sort(kinds.begin(), kinds.end());
  kinds.erase(std::unique(kinds.begin(), kinds.end()), kinds.end());
  const Tokenizer tokenizer = of_string(text);

  ASSERT_EQ(tokenizer.size(), static_cast<int>(kinds.size()));
  for (std::size_t i = 0; i < kinds.size(); ++i)
    EXPECT_THAT(tokenizer.encode(kinds.substr(i, 1)), ElementsAre(static_cast<std::int32_t>(i)));
}

TEST(Tokenizer, DecodesWhatItEncoded) {
  const std::string text = "Gr\u00FC\u00DFe, \u20AC 5 \u4E2D\u6587 \U0001F600\n";

  EXPECT_EQ(of_string(text).decode(of_string(text).encode(text)), text);
  EXPECT_EQ(Tokenizer::of_bytes().decode(Tokenizer::of_bytes().encode("\xC3\xA9 \xFF")), "\xC3\xA9 \xFF");
}

TEST(Tokenizer, OfBytesHas256SymbolsThatAreTheBytesThemselves) {
  const Tokenizer tokenizer = Tokenizer::of_bytes();

  EXPECT_EQ(tokenizer.size(), 256);
  EXPECT_THAT(tokenizer.encode("A\xFF"), ElementsAre(65, 255));
}

TEST(Tokenizer, RefusesATextThatIsNoUtf8WithThePlaceAndTheRemedy) {
  const std::string text =
      lockstep::testing::error_text(ErrorKind::data, [] { (void)of_string("one\ntwo caf\xE9 three"); });

  EXPECT_THAT(text, HasSubstr("text.txt: byte 11 (in line 2) is 0xe9, which is no UTF-8"));
  EXPECT_THAT(text, HasSubstr("data.tokenizer: byte"));
}

TEST(Tokenizer, NamesTheCharacterOfAPromptThatTheTextNeverContains) {
  EXPECT_THAT(refusal("abc", "abz"), HasSubstr("character 3 of the prompt is 'z' (U+007A)"));
  EXPECT_THAT(refusal("abc\u00EF", "\u00EF\u00E9"), HasSubstr("character 2 of the prompt is '\u00E9' (U+00E9)"));
  EXPECT_THAT(refusal("abc", "a\n"), HasSubstr("character 2 of the prompt is U+000A,"));
  EXPECT_THAT(refusal("abc", "ab\xFF"), HasSubstr("byte 2 of the prompt is 0xff, which is no UTF-8"));
}

TEST(Tokenizer, RefusesATokenThatIsNoSymbol) {
  const std::vector<std::int32_t> above = {0, 3};
  const std::vector<std::int32_t> below = {-1};

  EXPECT_THROW((void)of_string("abc").decode(above), Error);
  EXPECT_THROW((void)of_string("abc").decode(below), Error);
}

}  // namespace
}  // namespace lockstep::data
