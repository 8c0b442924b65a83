#include "data/tokens.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/token_files.hpp"

namespace lockstep::data {
namespace {

using testing::bare_shard;
using testing::error_text;
using ::testing::HasSubstr;
using testing::llm_c_shard;
using testing::write_text;

/// Ids that tell where they stand: i at place i.
std::vector<std::uint16_t> count_up(int first, int count) {
  std::vector<std::uint16_t> ids(static_cast<std::size_t>(count));
  std::iota(ids.begin(), ids.end(), static_cast<std::uint16_t>(first));
  return ids;
}

class TokenFiles : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& content) {
    std::filesystem::create_directories((folder_.path() / name).parent_path());
    write_text(folder_ / name, content);
    return folder_ / name;
  }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] static TokensOptions of(const std::string& path) {
    return {.path = path, .vocab_size = 50257, .length = 8};
  }
  [[nodiscard]] static std::string refused(const TokensOptions& options, ErrorKind kind = ErrorKind::data) {
    return error_text(kind, [&] { (void)make_tokens(options); });
  }

 private:
  testing::ScratchFolder folder_;
};

std::vector<std::int32_t> all_tokens(const Dataset& data) {
  HostBatch batch;
  data.train_batch(0, data.train_samples(), batch);
  return batch.tokens;
}

TEST_F(TokenFiles, BothFormatsAndEveryWayToNameThemGiveTheSameSequence) {
  write("a/part_0.bin", llm_c_shard(count_up(0, 70)));
  write("a/part_1.bin", llm_c_shard(count_up(70, 3)));
  write("a/part_2.bin", bare_shard(count_up(73, 127)));
  write("a/notes.txt", "not a shard");
  const std::string whole = write("whole.bin", bare_shard(count_up(0, 200)));

  const auto one = make_tokens(of(whole));
  const auto folder = make_tokens(of(path("a"))), pattern = make_tokens(of(path("a/part_*.bin")));

  EXPECT_EQ(one->train_samples(), 200 / 8 - 1);
  for (const auto* other : {folder.get(), pattern.get()}) {
    EXPECT_EQ(all_tokens(*other), all_tokens(*one));
    EXPECT_EQ(other->fingerprint(), one->fingerprint());
  }
  EXPECT_THAT(folder->describe(),
              HasSubstr("a (200 tokens in 3 files, vocabulary 50257: 200 to train, 0 to validate)"));
  EXPECT_EQ(one->classes(), 50257);
}

TEST_F(TokenFiles, WindowsTileTheSequenceAndTargetsAreOneFurther) {
  write("s/0.bin", llm_c_shard(count_up(0, 33)));
  write("s/1.bin", llm_c_shard(count_up(33, 67)));
  const auto data = make_tokens(of(path("s")));
  HostBatch batch;
  data->train_batch(0, data->train_samples(), batch);

  ASSERT_EQ(batch.tokens.size(), 88U);
  EXPECT_EQ(batch.target_count, 88);
  std::set<std::int32_t> begins;
  for (std::size_t i = 0; i < batch.tokens.size(); ++i) {
    EXPECT_EQ(batch.targets[i], batch.tokens[i] + 1);
    if (i % 8 == 0)
      begins.insert(batch.tokens[i]);
    else
      EXPECT_EQ(batch.tokens[i], batch.tokens[i - 1] + 1);
  }
  ASSERT_EQ(begins.size(), 11U) << "each window once";
  EXPECT_EQ(*begins.rbegin() - *begins.begin(), 80) << "one next to the other";
  HostBatch next_epoch;
  data->train_batch(data->train_samples(), data->train_samples(), next_epoch);
  EXPECT_NE(next_epoch.tokens, batch.tokens);
}

TEST_F(TokenFiles, SamplesAreThoseOfTheSameTextWithTheSameSeed) {
  std::string bytes(500, ' ');
  std::vector<std::uint16_t> ids;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<char>(i * i / 7 % 251);
    ids.push_back(static_cast<unsigned char>(bytes[i]));
  }
  const auto text = make_text({.path = write("t.txt", bytes), .tokenizer = "byte", .length = 8, .seed = 5});
  const auto tokens = make_tokens(
      {.path = write("t.bin", bare_shard(ids)), .vocab_size = 256, .validation_fraction = 0.1, .length = 8, .seed = 5});
  HostBatch a, b;

  text->train_batch(3, 150, a), tokens->train_batch(3, 150, b);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.targets, b.targets);
  ASSERT_EQ(text->eval_samples(), tokens->eval_samples());
  text->eval_batch(0, text->eval_samples() + 1, a), tokens->eval_batch(0, text->eval_samples() + 1, b);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.targets, b.targets);
  EXPECT_EQ(a.target_count, b.target_count);
}

TEST_F(TokenFiles, ValidationHasShardsOfItsOwnAndALimit) {
  write("d/train.bin", bare_shard(count_up(0, 100)));
  write("d/val.bin", bare_shard(count_up(1000, 30)));
  TokensOptions options = of(path("d/train.bin"));
  options.validation_path = path("d/val.bin");
  HostBatch batch;

  const auto data = make_tokens(options);
  data->eval_batch(0, data->eval_samples(), batch);
  EXPECT_EQ(data->eval_samples(), 4);
  EXPECT_EQ(batch.target_count, 29) << "every token but the first";
  EXPECT_EQ(batch.tokens.front(), 1000);
  EXPECT_EQ(std::ranges::max(batch.targets), 1029);
  EXPECT_EQ(std::ranges::count(batch.targets, -1), 3);

  options.validation_targets = 12;
  const auto limited = make_tokens(options);
  limited->eval_batch(0, limited->eval_samples(), batch);
  EXPECT_EQ(limited->eval_samples(), 2);
  EXPECT_EQ(batch.target_count, 12);
  EXPECT_EQ(std::ranges::max(batch.targets), 1012);
  EXPECT_NE(limited->fingerprint(), data->fingerprint());
}

