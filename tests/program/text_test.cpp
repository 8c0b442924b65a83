// Texts outside ASCII, from the file to the terminal.
#include <gmock/gmock.h>

#include "core/utf8.hpp"
#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

using ::testing::HasSubstr;

class Text : public ProgramTest {
 protected:
  static std::string job_of(const std::string& tokenizer) {
    return "model: {type: gpt2, n_layer: 1, n_head: 1, n_embd: 16, block_size: 16}\n"
           "data: {type: text, path: text.txt, tokenizer: " +
           tokenizer +
           "}\n"
           "run: {name: " +
           tokenizer +
           ", output_dir: runs, steps: 2}\n"
           "train_batch_size: 2\n";
  }
  [[nodiscard]] Outcome train(const std::string& tokenizer, const std::string& line) const {
    std::string text;
    for (int i = 0; i < 40; ++i) text += line;
    write_text(path("text.txt"), text);
    write_text(path("job.yaml"), job_of(tokenizer));
    return run("lockstep train job.yaml");
  }
  /// What a model that has learnt nothing writes: every symbol comes.
  [[nodiscard]] std::string written(const std::string& name) const {
    return run("lockstep generate runs/" + name + " --prompt '\u00E9' --tokens 600 --temperature 100").out;
  }
};

const std::string line = "gr\u00FC\u00DFe aus caf\u00E9 \u20AC \U0001F600\n";

TEST_F(Text, OfCharactersHasOneSymbolForEach) {
  const Outcome trained = train("char", line);
  const std::string text = written("char");
  std::size_t characters = 0;

  ASSERT_EQ(trained.exit_code, 0) << trained.all();
  EXPECT_THAT(trained.all(), HasSubstr("text.txt (760 characters of 15 kinds: 684 to train, 76 to validate)"));
  EXPECT_EQ(each_character(text, [&](char32_t) { ++characters; }), text.size()) << text;
  EXPECT_EQ(characters, 602U) << "the prompt, 600 symbols and the end of the line";
}

TEST_F(Text, OfBytesIsShownAsUtf8WhateverTheModelWrites) {
  const Outcome trained = train("byte", line);
  const std::string text = written("byte");

  ASSERT_EQ(trained.exit_code, 0) << trained.all();
  EXPECT_THAT(trained.all(), HasSubstr("text.txt (1080 bytes of 256 kinds: 972 to train, 108 to validate)"));
  EXPECT_EQ(each_character(text, [](char32_t) {}), text.size()) << "no UTF-8 there";
  EXPECT_EQ(text.substr(0, 2), "\u00E9");
  EXPECT_THAT(text, HasSubstr("\uFFFD")) << "such a model writes bytes that belong to no character";
}

TEST_F(Text, ThatIsNoUtf8IsRefusedWithThePlaceAndTheRemedy) {
  const Outcome outcome = train("char", "a cafe\xE9 in Latin-1\n");

  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.err, HasSubstr("text.txt: byte 6 (in line 1) is 0xe9, which is no UTF-8"));
  EXPECT_THAT(outcome.err, HasSubstr("data.tokenizer: byte"));
  EXPECT_EQ(train("byte", "a cafe\xE9 in Latin-1\n").exit_code, 0);
}

}  // namespace
}  // namespace lockstep::testing
