// Several hosts: network namespaces of this one (tools/hosts.sh), real mpirun between them.
#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "tests/program/jobs.hpp"
#include "tests/support/checkpoint_tensors.hpp"

namespace lockstep::testing {
namespace {

using nlohmann::json;

class Hosts : public ProgramTest {
 protected:
  Hosts() : environment_{{"LOCKSTEP_HOSTS", fmt::format("test{}", getpid())}} {
    write_text(path("job.yaml"),
               "model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 64, block_size: 32}\n"
               "data: {type: text, path: text.txt}\n"
               "run: {name: r, output_dir: runs, steps: 6, eval_every: 3, log_every: 1, threads: 1}\n"
               "train_batch_size: 12\n");
    std::string text;
    for (int i = 0; i < 500; ++i) text += fmt::format("{} lambs by {} rivers.\n", i * i % 17, i % 5);
    write_text(path("text.txt"), text);
  }
  ~Hosts() override { (void)hosts("down"); }

  [[nodiscard]] Outcome hosts(const std::string& command) const {
    return run(LOCKSTEP_HOSTS_SCRIPT " " + command, environment_);
  }
  /// A test without hosts is skipped: containers may not have network namespaces.
  [[nodiscard]] bool up(int count, const std::string& how = "") const {
    const Outcome outcome = hosts(fmt::format("up {} {}", count, how));
    if (outcome.exit_code != 0) refusal_ = outcome.all();
    return outcome.exit_code == 0;
  }
  static std::string on_hosts(const std::string& list, int ranks) {
    return fmt::format(LOCKSTEP_HOSTS_SCRIPT " mpirun --host {} -n {} ", list, ranks);
  }
  [[nodiscard]] Program::Options on_network() const { return options(environment_); }

  struct Trace {
    std::vector<json> lines;
    std::map<std::string, std::string> tensors;
    bool operator==(const Trace&) const = default;
  };
  [[nodiscard]] Trace trace_of(const std::string& name) const {
    Trace trace;
    std::ifstream in(path("runs/" + name + "/metrics.jsonl"));
    for (std::string text; std::getline(in, text);) {
      json& line = trace.lines.emplace_back(json::parse(text));
      for (const char* measured : {"tokens_per_s", "step_ms", "memory_bytes"}) line.erase(measured);
    }
    trace.tensors = logical_tensors(path("runs/" + name + "/checkpoints/step-6"));
    return trace;
  }
  /// The same job on one host and on several.
  void expect_the_same(const std::string& list, int ranks, const std::string& settings, const std::string& how) const {
    const std::string train = "lockstep train job.yaml --resume never --set run.name={} " + settings;
    const Outcome one = run(fmt::format("mpirun -n {} ", ranks) + fmt::format(fmt::runtime(train), "one"));
    ASSERT_EQ(one.exit_code, 0) << one.all();
    const Outcome several = run(on_hosts(list, ranks) + fmt::format(fmt::runtime(train), "several"), environment_);
    ASSERT_EQ(several.exit_code, 0) << several.all();
    EXPECT_NE(several.out.find(how), std::string::npos) << several.out;
    const Trace expected = trace_of("one");
    ASSERT_EQ(expected.lines.size(), 6U);
    EXPECT_TRUE(trace_of("several") == expected) << list << " " << settings;
  }

