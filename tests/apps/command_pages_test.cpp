#include "apps/command_pages.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep {
namespace {

using lockstep::testing::error_text;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// Two commands, one of which has a command of its own.
class Pages : public ::testing::Test {
 protected:
  Pages() : app_("Does things.") {
    auto* train = app_.add_subcommand("train", "it's trained");
    train->add_option("job", word_, "job file")->required();
    train->add_option("--resume", word_, "from where");
    auto* bench = app_.add_subcommand("bench", "measured");
    auto* step = bench->add_subcommand("step", "a step");
    step->add_option("-n,--number", number_, ".how many\\")->capture_default_str();
  }
  CLI::App app_;
  std::string word_;
  int number_ = 7;
};

TEST_F(Pages, EveryShellKnowsEveryCommandAndOption) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = completion_script(app_, shell);
    for (const char* word : {"train", "bench", "step", "resume", "number", "help"})
      EXPECT_THAT(script, HasSubstr(word)) << shell;
  }
  EXPECT_THAT(completion_script(app_, "bash"),
              AllOf(HasSubstr("'bench step') words='"), HasSubstr("'') words='train bench ")));
  EXPECT_THAT(completion_script(app_, "fish"),
              HasSubstr("__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from step' -l number"));
  EXPECT_THAT(completion_script(app_, "fish"), HasSubstr(R"(-a train -d 'it'\''s trained')"));
  EXPECT_THAT(error_text(ErrorKind::config, [&] { (void)completion_script(app_, "tcsh"); }),
              HasSubstr("bash, zsh and fish"));
}

TEST_F(Pages, TheManualHasEveryCommandItsOptionsAndTheirDefaults) {
  const std::string page = manual_page(app_, "1.2.3");
  for (const char* part :
       {".TH LOCKSTEP 1 \"\" \"lockstep 1.2.3\"", ".B lockstep train\n.I job\n", ".SS bench step\na step\n",
        "\\&.how many\\e (default 7)", ".B \\-n, \\-\\-number\n", ".SH EXIT STATUS"})
    EXPECT_THAT(page, HasSubstr(part));
  EXPECT_THAT(page, Not(HasSubstr(".B lockstep bench\n"))) << "only its commands run";
}

}  // namespace
}  // namespace lockstep
