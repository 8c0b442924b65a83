// Command lines, as a shell hands them to the program.
#include <gmock/gmock.h>

#include <filesystem>
#include <sstream>
#include <vector>

#include "tests/program/jobs.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::testing {
namespace {

using ::testing::HasSubstr;

/// A text job of a moment, trained: what every command can be tried on.
class Arguments : public ProgramTest {
 protected:
  Arguments() {
    std::string text;
    for (int i = 0; i < 60; ++i) text += "And God said, a river of tents.\n";
    write_text(path("text.txt"), text);
    write_text(path("job.yaml"),
               "model: {type: gpt2, n_layer: 1, n_head: 1, n_embd: 16, block_size: 16}\n"
               "data: {type: text, path: text.txt}\n"
               "run: {output_dir: runs, steps: 4}\n"
               "train_batch_size: 8\n"
               "train_micro_batch_size_per_gpu: 1\n"  // up to eight ranks can go on with what one saved
               "scheduler: {type: WarmupLR, params: {warmup_num_steps: 2}}\n");
    write_text(path("ds_config.json"), "{\"train_batch_size\": 8}\n");
  }
  void train() const {
    ASSERT_EQ(run("lockstep train job.yaml").exit_code, 0);
    std::filesystem::copy(path("runs/job"), path("runs/other"), std::filesystem::copy_options::recursive);
  }
};

const std::vector<std::string> commands = {"",        "train ",    "lr ",         "lr-find ", "config ",  "explain ",
                                           "import ", "generate ", "report ",     "compare ", "bench ",   "bench step ",
                                           "init ",   "doctor ",   "completion ", "man ",     "preview ", "drill "};

/// The last two lines of a help, if they are what they should be.
std::vector<std::string> examples_of(const std::string& help) {
  std::vector<std::string> lines;
  std::istringstream in(help);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  if (lines.size() < 3 || lines[lines.size() - 3] != "Examples:") return {};
  return {lines[lines.size() - 2], lines[lines.size() - 1]};
}

TEST_F(Arguments, EveryHelpEndsWithTwoExamplesThatWork) {
  train();
  for (const std::string& command : commands) {
    const Outcome help = run("lockstep " + command + "--help");
    const std::vector<std::string> examples = examples_of(help.out);
    ASSERT_EQ(examples.size(), 2U) << help.all();
    if (command == "drill ") continue;  // DrillCommand has a job for them that lasts long enough
    for (const std::string& example : examples) {
      const Outcome outcome = run(example.substr(2));
      EXPECT_EQ(outcome.exit_code, 0) << example << "\n" << outcome.all();
    }
  }
}

TEST_F(Arguments, AFullDiskBehindTheOutputIsAnErrorOfEveryCommandButTraining) {
  train();
  for (const char* command :
       {"--version", "--help", "train --help", "lr job.yaml", "lr job.yaml --format csv", "lr job.yaml --format json",
        "config job.yaml", "config job.yaml --diff", "config --reference", "config --schema", "explain run.steps",
        "import ds_config.json", "report runs/job", "compare runs/job runs/other", "generate runs/job --tokens 3",
        "bench step job.yaml --samples 1 --peak 64"}) {
    const Outcome outcome = run(std::string("lockstep ") + command, {}, "> /dev/full");
    EXPECT_EQ(outcome.exit_code, 8) << command << outcome.all();
    EXPECT_THAT(outcome.err, HasSubstr("could not be written")) << command;
  }
  EXPECT_EQ(run("lockstep train job.yaml --resume never", {}, "> /dev/full").exit_code, 0);
}

TEST_F(Arguments, LimitsOfNumbersAreReadable) {
  EXPECT_THAT(run("lockstep lr job.yaml --updates -5").err,
              HasSubstr("--updates: '-5' is not a whole number from 1 to 10,000,000"));
  EXPECT_THAT(run("lockstep generate runs/job --seed -1").err,
              HasSubstr("--seed: '-1' is not a whole number from 0 up"));
  EXPECT_THAT(run("lockstep lr job.yaml --updates 1000000000").err, HasSubstr("from 1 to 10,000,000"));
}

TEST_F(Arguments, ALongRunShowsTheBeginningOfItsSchedule) {
  const Outcome outcome = run("lockstep lr job.yaml --set run.steps=1000000000");

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_THAT(outcome.err, HasSubstr("only the first 10,000,000 of run.steps 1,000,000,000 are shown"));
}

TEST_F(Arguments, APictureHasToBeAnSvg) {
  const Outcome outcome = run("lockstep lr job.yaml --plot a.png");

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, HasSubstr("the picture is written as SVG"));
  EXPECT_FALSE(std::filesystem::exists(path("a.png")));
}

