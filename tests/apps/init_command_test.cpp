#include "apps/init_command.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "core/error.hpp"
#include "job/job.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep {
namespace {

using lockstep::testing::error_text;
using lockstep::testing::ScratchFolder;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string content(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(InitCommand, EveryTemplateIsAJobWithoutAWarning) {
  ASSERT_FALSE(job_templates().empty());
  for (const Template& one : job_templates()) {
    SCOPED_TRACE(one.name);
    const ScratchFolder folder;
    std::ofstream(folder / "ds_config.json")
        << R"({"train_batch_size": 16, "optimizer": {"type": "AdamW", "params": {"lr": 0.001}}})";
    const std::string to = folder / "new";
    if (std::string(one.name) == "deepspeed") {
      ASSERT_EQ(init_command(one.name, folder.path().string()), 0);
      EXPECT_THAT(job::load_job(folder / "job.yaml").warnings, IsEmpty());
      continue;
    }
    ASSERT_EQ(init_command(one.name, to), 0);
    EXPECT_EQ(content(to + "/job.yaml"), one.text);
    EXPECT_THAT(job::load_job(to + "/job.yaml").warnings, IsEmpty());
  }
}

TEST(InitCommand, LeavesWhatIsThere) {
  const ScratchFolder folder;
  std::ofstream(folder / "job.yaml") << "mine";
  EXPECT_THAT(error_text(ErrorKind::config, [&] { (void)init_command("classifier", folder.path().string()); }),
              HasSubstr("is there already"));
  EXPECT_EQ(content(folder / "job.yaml"), "mine");
}

TEST(InitCommand, NamesWhatThereIs) {
  EXPECT_EQ(init_command("", "."), 0);
  EXPECT_THAT(error_text(ErrorKind::config, [] { (void)init_command("gpt_char", "."); }),
              HasSubstr("did you mean 'gpt-char'?; there are gpt-char, classifier"));
}

}  // namespace
}  // namespace lockstep
