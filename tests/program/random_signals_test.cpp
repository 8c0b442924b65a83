// Signals at random moments of a job's life, one run after the other.
#include <algorithm>
#include <csignal>
#include <random>
#include <thread>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

namespace fs = std::filesystem;

class RandomSignals : public ProgramTest {
 protected:
  [[nodiscard]] static std::string train(const std::string& name, const std::string& steps) {
    return "mpirun -n 2 lockstep train job.yaml --set run.checkpoint.every=50 --set run.log_every=100000000 --set "
           "run.name=" +
           name + " --set run.steps=" + steps;
  }
  /// The step of the newest checkpoint; 0 without one.
  [[nodiscard]] std::int64_t newest() const {
    std::int64_t step = 0;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(path("runs/r/checkpoints"), none))
      if (const std::string name = entry.path().filename().string(); name.starts_with("step-"))
        step = std::max<std::int64_t>(step, std::stoll(name.substr(5)));
    return step;
  }
  [[nodiscard]] std::int64_t lines_of(const std::string& run) const {
    const std::string text = text_of(path("runs/" + run + "/metrics.jsonl"));
    return std::count(text.begin(), text.end(), '\n');
  }
};

TEST_F(RandomSignals, TwentyOfThemBreakNoCheckpointAndChangeNoBit) {
  constexpr int signals = 20;
  constexpr std::array kinds = {SIGUSR1, SIGUSR2, SIGTERM};
  const unsigned seed = std::random_device()();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const auto up_to = [&](double seconds) {
    return Seconds(std::uniform_real_distribution<double>(0, seconds)(random));
  };
  int during_training = 0;

  for (int i = 0; i < signals; ++i) {
    const int kind = kinds[static_cast<std::size_t>(i) % kinds.size()];
    const bool early = random() % 4 == 0;
    const auto target = static_cast<int>(random() % 3) - 1;  // -1: mpirun
    const std::int64_t before = newest();
    Program program(train("r", "100000000"), options());
    if (!early) {
      ASSERT_TRUE(program.wait_for("step  ")) << program.output();
    }
    std::this_thread::sleep_for(early ? up_to(0.5) : up_to(0.3));
    const bool trained = program.output().find("step  ") != std::string::npos;
    const auto ranks = program.ranks();
    const std::string what = "seed " + std::to_string(seed) + ", signal " + std::to_string(i) + ": " +
                             std::to_string(kind) + " to " +
                             (ranks.contains(target) ? "rank " + std::to_string(target) : "mpirun") +
                             (trained ? " in training" : " while it starts");
    if (ranks.contains(target))
      kill(ranks.at(target), kind);
    else
      program.signal(kind);
    if (kind == SIGUSR1 && trained) {
      EXPECT_TRUE(program.wait_for("checkpoint runs/r/checkpoints/step-")) << what;
      EXPECT_EQ(program.ranks().size(), 2U) << what << ": it goes on";
    }
    if (kind == SIGUSR1) program.signal(SIGUSR2);
    // mpirun loses what comes before it has ranks to hand it on to.
    for (int again = 0; !trained && again < 30 && !program.all_gone(Seconds(1)); ++again) program.signal(SIGUSR2);
    const Outcome outcome = program.finish();

    // mpirun itself answers SIGTERM with a code of its own, and whoever dies before it can hear of a wish with another.
    if (trained && (kind != SIGTERM || ranks.contains(target))) {
      EXPECT_EQ(outcome.exit_code, 75) << what << outcome.all();
    }
    if (trained) {
      EXPECT_EQ(count_of(outcome.err, "everything is saved"), 1) << what << outcome.all();
      EXPECT_GT(newest(), before) << what;
    }
    EXPECT_NE(outcome.exit_code, 0) << what;
    EXPECT_TRUE(program.all_gone(Seconds(5))) << what;
    if (newest() > 0) {
      const Outcome verified = run("lockstep ckpt verify runs/r");
      EXPECT_EQ(verified.exit_code, 0) << what << verified.all();
    }
    during_training += trained ? 1 : 0;
    if (HasFailure()) return;
  }
  EXPECT_GE(during_training, signals / 2);

  const std::int64_t steps = newest() + 20;
  const Outcome last = run(train("r", std::to_string(steps)));
  const Outcome whole = run(train("whole", std::to_string(steps)));

  std::printf("%lld steps, %d of %d signals in training\n", static_cast<long long>(steps), during_training, signals);
  EXPECT_EQ(last.exit_code, 0) << last.all();
  EXPECT_EQ(whole.exit_code, 0) << whole.all();
  EXPECT_EQ(lines_of("r"), steps);
  EXPECT_EQ(lines_of("whole"), steps);
  const Outcome compared = run("lockstep compare runs/whole runs/r");
  EXPECT_EQ(compared.exit_code, 0) << compared.all();
}

}  // namespace
}  // namespace lockstep::testing
