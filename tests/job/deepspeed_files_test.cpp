// Whole DeepSpeed files as people write them, beside what becomes of each: the table that `lockstep train` prints, or
// every error with its place in the file.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "core/error.hpp"
#include "job/job.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::job {
namespace {

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(source_dir() + "/tests/job/deepspeed"))
    if (entry.path().extension() == ".json") all.push_back(entry.path().stem().string());
  std::sort(all.begin(), all.end());
  return all;
}

/// What becomes of a file, without the folder that it is in.
std::string outcome_of(const std::string& name) {
  const std::string folder = source_dir() + "/tests/job/deepspeed";
  const std::string job =
      "model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 10}\ndeepspeed: " + name + ".json\n";
  std::string text;
  try {
    for (const std::string& line : deepspeed_lines(load_job_text("job.yaml", job, folder))) text += line + "\n";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config) << name;
    text = std::string(error.what()) + "\n";
  }
  for (std::size_t at = 0; (at = text.find(folder + "/", at)) != std::string::npos;) text.erase(at, folder.size() + 1);
  return text;
}

TEST(DeepSpeedFiles, AreTakenIgnoredOrRefusedAsTheTableBesideEachSays) {
  const std::vector<std::string> files = names();
  ASSERT_GE(files.size(), 20U);
  for (const std::string& name : files) {
    const std::string expected = testing::text_of(source_dir() + "/tests/job/deepspeed/" + name + ".txt");

    const std::string outcome = outcome_of(name);

    EXPECT_EQ(outcome, expected) << name << ".json";
    EXPECT_EQ(outcome.find("job.yaml"), std::string::npos) << "errors point into the DeepSpeed file: " << name;
  }
}

}  // namespace
}  // namespace lockstep::job