TEST_F(TokenFiles, AnIdOutsideTheVocabularyIsRefusedWithFilePlaceAndRemedy) {
  std::vector<std::uint16_t> ids = count_up(0, 700'000);
  for (std::uint16_t& id : ids) id %= 50257;
  ids[600'001] = 50257;
  const std::string text = refused(of(write("x.bin", llm_c_shard(ids))));

  EXPECT_THAT(text, HasSubstr("x.bin: token 600001 (byte 1201026) is 50257, but with data.vocab_size 50257 ids run "
                              "from 0 to 50256"));
  EXPECT_THAT(text, HasSubstr("Give the size of the vocabulary"));
  ids[600'001] = 50256;
  EXPECT_EQ(make_tokens(of(write("x.bin", llm_c_shard(ids))))->train_samples(), 700'000 / 8 - 1);
}

TEST_F(TokenFiles, AFileThatIsNoShardIsNamedWithTheReason) {
  const std::vector<std::uint16_t> ids = count_up(0, 100);
  const std::string good = llm_c_shard(ids);
  TokensOptions headed = of("");
  headed.format = TokenFormat::llm_c;
  const auto refused_as = [&](const std::string& content, TokensOptions options) {
    options.path = write("f.bin", content);
    return refused(options);
  };

  EXPECT_THAT(refused(of(path("no.bin"))), HasSubstr("no.bin: No such file or directory"));
  EXPECT_THAT(refused(of(path("no*.bin"))), HasSubstr("no file matches"));
  EXPECT_THAT(refused_as("", of("")), HasSubstr("f.bin is empty"));
  EXPECT_THAT(refused_as("abc", of("")), HasSubstr("has 3 bytes, an odd number"));
  EXPECT_THAT(refused_as(good.substr(0, 1000), of("")), HasSubstr("has 1000 bytes, but the header"));
  EXPECT_THAT(refused_as(good.substr(0, 1100), of("")),
              HasSubstr("its header says 100 tokens, so 200 bytes after it, but there are 76"));
  EXPECT_THAT(refused_as(good + "xy", of("")), HasSubstr("so 200 bytes after it, but there are 202"));
  EXPECT_THAT(refused_as(llm_c_shard(ids, 20240520, 2), of("")), HasSubstr("its header has version 2"));
  EXPECT_THAT(refused_as(llm_c_shard({}), of("")), HasSubstr("has a header and no tokens"));
  EXPECT_THAT(refused_as(llm_c_shard(ids, 20240801, 7), of("")), HasSubstr("32-bit ids (Llama 3)"));
  EXPECT_THAT(refused_as(llm_c_shard(ids, 20240521), headed),
              HasSubstr("begins with 20240521, but an llm.c shard begins with the magic number 20240520"));
  EXPECT_THAT(refused_as(llm_c_shard(ids, 20240521), of("")), HasSubstr("so it was read as bare 16-bit ids"));
  EXPECT_THAT(refused_as(bare_shard(ids), headed), HasSubstr("give data.format: bare"));
  EXPECT_THAT(refused(of("/dev/null"), ErrorKind::config), HasSubstr("is not a file"));
}

TEST_F(TokenFiles, AFolderOfTrainingAndValidationShardsIsNotMixed) {
  write("f/fineweb_train_000001.bin", bare_shard(count_up(0, 100)));
  write("f/fineweb_val_000000.bin", bare_shard(count_up(0, 100)));

  const std::string text = refused(of(path("f")), ErrorKind::config);
  TokensOptions apart = of(path("f/*train*.bin"));
  apart.validation_path = path("f/*val*.bin");

  EXPECT_THAT(text, HasSubstr("fineweb_train_000001.bin) and for validation (fineweb_val_000000.bin)"));
  EXPECT_THAT(text, HasSubstr("/*train*.bin and data.validation_path: "));
  EXPECT_EQ(make_tokens(apart)->eval_samples(), 13);
  EXPECT_THAT(refused(of(write("empty/x.txt", "").substr(0, path("empty").size()))), HasSubstr("has no file *.bin"));
}

TEST_F(TokenFiles, TooFewTokensAreRefusedWithTheNumbers) {
  TokensOptions options = of(write("t.bin", bare_shard(count_up(0, 8))));
  EXPECT_THAT(refused(options), HasSubstr("leaves 8 tokens to train on, but one sample of model.block_size 8 needs 9"));

  options.path = write("t.bin", bare_shard(count_up(0, 12)));
  options.validation_fraction = 0.1;
  EXPECT_THAT(refused(options), HasSubstr("data.validation_fraction 0.1 of the 12 tokens"));
  options.validation_fraction = 0;
  options.validation_path = write("v.bin", bare_shard({1}));
  EXPECT_THAT(refused(options), HasSubstr("v.bin is 1 token, but validation needs at least 2"));
}

}  // namespace
}  // namespace lockstep::data
