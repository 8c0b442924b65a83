// `lockstep bench`: what it writes agrees with itself. Speeds are nobody's business here.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

using ::testing::HasSubstr;

const std::string small =
    "--samples 2 --seconds 1 --elements 100000 --bytes 65536 --tokens 32 --width 32 --vocabulary 64 --batch 1 --length "
    "16 "
    "--heads 2 --head-size 16 --peak 64 --set model.n_layer=1 --set model.n_head=2 --set model.n_embd=16 --set "
    "model.block_size=8 --set data.vocab_size=64 ";

class Bench : public ProgramTest {
 protected:
  /// Runs it with a JSON file, checks what is in it and returns the names of the measurements.
  std::set<std::string> measured_by(const std::string& command) {
    const Outcome outcome = run(command + " --json bench.json");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
    EXPECT_THAT(outcome.out, HasSubstr("lockstep 0.1.0 ("));
    const auto json = nlohmann::json::parse(text_of(path("bench.json")));
    for (const char* key : {"version", "commit", "build", "host", "device", "cpu", "isa", "comm"})
      EXPECT_FALSE(json.at("machine").at(key).get<std::string>().empty()) << key;
    ranks_ = json["machine"]["ranks"];
    std::set<std::string> names;
    for (const auto& bench : json.at("benches")) {
      names.insert(bench.at("bench").get<std::string>());
      for (const auto& line : bench.at("lines")) expect_consistent(line, bench.at("lines"));
    }
    return names;
  }

  static void expect_consistent(const nlohmann::json& line, const nlohmann::json& all) {
    SCOPED_TRACE(line.dump());
    const double median = line.at("seconds").at("median");
    if (line.contains("gb_s")) {
      EXPECT_NEAR(line["bytes"].get<double>() / median / 1e9, line["gb_s"], 1e-9 * line["gb_s"].get<double>());
    }
    if (line.contains("tflop_s")) {
      EXPECT_NEAR(line["flops"].get<double>() / median / 1e12, line["tflop_s"], 1e-9 * line["tflop_s"].get<double>());
    }
    EXPECT_GE(line.at("samples").size(), 2U);
    EXPECT_LE(line.at("rejected").get<std::size_t>(), line["samples"].size() - 2);
    if (!line.contains("ceiling")) return;
    const char* rate = line.contains("tflop_s") ? "tflop_s" : "gb_s";
    double ceiling = 0;
    for (const auto& other : all)
      if (other["name"] == line["ceiling"] || other.value("group", "") == line["ceiling"])
        ceiling = std::max(ceiling, other.at(rate).get<double>());
    ASSERT_GT(ceiling, 0) << "it is not among the lines";
    EXPECT_NEAR(line.at("share"), line[rate].get<double>() / ceiling, 1e-9 * line["share"].get<double>());
  }

  int ranks_ = 0;
};

TEST_F(Bench, OfEachKindWritesFiguresThatAgree) {
  EXPECT_EQ(measured_by("lockstep bench optimizer --samples 2 --seconds 1 --elements 100000"),
            (std::set<std::string>{"optimizer"}));
  EXPECT_EQ(measured_by("lockstep bench allreduce --samples 2 --seconds 1 --ranks 3 --bytes 65536 --bytes 400000"),
            (std::set<std::string>{"allreduce"}));
  EXPECT_EQ(ranks_, 3);
  EXPECT_EQ(measured_by("lockstep bench update --samples 2 --seconds 1 --ranks 3 --elements 100000"),
            (std::set<std::string>{"update"}));
  EXPECT_EQ(measured_by("lockstep bench step job.yaml --samples 2 --seconds 1 --peak 64 --set train_batch_size=4"),
            (std::set<std::string>{"step"}));
}

TEST_F(Bench, OfAllUnderMpiMeasuresAllOnItsRanks) {
  EXPECT_EQ(measured_by("mpirun -n 2 lockstep bench all " + small),
            (std::set<std::string>{"optimizer", "allreduce", "update", "gemm", "attention", "step"}));
  EXPECT_EQ(ranks_, 2);
  EXPECT_THAT(text_of(path("bench.json")), HasSubstr("MPI_Allreduce, then adamw"));
  EXPECT_THAT(text_of(path("bench.json")), HasSubstr("MPI_Iallreduce of 64.0 KiB"));
}

TEST_F(Bench, OfAllOnOneRankSaysWhatItLeavesOut) {
  const Outcome outcome = run("lockstep bench all " + small);

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_THAT(outcome.out, HasSubstr("left out: one rank has nobody to exchange with"));
  const Outcome alone = run("lockstep bench allreduce");
  EXPECT_EQ(alone.exit_code, 2) << alone.all();
  EXPECT_THAT(alone.err, HasSubstr("start it with mpirun -n 2"));
  const Outcome update = run("lockstep bench update");
  EXPECT_EQ(update.exit_code, 2) << update.all();
  EXPECT_THAT(update.err, HasSubstr("lockstep bench optimizer"));
}

/// After the first steps everything is there: primitives, packed weights, scratch memory, threads. Memory that came and
/// went with each step would cost a fault each time; a thread's stack may still grow by a page.
TEST_F(Bench, AStepThatHasBeenTakenBeforeFaultsNoPage) {
  for (const std::string more : {"--set bf16.enabled=true", "--set bf16.enabled=false"}) {
    const Outcome outcome =
        run("lockstep bench step --json bench.json --threads 2 --samples 2 --peak 64 --classes 64 "
            "--set model.n_layer=2 --set model.n_head=2 --set model.n_embd=64 " +
            more);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.all();
    const auto json = nlohmann::json::parse(text_of(path("bench.json")));
    EXPECT_LT(json["benches"][0]["figures"].at("page_faults_a_step"), 1.0) << more;
  }
}

TEST_F(Bench, MistakesHaveTheCodesOfTheOtherCommands) {
  EXPECT_EQ(run("lockstep bench").exit_code, 2);
  EXPECT_EQ(run("lockstep bench optimizer --device gpu").exit_code, 2);
  EXPECT_EQ(run("lockstep bench optimizer --elements 0").exit_code, 2);
  const Outcome field = run("lockstep bench step --set model.n_lyer=2");
  EXPECT_EQ(field.exit_code, 2) << field.all();
  EXPECT_THAT(field.err, HasSubstr("did you mean 'n_layer'?"));
  const Outcome file = run("lockstep bench optimizer --samples 1 --seconds 0 --elements 1000 --json nowhere/x.json");
  EXPECT_EQ(file.exit_code, 8) << file.all();
  EXPECT_THAT(file.err, HasSubstr("nowhere/x.json cannot be written"));
}

}  // namespace
}  // namespace lockstep::testing