TEST_F(Arguments, TwoWaysToShowAJobAreRefused) {
  const Outcome outcome = run("lockstep config job.yaml --diff --full");

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, HasSubstr("--full and --diff are two ways to show a job"));
  EXPECT_EQ(run("lockstep config job.yaml --diff --diff").exit_code, 0);
}

TEST_F(Arguments, AMistypedWordGetsTheNearest) {
  EXPECT_THAT(run("lockstep trian job.yaml").err, HasSubstr("did you mean 'train'?"));
  EXPECT_THAT(run("lockstep bench setp job.yaml").err, HasSubstr("did you mean 'step'?"));
  EXPECT_THAT(run("lockstep lr job.yaml --udpates 5").err, HasSubstr("did you mean '--updates'?"));
}

TEST_F(Arguments, GeneratePrintsNothingUntilAllIsChecked) {
  const Outcome missing = run("lockstep generate runs/nothing --prompt 'And God'");
  train();
  const Outcome unknown = run("lockstep generate runs/job --prompt 'And \xC3\xA9'");
  const Outcome known = run("lockstep generate runs/job --prompt 'And God' --tokens 3");

  EXPECT_EQ(missing.exit_code, 2) << missing.all();
  EXPECT_EQ(missing.out, "");
  EXPECT_EQ(unknown.exit_code, 3) << unknown.all();
  EXPECT_EQ(unknown.out, "");
  EXPECT_THAT(unknown.err, HasSubstr("character 5 of the prompt is '\xC3\xA9' (U+00E9)"));
  EXPECT_EQ(known.out.substr(0, 7), "And God") << known.all();
  EXPECT_EQ(known.out.size(), 11U);
}

/// The commands that an example's page shows.
std::vector<std::string> commands_of(const std::string& example) {
  const std::string page = text_of(source_dir() + "/examples/" + example + "/README.md");
  std::vector<std::string> printed;
  std::istringstream in(page);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("    lockstep ") || line.starts_with("    mpirun ")) printed.push_back(line.substr(4));
  return printed;
}

TEST_F(Arguments, OfTheDeepSpeedExampleWorkAsPrinted) {
  const std::vector<std::string> printed = commands_of("ds_config");

  ASSERT_EQ(printed.size(), 6U);
  Outcome first;
  for (std::string command : printed) {
    if (const std::size_t at = command.find("examples"); at != std::string::npos)
      command.replace(at, 0, source_dir() + "/");
    const Outcome outcome = run(command);
    const bool compares = command.starts_with("lockstep compare ");
    EXPECT_EQ(outcome.exit_code, compares ? 1 : 0) << command << "\n" << outcome.all();
    EXPECT_EQ(compares, outcome.out.find("losses: the first other bits are at step ") != std::string::npos);
    if (first.out.empty()) first = outcome;
  }
  EXPECT_THAT(first.out, HasSubstr("no effect here: fp16.fp16_master_weights_and_grads: it is off"));
  EXPECT_THAT(first.out, HasSubstr("schedule  WarmupLR; first update uses lr 0"));
  EXPECT_THAT(text_of(path("imported.yaml")), HasSubstr("# From that file, each key with its line.\n"
                                                        "train_batch_size: 16  # line 2\n"));
  for (const char* file : {"runs/ds_config/report.html", "runs/ds_config/csv_monitor/Train_Samples_lr.csv",
                           "runs/ds_config/tensorboard", "runs/ds_config/starts.jsonl"})
    EXPECT_TRUE(std::filesystem::exists(path(file))) << file;
}

TEST_F(Arguments, OfTheClusterExampleWorkAsPrintedOnTwoCores) {
  const std::vector<std::string> printed = commands_of("mlp_clusters");

  ASSERT_EQ(printed.size(), 3U);
  for (std::string command : printed) {
    command.replace(command.find("examples"), 0, source_dir() + "/");
    // A variable's value is the launcher as it is: the test's own word for it would oversubscribe always.
    if (command.starts_with("mpirun ")) command.replace(0, 6, "$LAUNCHER");
    const Outcome outcome = run(command, {{"LAUNCHER", "mpirun --host localhost:2"}});
    EXPECT_EQ(outcome.exit_code, 0) << command << "\n" << outcome.all();
  }
}

}  // namespace
}  // namespace lockstep::testing
