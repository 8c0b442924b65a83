// GPT-2's vocabulary of 50,257, from shards to a resumed run on two ranks.
#include <gmock/gmock.h>

#include "tests/program/jobs.hpp"
#include "tests/support/token_files.hpp"

namespace lockstep::testing {
namespace {

using ::testing::HasSubstr;

class Tokens : public ProgramTest {
 protected:
  Tokens() {
    for (int shard = 0; shard < 3; ++shard) {
      // Runs that count up, so that there is something to learn, over the whole vocabulary.
      std::vector<std::uint16_t> ids;
      for (int i = 0; i < 700; ++i) ids.push_back(static_cast<std::uint16_t>((i % 50 + 50200 * (i / 50 % 2)) % 50257));
      write_text(path("shard_" + std::to_string(shard) + ".bin"), llm_c_shard(ids));
    }
    write_text(path("job.yaml"),
               "model: {type: gpt2, n_layer: 1, n_head: 2, n_embd: 16, block_size: 32}\n"
               "data: {type: tokens, path: 'shard_*.bin', validation_fraction: 0.1}\n"
               "run: {name: r, output_dir: runs, steps: 30, log_every: 10, eval_every: 15}\n"
               "train_batch_size: 4\n"
               "optimizer: {type: AdamW, params: {lr: 1.0e-2}}\n");
  }
  [[nodiscard]] std::string metrics() const { return text_of(path("runs/r/metrics.jsonl")); }
};

/// Values of a key in metrics.jsonl, as texts.
std::vector<std::string> values_of(const std::string& metrics, const std::string& key) {
  std::vector<std::string> values;
  const std::string name = "\"" + key + "\":";
  for (std::size_t at = metrics.find(name); at != std::string::npos; at = metrics.find(name, at + 1)) {
    const std::size_t begin = at + name.size();
    values.push_back(metrics.substr(begin, metrics.find_first_of(",}", begin) - begin));
  }
  return values;
}

TEST_F(Tokens, TrainOnTwoRanksToALowerLossAndResumeToTheSameBits) {
  const Outcome trained = run("mpirun -n 2 lockstep train job.yaml --set run.threads=1");
  const std::vector<std::string> bits = values_of(metrics(), "loss_bits"), losses = values_of(metrics(), "loss");

  ASSERT_EQ(trained.exit_code, 0) << trained.all();
  EXPECT_THAT(trained.all(),
              HasSubstr("shard_*.bin (2100 tokens in 3 files, vocabulary 50257: 1890 to train, 210 to validate)"));
  ASSERT_EQ(bits.size(), 30U);
  EXPECT_NEAR(std::stod(losses.front()), 10.8, 0.3) << "ln 50257 = 10.82";
  EXPECT_LT(std::stod(losses.back()), 6.0);
  EXPECT_EQ(values_of(metrics(), "val_loss").size(), 2U);

  const std::string half = "mpirun -n 2 lockstep train job.yaml --set run.threads=1 --set run.name=h --set run.steps=";
  ASSERT_EQ(run(half + "13").exit_code, 0);
  ASSERT_EQ(run(half + "30").exit_code, 0);
  const std::vector<std::string> resumed = values_of(text_of(path("runs/h/metrics.jsonl")), "loss_bits");
  EXPECT_EQ(resumed, bits);
}

TEST_F(Tokens, OfAnotherVocabularyEndTheJobWithCode3OnAllRanksAndOneMessage) {
  const Outcome refused = run("mpirun -n 2 lockstep train job.yaml --set data.vocab_size=50000");

  EXPECT_EQ(refused.exit_code, 3) << refused.all();
  EXPECT_EQ(count_of(refused.err, "token 50 (byte 1124) is 50200, but with data.vocab_size 50000"), 1) << refused.err;
}

TEST_F(Tokens, HaveNoTokenizerToGenerateTextWith) {
  ASSERT_EQ(run("lockstep train job.yaml --set run.steps=1").exit_code, 0);
  const Outcome refused = run("lockstep generate runs/r --prompt a");

  EXPECT_EQ(refused.exit_code, 2) << refused.all();
  EXPECT_THAT(refused.err, HasSubstr("which is not text"));
}

}  // namespace
}  // namespace lockstep::testing
