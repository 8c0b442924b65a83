#include "apps/arguments.hpp"

#include <gmock/gmock.h>

#include "tests/support/error_text.hpp"

namespace lockstep {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(Limits, AreReadable) {
  EXPECT_EQ(with_separators(0), "0");
  EXPECT_EQ(with_separators(999), "999");
  EXPECT_EQ(with_separators(-1000), "-1,000");
  EXPECT_EQ(with_separators(10'000'000), "10,000,000");
  EXPECT_EQ(limits_text<std::int64_t>(1, 1'000'000), "from 1 to 1,000,000");
  EXPECT_EQ(limits_text<std::int64_t>(0, std::numeric_limits<std::int64_t>::max()), "from 0 up");
  EXPECT_EQ(limits_text(0.0, 0.5), "from 0 to 0.5");
}

TEST(Limits, BelongToTheNumberThatIsRefused) {
  const CLI::Validator updates = between<std::int64_t>(1, 10'000'000);
  for (const char* text : {"-5", "0", "10000001", "1.5", "ten", ""}) {
    std::string given = text;
    EXPECT_EQ(updates(given), fmt::format("'{}' is not a whole number from 1 to 10,000,000", text));
  }
  std::string good = "10000000";
  EXPECT_THAT(updates(good), IsEmpty());
  std::string nan = "nan";
  EXPECT_EQ(between(0.0, 1.0)(nan), "'nan' is not a number from 0 to 1");
}

struct Program {
  CLI::App app{"program"};
  Program() {
    app.add_subcommand("train", "")->add_option("--resume", value, "");
    app.add_subcommand("bench", "")->add_subcommand("step", "");
    app.add_subcommand("lr", "")->add_option("--updates", value, "");
  }
  std::string value;
};

std::string refused_command(const std::vector<std::string>& words) {
  Program program;
  return testing::error_text(ErrorKind::config, [&] { require_known_command(program.app, words); });
}

TEST(Commands, AMistypedOneGetsTheNearest) {
  EXPECT_EQ(refused_command({"trian", "job.yaml"}),
            "lockstep: unknown command 'trian', did you mean 'train'?; commands: train, bench, lr");
  EXPECT_EQ(refused_command({"bench", "setp"}),
            "lockstep bench: unknown command 'setp', did you mean 'step'?; commands: step");
  EXPECT_EQ(refused_command({"frobnicate\x1B"}),
            "lockstep: unknown command 'frobnicate\\x1b'; commands: train, bench, lr");
  Program program;
  EXPECT_NO_THROW(require_known_command(program.app, {"train", "step"})) << "a job file may have any name";
  EXPECT_NO_THROW(require_known_command(program.app, {"--help"}));
}

std::string complaint_about(std::vector<std::string> words) {
  Program program;
  try {
    program.app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::ParseError& error) {
    return complaint(program.app, error, words);
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

TEST(Options, AMistypedOneGetsTheNearest) {
  EXPECT_THAT(complaint_about({"lr", "--udpates", "5"}),
              HasSubstr("lockstep lr: unknown option '--udpates', did you mean '--updates'?; options: "));
  EXPECT_THAT(complaint_about({"lr", "--updats=5"}), HasSubstr("unknown option '--updats'"));
  EXPECT_THAT(complaint_about({"lr", "a", "b"}), HasSubstr("not expected"));
}

TEST(Examples, EndTheHelp) {
  Program program;
  CLI::App* train = program.app.get_subcommand("train");

  add_examples(*train, "lockstep train a.yaml", "lockstep train b.yaml");

  EXPECT_THAT(train->help(), EndsWith("\nExamples:\n  lockstep train a.yaml\n  lockstep train b.yaml\n"));
}

}  // namespace
}  // namespace lockstep
