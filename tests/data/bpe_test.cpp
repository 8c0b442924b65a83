#include "data/bpe.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "core/utf8.hpp"
#include "data/dataset.hpp"
#include "data/tokenizer.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/source_dir.hpp"
#include "tests/support/tiny_bpe.hpp"

namespace lockstep::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class BpeTest : public ::testing::Test {
 protected:
  void SetUp() override { lockstep::testing::write_bpe(folder(), lockstep::testing::english_merges()); }
  [[nodiscard]] std::string folder() const { return scratch_.path().string(); }
  [[nodiscard]] std::string vocab() const { return scratch_ / "vocab.json"; }
  [[nodiscard]] std::string merges() const { return scratch_ / "merges.txt"; }

  /// The pieces that each token spells.
  [[nodiscard]] static std::vector<std::string> pieces(const Bpe& bpe, const std::string& text) {
    std::vector<std::int32_t> tokens;
    bpe.encode(text, tokens);
    std::vector<std::string> result;
    for (const std::int32_t token : tokens) result.push_back(bpe.decode(std::vector<std::int32_t>{token}));
    return result;
  }
  lockstep::testing::ScratchFolder scratch_;
};

TEST_F(BpeTest, JoinsTheBestPairFirst) {
  const Bpe bpe(vocab(), merges());
  EXPECT_EQ(bpe.size(), 256 + 9 + 1);
  EXPECT_EQ(bpe.end_of_text(), 265);
  // In "the" the pair t h has a lower rank than h e.
  EXPECT_THAT(pieces(bpe, "the"), ElementsAre("the"));
  EXPECT_THAT(pieces(bpe, "he the then"), ElementsAre("he", " the", " the", "n"));
  EXPECT_THAT(pieces(bpe, "don't"), ElementsAre("don", "'t"));
  EXPECT_THAT(pieces(bpe, "\xC3\xA9t\xC3\xA9"), ElementsAre("\xC3\xA9", "t", "\xC3\xA9"));
}

TEST_F(BpeTest, CutsATextWhereGpt2Does) {
  // Without merges the cuts do not show; with merges that reach over every border they would be used if they could.
  std::vector<std::pair<std::string, std::string>> all;
  for (const char* pair : {"a1", "1!", "! ", "  ", "a ", " a", "'s", "sa", "\n ", " \n", "a'", "!a", "1a"})
    all.emplace_back(std::string(1, pair[0]), std::string(1, pair[1]));
  lockstep::testing::write_bpe(folder(), all);
  const Bpe bpe(vocab(), merges());
  EXPECT_THAT(pieces(bpe, "a1!"), ElementsAre("a", "1", "!"));
  EXPECT_THAT(pieces(bpe, "a a"), ElementsAre("a", " a"));
  EXPECT_THAT(pieces(bpe, "a  a"), ElementsAre("a", " ", " a")) << "the last blank belongs to the word";
  EXPECT_THAT(pieces(bpe, "a  "), ElementsAre("a", "  ")) << "at the end there is none";
  EXPECT_THAT(pieces(bpe, "a'sa"), ElementsAre("a", "'s", "a"));
  EXPECT_THAT(pieces(bpe, "a'Sa"), ElementsAre("a", "'", "S", "a")) << "contractions are small letters";
  EXPECT_THAT(pieces(bpe, "a \n a"), ElementsAre("a", " \n", " a"));
  EXPECT_THAT(pieces(bpe, "!a1a"), ElementsAre("!", "a", "1", "a"));
}

TEST_F(BpeTest, LettersAndDigitsAreUnicodes) {
  lockstep::testing::write_bpe(
      folder(),
      {{"\xC2", "\xBD"}, {"1", "\xC2\xBD"}, {"\xC3", "\xA9"}, {"a", "\xC3\xA9"}, {"\xC2", "\xA0"}, {" ", "\xC2\xA0"}});
  const Bpe bpe(vocab(), merges());
  EXPECT_THAT(pieces(bpe, "a\xC3\xA9"), ElementsAre("a\xC3\xA9")) << "é is a letter";
  EXPECT_THAT(pieces(bpe, "1\xC2\xBD"), ElementsAre("1\xC2\xBD")) << "½ is a number";
  EXPECT_THAT(pieces(bpe,
                     " \xC2\xA0"
                     "a"),
              ElementsAre(" ", "\xC2\xA0", "a"))
      << "U+00A0 is white space, not a blank";
}

/// bpe_oracle.json, recorded by record_bpe_oracle.py: a small vocabulary, and texts with random Unicode in them.
TEST_F(BpeTest, TokensAreThoseOfTokenizersAndTiktoken) {
  std::ifstream file(source_dir() + "/tests/data/bpe_oracle.json");
  const nlohmann::json oracle = nlohmann::json::parse(file);
  lockstep::testing::write_text(vocab(), oracle["vocab"].get<std::string>());
  lockstep::testing::write_text(merges(), oracle["merges"].get<std::string>());
  const Bpe bpe(vocab(), merges());
  ASSERT_GT(oracle["texts"].size(), 60U);
  for (std::size_t i = 0; i < oracle["texts"].size(); ++i) {
    const auto text = oracle["texts"][i].get<std::string>();
    std::vector<std::int32_t> tokens;
    bpe.encode(text, tokens);
    EXPECT_EQ(tokens, oracle["tokens"][i].get<std::vector<std::int32_t>>()) << text;
    EXPECT_EQ(bpe.decode(tokens), text);
  }
}