  std::map<std::string, std::string> environment_;
  mutable std::string refusal_;
};

TEST_F(Hosts, TwoHostsOfTwoRanksLeaveTheBitsOfFourRanksOnOne) {
  if (!up(2)) GTEST_SKIP() << refusal_;
  for (const int stage : {0, 2, 3})
    expect_the_same("h1:2,h2:2", 4, fmt::format("--set zero_optimization.stage={}", stage),
                    "shared memory within a host) x 1 thread on 2 hosts");
  expect_the_same("h1:2,h2:2", 4, "--set bf16.enabled=true --set zero_optimization.stage=2", "on 2 hosts");
  expect_the_same("h1:2,h2:2", 4, "--set run.determinism=invariant --set train_micro_batch_size_per_gpu=1",
                  "on 2 hosts");
}

TEST_F(Hosts, SoDoThreeHostsAndNumbersOfRanksThatDivideNothing) {
  if (!up(3)) GTEST_SKIP() << refusal_;
  expect_the_same("h1:2,h2:2,h3:2", 6, "", "on 3 hosts");
  expect_the_same("h1:1,h2:1,h3:1", 3, "", "mpi (Open MPI");
  expect_the_same("h1:2,h2:1", 3, "", "on 2 hosts");
}

TEST_F(Hosts, GradientsTravelInSixteenBitsWhereTheyAreAskedToAndTheHeaderSaysSo) {
  if (!up(2)) GTEST_SKIP() << refusal_;
  const std::string train = "lockstep train job.yaml --resume never --set run.name={} --set {}";
  const auto on_network = [&](const std::string& name, const std::string& settings) {
    const Outcome outcome =
        run(on_hosts("h1:2,h2:2", 4) + fmt::format(fmt::runtime(train), name, settings), environment_);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
    return outcome.out;
  };
  on_network("full", "comm.wire=fp32");
  const std::string said = on_network("bf16", "comm.wire=bf16");
  EXPECT_NE(said.find("gradients as bf16"), std::string::npos) << said;
  on_network("divided", "communication_data_type=bf16 --set zero_optimization.stage=2");
  on_network("fp16", "comm.wire=fp16");

  const Trace full = trace_of("full"), bf16 = trace_of("bf16"), divided = trace_of("divided"), fp16 = trace_of("fp16");
  EXPECT_TRUE(divided == bf16) << "stages divide the same sums";
  EXPECT_FALSE(bf16 == full || fp16 == full || fp16 == bf16);
  for (const Trace* rounded : {&bf16, &fp16})
    for (std::size_t i = 0; i < full.lines.size(); ++i) {
      const double loss = full.lines[i].at("loss").get<double>();
      EXPECT_NEAR(rounded->lines[i].at("loss").get<double>(), loss, 2e-4 * loss) << i;
    }

  const Outcome one_host = run("mpirun -n 4 " + fmt::format(fmt::runtime(train), "one", "comm.wire=bf16"));
  EXPECT_NE(one_host.out.find("gradients do not travel as bf16: the ranks of one host add them in memory"),
            std::string::npos)
      << one_host.out;
  const Outcome invariant =
      run("lockstep train job.yaml --set comm.wire=bf16 --set run.determinism=invariant --set "
          "train_micro_batch_size_per_gpu=1");
  EXPECT_EQ(invariant.exit_code, 2);
  EXPECT_NE(invariant.err.find("does not go with run.determinism: invariant"), std::string::npos) << invariant.err;
}

TEST_F(Hosts, RanksThatAreDealtOutInTurnAreTrainedTheSameAndToldOf) {
  if (!up(2)) GTEST_SKIP() << refusal_;
  expect_the_same("h1:2,h2:2 --map-by node", 4, "", "on 2 hosts");
  const Outcome outcome =
      run(on_hosts("h1:2,h2:2 --map-by node", 4) + "lockstep train job.yaml --resume never", environment_);
  EXPECT_NE(outcome.all().find("--map-by slot"), std::string::npos) << outcome.all();
}

TEST_F(Hosts, AHostThatDisappearsIsNamedByTheRanksOfTheOtherAndTheJobEndsWithSix) {
  if (!up(2, "--retries 3")) GTEST_SKIP() << refusal_;
  Program program(on_hosts("h1:2,h2:2", 4) +
                      "lockstep train job.yaml --set run.steps=1000000 --set comm.timeout_s=3 --set comm.warn_s=1",
                  on_network());
  ASSERT_TRUE(program.wait_for("step       5")) << program.output();
  EXPECT_NE(program.output().find("may wait for that host for many minutes"), std::string::npos) << program.output();

  ASSERT_EQ(hosts("cut h2").exit_code, 0);

  const Outcome outcome = program.finish(Seconds(60));
  EXPECT_EQ(outcome.exit_code, 6) << outcome.all();
  EXPECT_NE(outcome.all().find("no answer from rank 2 (h2), rank 3 (h2) within 3 s"), std::string::npos)
      << outcome.all();
  EXPECT_TRUE(program.all_gone(Seconds(10))) << "ranks of both hosts end, each by its own watch";
}

TEST_F(Hosts, AHostThatDisappearsEndsMpirunWhereItsKeepaliveIsShorterThanTheDeadline) {
  if (!up(2)) GTEST_SKIP() << refusal_;
  Program program(on_hosts("h1:2,h2:2 --mca oob_tcp_keepalive_time 2 --mca oob_tcp_keepalive_intvl 1 --mca "
                           "oob_tcp_keepalive_probes 2",
                           4) +
                      "lockstep train job.yaml --set run.steps=1000000 --set comm.timeout_s=10 --set comm.warn_s=1",
                  on_network());
  ASSERT_TRUE(program.wait_for("step       5")) << program.output();
  EXPECT_EQ(program.output().find("many minutes"), std::string::npos) << program.output();

  ASSERT_EQ(hosts("cut h2").exit_code, 0);

  const Outcome outcome = program.finish(Seconds(20));
  EXPECT_EQ(outcome.exit_code, 205) << "mpirun's own code";
  EXPECT_NE(outcome.all().find("on node h2"), std::string::npos) << outcome.all();
  // The launcher's daemon there may have words on their way to mpirun, and then stays until TCP gives up.
  EXPECT_TRUE(program.ranks_gone(Seconds(20))) << "the ranks of the lost host end at their deadline";
}

}  // namespace
}  // namespace lockstep::testing
