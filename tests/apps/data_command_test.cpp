#include "apps/data_command.hpp"

#include <gmock/gmock.h>

#include <cstring>
#include <fstream>
#include <vector>

#include "core/error.hpp"
#include "data/bpe.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/tiny_bpe.hpp"

namespace lockstep {
namespace {

using testing::error_text;
using ::testing::HasSubstr;

class DataCommand : public ::testing::Test {
 protected:
  [[nodiscard]] std::string in(const std::string& name) const { return scratch_ / name; }
  void write(const std::string& name, const std::string& text) { testing::write_text(in(name), text); }
  testing::ScratchFolder scratch_;
};

/// A shard's tokens.
std::vector<std::int32_t> tokens_of(const std::string& path) {
  const std::string bytes = testing::text_of(path);
  EXPECT_GE(bytes.size(), 1024U);
  std::int32_t header[3];
  std::memcpy(header, bytes.data(), sizeof header);
  EXPECT_EQ(header[0], 20240520);
  EXPECT_EQ(header[1], 1);
  EXPECT_EQ(bytes.size(), 1024 + 2 * static_cast<std::size_t>(header[2]));
  std::vector<std::int32_t> tokens;
  for (std::size_t at = 1024; at < bytes.size(); at += 2) {
    std::uint16_t token = 0;
    std::memcpy(&token, bytes.data() + at, 2);
    tokens.push_back(token);
  }
  return tokens;
}

TEST_F(DataCommand, LsSaysWhatFilesHold) {
  const std::string idx = std::string("\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x03", 16) + "abcdef";
  write("images", idx);
  write("labels", std::string("\0\0\x08\x01\0\0\0\x02", 8) + std::string("\1\0", 2));
  write("text.txt", "caf\xC3\xA9\n");
  write("binary", std::string("\xFF\xFE\0\1\2\3\4\5", 8));
  write("table.csv", "a,b,c\n1,2,3\n");
  write("nothing", "");
  testing::write_bpe(scratch_.path().string(), testing::english_merges());
  const std::string text = data_ls({scratch_.path().string()});

  EXPECT_THAT(text, HasSubstr("images  IDX, 2 images of 1 x 3\n"));
  EXPECT_THAT(text, HasSubstr("labels  IDX, 2 labels\n"));
  EXPECT_THAT(text, HasSubstr("text.txt  text, UTF-8\n"));
  EXPECT_THAT(text, HasSubstr("binary  bytes, no UTF-8\n"));
  EXPECT_THAT(text, HasSubstr("table.csv  table, 3 columns\n"));
  EXPECT_THAT(text, HasSubstr("nothing  empty\n"));
  EXPECT_THAT(text, HasSubstr("vocab.json  vocabulary of a tokenizer\n"));
  EXPECT_THAT(text, HasSubstr("merges.txt  merges of a tokenizer\n"));
  EXPECT_THAT(error_text(ErrorKind::data, [&] { (void)data_ls({in("none")}); }), HasSubstr("no such file or folder"));
}

TEST_F(DataCommand, CheckReadsWhatTrainingWould) {
  write("t.csv", "x,y\n1,a\n2,b\n3,a\n4,a\n");
  const auto job = [&](const std::string& more) {
    return job::load_job_text("job.yaml",
                              "model: {type: mlp}\ndata: {type: csv, path: " + in("t.csv") + ", target: y" + more +
                                  "}\nrun: {steps: 1}\ntrain_batch_size: 1\n",
                              "/");
  };
  const std::string text = data_check(job(", validation_fraction: 0.25"));
  EXPECT_THAT(text, HasSubstr("an epoch is 3 samples; 1 validation sample; fingerprint "));
  EXPECT_THAT(
      text,
      HasSubstr("class     to train  to validate\n0                2            1\n1                1            0\n"));
  EXPECT_THAT(error_text(ErrorKind::data, [&] { (void)data_check(job(", task: regression")); }),
              HasSubstr("t.csv:2:3: 'a' in column 'y' is not a number"));
}

TEST_F(DataCommand, TokenizeWritesShardsOfWhatTheTokenizerMakes) {
  testing::write_bpe(scratch_.path().string(), testing::english_merges());
  std::string text;
  for (int i = 0; i < 100; ++i) text += "the he then don't\n";
  write("t.txt", text);
  const TokenizeOptions options{.input = in("t.txt"),
                                .vocab = in("vocab.json"),
                                .merges = in("merges.txt"),
                                .output = in("out"),
                                .validation_fraction = 0.1,
                                .shard_tokens = 500,
                                .end_of_text = true};
  const std::string report = data_tokenize(options);

  const data::Bpe bpe(options.vocab, options.merges);
  const std::size_t border = 90 * 18;  // a line has 18 bytes
  std::vector<std::int32_t> train = {bpe.end_of_text()}, val = {bpe.end_of_text()}, written;
  bpe.encode(text.substr(0, border), train);
  bpe.encode(text.substr(border), val);
  for (const char* file : {"out/train/train_000000.bin", "out/train/train_000001.bin"})
    for (const std::int32_t token : tokens_of(in(file))) written.push_back(token);
  EXPECT_EQ(written, train);
  EXPECT_EQ(tokens_of(in("out/val/val_000000.bin")), val);
  EXPECT_THAT(report, HasSubstr(fmt::format("{} tokens of 1.58 KiB in 2 files", train.size())));
  EXPECT_THAT(data_ls({in("out/val")}), HasSubstr(fmt::format("token shard, {} tokens", val.size())));
}

TEST_F(DataCommand, TokenizeRefusesWhatItCannotDo) {
  testing::write_bpe(scratch_.path().string(), testing::english_merges());
  write("bad.txt", "ab\xFF");
  TokenizeOptions options{
      .input = in("bad.txt"), .vocab = in("vocab.json"), .merges = in("merges.txt"), .output = in("out")};
  EXPECT_THAT(error_text(ErrorKind::data, [&] { (void)data_tokenize(options); }), HasSubstr("byte 2 is 0xff"));
  write("good.txt", "abc\n");
  options.input = in("good.txt");
  write("out", "a file");
  EXPECT_THAT(error_text(ErrorKind::environment, [&] { (void)data_tokenize(options); }), HasSubstr("cannot be made"));
}

}  // namespace
}  // namespace lockstep
