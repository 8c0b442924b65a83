#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "core/error.hpp"
#include "core/utf8.hpp"
#include "data/dataset.hpp"

namespace lockstep::data {
namespace {

using testing::HasSubstr;

/// A text whose byte at i is a known function of i, so that a window tells where it was cut.
class TextFile : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    path_ = std::filesystem::path(testing::TempDir()) /
            ("lockstep_text_" + std::to_string(getpid()) + "_" + test->name() + ".txt");
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::string write(std::int64_t size) {
    std::string text;
    for (std::int64_t i = 0; i < size; ++i) {
      text.push_back(static_cast<char>(byte_at(i)));
    }
    return write(text);
  }
  std::string write(const std::string& text) {
    std::ofstream(path_, std::ios::binary) << text;
    return path_.string();
  }

  static std::uint8_t byte_at(std::int64_t i) { return static_cast<std::uint8_t>((i * i / 7 + 3 * i) % 256); }

  std::filesystem::path path_;
};

TextOptions options_for(const std::string& path, std::int64_t length) {
  return {.path = path, .tokenizer = "byte", .validation_fraction = 0.1, .length = length, .seed = 1};
}

TEST_F(TextFile, TheFingerprintIsOfTheContentAndItsDivision) {
  const TextOptions options = options_for(write(5000), 32);
  TextOptions other_division = options;
  other_division.validation_fraction = 0.2;
  TextOptions other_seed = options;
  other_seed.seed = 9;
  const std::uint64_t fingerprint = make_text(options)->fingerprint();

  EXPECT_NE(make_text(other_division)->fingerprint(), fingerprint);
  EXPECT_EQ(make_text(other_seed)->fingerprint(), fingerprint);
  write(5001);
  EXPECT_NE(make_text(options)->fingerprint(), fingerprint);
  write(5000);
  EXPECT_EQ(make_text(options)->fingerprint(), fingerprint);
}

TEST_F(TextFile, EveryTargetIsTheSymbolAfterItsToken) {
  const auto text = make_text(options_for(write(5000), 32));
  HostBatch batch;

  text->train_batch(0, text->train_samples(), batch);

  EXPECT_EQ(batch.batch, text->train_samples());
  EXPECT_EQ(batch.length, 32);
  EXPECT_EQ(batch.target_count, static_cast<double>(batch.batch * 32));
  for (std::size_t i = 0; i + 1 < batch.tokens.size(); ++i) {
    if (i % 32 != 31) {
      ASSERT_EQ(batch.targets[i], batch.tokens[i + 1]) << "element " << i;
    }
  }
}

TEST_F(TextFile, AnEpochTilesTheTrainingPartWithoutOverlap) {
  // Text of two-byte counters: a window's first pair tells its place.
  std::string counters;
  for (int i = 0; i < 2000; ++i) {
    counters.push_back(static_cast<char>(0x80 | (i >> 6)));
    counters.push_back(static_cast<char>(i & 0x3F));
  }
  const auto text = make_text(options_for(write(counters), 20));
  const auto place = [](const HostBatch& batch, std::int64_t row) {
    const auto* token = &batch.tokens[static_cast<std::size_t>(row * 20)];
    const bool whole = token[0] >= 0x80;
    const int number = ((token[whole ? 0 : 1] & 0x7F) << 6) | token[whole ? 1 : 2];
    return 2 * number - (whole ? 0 : 1);
  };

  std::set<int> offsets;
  for (std::int64_t epoch = 0; epoch < 8; ++epoch) {
    std::set<int> places;
    HostBatch batch;
    text->train_batch(epoch * text->train_samples(), text->train_samples(), batch);
    for (std::int64_t row = 0; row < batch.batch; ++row) {
      places.insert(place(batch, row));
    }
    EXPECT_EQ(static_cast<std::int64_t>(places.size()), text->train_samples());
    EXPECT_EQ(*places.rbegin() - *places.begin(), 20 * (text->train_samples() - 1));
    EXPECT_LT(*places.begin(), 20);
    EXPECT_LT(*places.rbegin() + 20, 3600);  // the last target is still in the training part
    offsets.insert(*places.begin());
  }

  EXPECT_GT(offsets.size(), 3U);
}

TEST_F(TextFile, ASampleDependsOnItsPositionAloneAndNotOnTheBatch) {
  const auto text = make_text(options_for(write(5000), 16));
  const std::int64_t first = text->train_samples() - 5;  // across the end of the epoch
  HostBatch whole;
  text->train_batch(first, 10, whole);

  for (std::int64_t row = 0; row < 10; ++row) {
    HostBatch one;
    text->train_batch(first + row, 1, one);
    EXPECT_TRUE(std::equal(one.tokens.begin(), one.tokens.end(), whole.tokens.begin() + row * 16)) << "row " << row;
  }
}

TEST_F(TextFile, EpochsAndSeedsDiffer) {
  const std::string path = write(5000);
  TextOptions other = options_for(path, 16);
  other.seed = 2;
  const auto text = make_text(options_for(path, 16));
  HostBatch first;
  HostBatch second;
  HostBatch seeded;

  text->train_batch(0, text->train_samples(), first);
  text->train_batch(text->train_samples(), text->train_samples(), second);
  make_text(other)->train_batch(0, text->train_samples(), seeded);

  EXPECT_NE(first.tokens, second.tokens);
  EXPECT_NE(first.tokens, seeded.tokens);
}

TEST_F(TextFile, ValidationCountsEverySymbolButTheFirstExactlyOnce) {
  for (const std::int64_t size : {1000, 1001, 1009, 5120}) {
    const auto text = make_text(options_for(write(size), 16));
    const std::int64_t validation = size / 10;
    std::vector<std::int32_t> targets;
    double counted = 0;
    HostBatch batch;
    for (std::int64_t first = 0; first < text->eval_samples(); first += 4) {
      text->eval_batch(first, 4, batch);
      ASSERT_EQ(batch.targets.size(), 64U);
      counted += batch.target_count;
      for (const std::int32_t target : batch.targets) {
        if (target >= 0) {
          targets.push_back(target);
        }
      }
    }

    ASSERT_EQ(static_cast<std::int64_t>(targets.size()), validation - 1) << "size " << size;
    EXPECT_EQ(counted, static_cast<double>(validation - 1));
    for (std::int64_t i = 0; i + 1 < validation; ++i) {
      ASSERT_EQ(targets[static_cast<std::size_t>(i)], byte_at(size - validation + 1 + i)) << "size " << size;
    }
  }
}

TEST_F(TextFile, PastTheEndTheEvalBatchIsPadding) {
  const auto text = make_text(options_for(write(1000), 16));
  HostBatch batch;

  text->eval_batch(text->eval_samples(), 3, batch);

  EXPECT_EQ(batch.batch, 3);
  EXPECT_EQ(batch.target_count, 0.0);
  EXPECT_THAT(batch.targets, testing::Each(-1));
}

TEST_F(TextFile, ATextWithRoomForOneWindowWorks) {
  TextOptions options = options_for(write(17), 16);
  options.validation_fraction = 0.0;

  const auto text = make_text(options);
  HostBatch batch;
  text->train_batch(0, 2, batch);

  EXPECT_EQ(text->train_samples(), 1);
  EXPECT_EQ(text->eval_samples(), 0);
  EXPECT_EQ(batch.target_count, 32.0);
}

TEST_F(TextFile, TheCharTokenizerKnowsTheWholeFile) {
  TextOptions options = options_for(write("abcabcabcabcabcabcabcabczz"), 4);
  options.tokenizer = "char";

  const auto text = make_text(options);

  EXPECT_EQ(text->classes(), 4);
  EXPECT_EQ(text->decode(text->encode("cabz")), "cabz");
  EXPECT_THAT(text->describe(), HasSubstr("26 characters of 4 kinds: 24 to train, 2 to validate"));
}

TEST_F(TextFile, ACharacterOfSeveralBytesIsOneSymbol) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += "\u00E9\u20AC";
  TextOptions options = options_for(write(text), 4);
  options.tokenizer = "char";

