// examples/gpt2_124m, as far as a machine without its data and a GPU can hold it.
#include <gmock/gmock.h>

#include "tests/program/jobs.hpp"
#include "tests/support/source_dir.hpp"
#include "tests/support/token_files.hpp"

namespace lockstep::testing {
namespace {

using ::testing::HasSubstr;

class Gpt2Example : public ProgramTest {
 protected:
  Gpt2Example() {
    std::filesystem::create_directories(path("fineweb10B"));
    std::filesystem::copy_file(source_dir() + "/examples/gpt2_124m/job.yaml", path("gpt2.yaml"));
    std::vector<std::uint16_t> ids;
    for (int i = 0; i < 60'000; ++i) ids.push_back(static_cast<std::uint16_t>(i % 50257));
    write_text(path("fineweb10B/fineweb_train_000001.bin"), llm_c_shard(ids));
    write_text(path("fineweb10B/fineweb_val_000000.bin"), llm_c_shard(ids));
  }
};

TEST_F(Gpt2Example, IsAJobForOneRankAndForEightAndSixteen) {
  const Outcome one = run("lockstep config gpt2.yaml -n 1"), eight = run("lockstep config gpt2.yaml -n 8");
  const Outcome sixteen = run("lockstep config gpt2.yaml -n 16 --set train_micro_batch_size_per_gpu=32");

  EXPECT_EQ(one.exit_code, 0) << one.all();
  EXPECT_THAT(one.out, HasSubstr("1 rank (from MPI) x 64 micro (given) x 8 accumulation (derived) = 512"));
  EXPECT_EQ(eight.exit_code, 0) << eight.all();
  EXPECT_THAT(eight.out, HasSubstr("8 ranks (from MPI) x 64 micro (given) x 1 accumulation (derived) = 512"));
  EXPECT_EQ(sixteen.exit_code, 0) << sixteen.all();
  EXPECT_THAT(one.out, HasSubstr("n_layer: 12"));
}

TEST_F(Gpt2Example, ItsScheduleEndsWithTheRun) {
  const Outcome rates = run("lockstep lr gpt2.yaml --format csv");

  EXPECT_EQ(rates.exit_code, 0) << rates.all();
  EXPECT_THAT(rates.out, HasSubstr("\n699,0,0.0006,"));
  EXPECT_THAT(rates.out, HasSubstr("\n19072,0,"));
}

TEST_F(Gpt2Example, ASmallerModelTrainsFromTheSameFile) {
  const Outcome trained =
      run("mpirun -n 2 lockstep train gpt2.yaml --set model.n_layer=1 --set model.n_head=1 --set model.n_embd=16 "
          "--set model.block_size=32 --set train_batch_size=2 --set train_micro_batch_size_per_gpu=1 --set run.steps=3 "
          "--set run.eval_every=3 --set data.validation_tokens=64");

  EXPECT_EQ(trained.exit_code, 0) << trained.all();
  EXPECT_THAT(trained.all(), HasSubstr("(60000 tokens in 1 file, vocabulary 50257: 60000 to train, 65 of "));
  EXPECT_THAT(trained.all(), HasSubstr("(2 validation samples)"));
}

}  // namespace
}  // namespace lockstep::testing
