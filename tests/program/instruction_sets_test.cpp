// One binary on every instruction set: what this CPU has is forced in turn, and trains the same model.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/isa.hpp"
#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

using Environment = std::map<std::string, std::string>;

class InstructionSets : public ProgramTest {
 protected:
  InstructionSets() {
    std::string text;
    for (int i = 0; i < 500; ++i) text += fmt::format("{} lambs by {} rivers.\n", i * i % 17, i % 5);
    write_text(path("text.txt"), text);
    write_text(path("job.yaml"),
               "model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 64, block_size: 32}\n"
               "data: {type: text, path: text.txt}\n"
               "run: {output_dir: runs, steps: 20, log_every: 0, checkpoint: {every: 0}}\n"
               "optimizer: {type: AdamW, params: {lr: 2.0e-3}}\n"
               "train_batch_size: 8\n");
  }

  struct Trained {
    std::string header;
    std::vector<double> losses;
  };
  [[nodiscard]] Trained train(const std::string& name, const std::string& more, const Environment& environment) const {
    const Outcome outcome = run(fmt::format("lockstep train job.yaml --set run.name={} {}", name, more), environment);
    EXPECT_EQ(outcome.exit_code, 0) << name << ": " << outcome.all();
    Trained trained{.header = outcome.out, .losses = {}};
    std::ifstream in(path("runs/" + name + "/metrics.jsonl"));
    for (std::string line; std::getline(in, line);)
      trained.losses.push_back(nlohmann::json::parse(line).at("loss").get<double>());
    return trained;
  }

  static void expect_near(const Trained& trained, const Trained& expected, double tolerance) {
    ASSERT_EQ(trained.losses.size(), expected.losses.size());
    for (std::size_t i = 0; i < trained.losses.size(); ++i)
      EXPECT_NEAR(trained.losses[i], expected.losses[i], tolerance) << "step " << i + 1;
  }
};

/// Ways to compute bf16 that this CPU has, by what asks for them.
std::vector<Environment> bf16_ways() {
  std::vector<Environment> ways = {{{"LOCKSTEP_ISA", "baseline"}}};
  if (current_isa() >= Isa::avx2) ways.push_back({{"LOCKSTEP_ISA", "avx2"}});
  if (current_isa() >= Isa::avx512) ways.push_back({{"LOCKSTEP_BF16", "widened"}});
  if (current_isa() >= Isa::avx512 && __builtin_cpu_supports("avx512bf16") != 0)
    ways.push_back({{"LOCKSTEP_BF16", "dot"}});
  if (has_amx_bf16()) ways.push_back({{"LOCKSTEP_BF16", "tiles"}});
  return ways;
}

TEST_F(InstructionSets, AllTrainTheSameModelUpToRounding) {
  const Trained own = train("own", "", {});
  ASSERT_EQ(own.losses.size(), 20U);
  EXPECT_LT(own.losses.back(), 0.8 * own.losses.front()) << "it learns";
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (isa <= current_isa()) {
      SCOPED_TRACE(to_string(isa));
      const std::string name(to_string(isa));
      const Trained forced = train(name, "", {{"LOCKSTEP_ISA", name}});
      // "cpu (auto) avx2", or where the CUDA module is built, "cpu (auto: the NVIDIA driver is missing) avx2".
      EXPECT_THAT(forced.header, ::testing::ContainsRegex("cpu \\(auto[^)]*\\) " + name));
      expect_near(forced, own, 2e-4);
    }
}

/// Tolerance: bf16 has 8 bits, so each product of a step is right to 2^-9 of its size; over 20 steps losses of about 3
/// stay within 0.02 of the fp32 ones.
TEST_F(InstructionSets, EveryWayToMultiplyBf16TrainsTheSameModelUpToItsRounding) {
  const Trained single = train("fp32", "", {});
  int number = 0;
  for (const Environment& way : bf16_ways()) {
    const std::string asked = way.begin()->second;
    SCOPED_TRACE(asked);
    const Trained trained = train(fmt::format("bf16_{}", number++), "--set bf16.enabled=true", way);
    expect_near(trained, single, 0.02);
    const Bf16Products products = asked == "tiles" ? Bf16Products::tiles
                                  : asked == "dot" ? Bf16Products::dot
                                                   : Bf16Products::widened;
    EXPECT_NE(trained.header.find(fmt::format("bf16 products {}", expectation(products))), std::string::npos)
        << trained.header;
  }
}

TEST_F(InstructionSets, AResumeWithAnotherWayToMultiplyBf16SaysThatBitsDiffer) {
  if (current_bf16_products() == Bf16Products::widened) GTEST_SKIP() << "this CPU has one way";
  const std::string job = "--set bf16.enabled=true --set run.name=moved --set run.checkpoint.every=4 ";
  (void)run("lockstep train job.yaml --set run.steps=4 " + job);
  const Outcome same = run("lockstep train job.yaml --set run.steps=8 --set run.resume=auto " + job);
  EXPECT_EQ(same.exit_code, 0) << same.all();
  EXPECT_EQ(same.out.find("written by"), std::string::npos) << same.out;

  const Outcome other =
      run("lockstep train job.yaml --set run.steps=12 --set run.resume=auto " + job, {{"LOCKSTEP_BF16", "widened"}});

  EXPECT_EQ(other.exit_code, 0) << other.all();
  EXPECT_NE(other.out.find("bf16 products widened: the same up to rounding, not to the bit"), std::string::npos)
      << other.out;
}

TEST_F(InstructionSets, AWayThatIsNotThereIsRefused) {
  for (const auto& [environment, text] : std::vector<std::pair<Environment, std::string>>{
           {{{"LOCKSTEP_BF16", "fast"}}, "expected widened, dot or tiles"},
           {{{"LOCKSTEP_ISA", "baseline"}, {"LOCKSTEP_BF16", "dot"}}, "this CPU, with baseline, does not have it"}}) {
    const Outcome outcome = run("lockstep train job.yaml", environment);
    EXPECT_EQ(outcome.exit_code, 8) << outcome.all();
    EXPECT_NE(outcome.err.find(text), std::string::npos) << outcome.all();
  }
}

}  // namespace
}  // namespace lockstep::testing