  const auto characters = make_text(options);
  HostBatch batch;
  characters->train_batch(0, 1, batch);

  EXPECT_THAT(characters->describe(), HasSubstr("60 characters of 2 kinds: 54 to train, 6 to validate"));
  EXPECT_THAT(batch.tokens, testing::AnyOf(testing::ElementsAre(0, 1, 0, 1), testing::ElementsAre(1, 0, 1, 0)));
  options.tokenizer = "byte";
  EXPECT_THAT(make_text(options)->describe(), HasSubstr("150 bytes of 256 kinds: 135 to train, 15 to validate"));
}

TEST_F(TextFile, VocabulariesMayBeWiderThanAByteAndThanTwo) {
  for (const int kinds : {256, 300, 65536, 70000}) {
    std::string text;
    for (int i = 0; i < kinds; ++i) append_utf8(text, static_cast<char32_t>(i < 0xD800 ? i : i + 0x800));
    TextOptions options = options_for(write(text), 4);
    options.tokenizer = "char";
    options.validation_fraction = 0.0;
    const auto rare = make_text(options);
    HostBatch batch;
    std::int32_t largest = 0;

    for (std::int64_t epoch = 0; epoch < 8; ++epoch) {
      rare->train_batch(epoch * rare->train_samples(), rare->train_samples(), batch);
      for (std::size_t i = 0; i < batch.tokens.size(); ++i) ASSERT_EQ(batch.targets[i], batch.tokens[i] + 1);
      largest = std::max(largest, *std::max_element(batch.targets.begin(), batch.targets.end()));
    }

    EXPECT_EQ(rare->classes(), kinds);
    EXPECT_GT(largest, kinds - 6) << "an epoch leaves a sample's length out at most";
  }
}