TEST_F(BpeTest, DecodesWhatItEncoded) {
  const Bpe bpe(vocab(), merges());
  std::string text;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    const Philox random = random_at(5, RngStream::synthetic, 0, i);
    const char32_t most = random.word[1] % 3 == 0 ? 0x10FFFF : random.word[1] % 3 == 1 ? 0x7F : 0x2FF;
    const char32_t code = random.word[0] % (most + 1);
    append_utf8(text, code >= 0xD800 && code <= 0xDFFF ? U'x' : code);
  }
  std::vector<std::int32_t> tokens;
  bpe.encode(text, tokens);
  EXPECT_EQ(bpe.decode(tokens), text);
}

TEST_F(BpeTest, ALongPieceTakesNoLongerThanItsLengthTimesItsLogarithm) {
  const Bpe bpe(vocab(), merges());
  std::string word;
  for (int i = 0; i < 200'000; ++i) word += "the";
  std::vector<std::int32_t> tokens;
  bpe.encode(word, tokens);
  EXPECT_EQ(tokens.size(), 200'000U);
}

TEST_F(BpeTest, ATextIsSamplesOfItsTokens) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "he the then don't\n";
  lockstep::testing::write_text(scratch_ / "text.txt", text);
  TextOptions options{.path = scratch_ / "text.txt",
                      .tokenizer = "gpt2",
                      .vocab = vocab(),
                      .merges = merges(),
                      .validation_fraction = 0.1,
                      .length = 8};
  const auto dataset = make_text(options);
  EXPECT_EQ(dataset->classes(), 266);
  EXPECT_THAT(dataset->describe(), HasSubstr("320 tokens of 266 kinds"));
  EXPECT_EQ(dataset->decode(dataset->encode("then")), "then");

  const std::uint64_t fingerprint = dataset->fingerprint();
  lockstep::testing::write_bpe(folder(), {{"t", "h"}});
  EXPECT_NE(make_text(options)->fingerprint(), fingerprint) << "other tokens of the same text";
}

TEST_F(BpeTest, ATextThatIsNoUtf8IsRefused) {
  lockstep::testing::write_text(scratch_ / "text.txt", "abc\xFF");
  const TextOptions options{.path = scratch_ / "text.txt", .tokenizer = "gpt2", .vocab = vocab(), .merges = merges()};
  EXPECT_THAT(lockstep::testing::error_text(ErrorKind::data, [&] { (void)make_text(options); }),
              HasSubstr("byte 3 (in line 1) is 0xff, which is no UTF-8 there, so the text has no characters for "
                        "data.tokenizer: gpt2"));
}

TEST_F(BpeTest, BrokenFilesAreRefusedWithTheirPlace) {
  const auto error = [&] {
    return lockstep::testing::error_text(ErrorKind::data, [&] { const Bpe bpe(vocab(), merges()); });
  };
  const auto append_merge = [&](const std::string& line) {
    lockstep::testing::write_bpe(folder(), lockstep::testing::english_merges());
    std::ofstream(merges(), std::ios::app) << line;
  };
  append_merge("x y\n");
  EXPECT_THAT(error(), HasSubstr("merges.txt:11: 'xy' is no token of data.vocab"));
  append_merge("xy\n");
  EXPECT_THAT(error(), HasSubstr("merges.txt:11: 'xy' is not two tokens with a blank"));
  append_merge("t h\n");
  EXPECT_THAT(error(), HasSubstr("merges.txt:11: 't h' stands there twice"));

  lockstep::testing::write_text(vocab(), "[]");
  EXPECT_THAT(error(), HasSubstr("is no JSON object of tokens"));
  const std::string nested = std::string(200'000, '[') + std::string(200'000, ']');
  lockstep::testing::write_text(vocab(), R"({"a": )" + nested + "}");
  EXPECT_THAT(error(), HasSubstr("is no JSON object of tokens"));
  lockstep::testing::write_text(vocab(), R"({"a": 0, "b": 7})");
  EXPECT_THAT(error(), HasSubstr("token 'b' has the number 7; 2 tokens are numbered 0 to 1"));
  lockstep::testing::write_text(vocab(), R"({"a": 0, "b": 0})");
  EXPECT_THAT(error(), HasSubstr("two tokens have the number 0"));
  lockstep::testing::write_text(vocab(), R"({"a": 0})");
  EXPECT_THAT(error(), HasSubstr("has no token for the byte 0x00"));
  EXPECT_THAT(lockstep::testing::error_text(ErrorKind::data, [&] { const Bpe bpe(scratch_ / "none.json", merges()); }),
              HasSubstr("data.vocab: cannot open"));
}

TEST_F(BpeTest, ATokenThatIsNoneIsRefused) {
  const Bpe bpe(vocab(), merges());
  EXPECT_THAT(lockstep::testing::error_text(ErrorKind::data, [&] { (void)bpe.decode(std::vector<std::int32_t>{266}); }),
              HasSubstr("token 266 is not in the vocabulary, which has 0 to 265"));
}

}  // namespace
}  // namespace lockstep::data