void expect_error(const TextOptions& options, ErrorKind kind, const std::string& part) {
  try {
    (void)make_text(options);
    FAIL() << "accepted; expected an error with: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_THAT(error.what(), HasSubstr(part));
  }
}

TEST_F(TextFile, SaysWhatIsWrongWithAFile) {
  expect_error(options_for("/nonexistent/corpus.txt", 8), ErrorKind::data, "No such file");
  expect_error(options_for(testing::TempDir(), 8), ErrorKind::config, "is a directory");
  expect_error(options_for("/dev/null", 8), ErrorKind::config, "is a device or a pipe");
  expect_error(options_for(write(""), 8), ErrorKind::data, "is empty");
  expect_error(options_for(write(20), 64), ErrorKind::data, "leaves 18 bytes");
  expect_error(options_for(write(15), 8), ErrorKind::data, "is 1, but validation needs at least 2");
}

TEST_F(TextFile, SaysWhereATextOfCharactersIsNoUtf8) {
  TextOptions options = options_for(write("a line\nand caf\xE9 and more of it"), 4);
  options.tokenizer = "char";

  expect_error(options, ErrorKind::data, "data.path: " + path_.string() + ": byte 14 (in line 2) is 0xe9");
  options.tokenizer = "byte";
  EXPECT_EQ(make_text(options)->classes(), 256);
}

TEST_F(TextFile, SaysWhatIsWrongWithAnOption) {
  TextOptions unknown = options_for(write(1000), 8);
  unknown.tokenizer = "words";
  TextOptions whole = options_for(path_.string(), 8);
  whole.validation_fraction = 1.0;

  expect_error(unknown, ErrorKind::config, "must be char, byte or gpt2");
  expect_error(whole, ErrorKind::config, "validation_fraction");
}

}  // namespace
}  // namespace lockstep::data
