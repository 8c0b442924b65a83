// The pages that are made from the table of fields, and the page of errors, are what the code prints today.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "config/schema_text.hpp"
#include "core/error.hpp"
#include "job/job.hpp"
#include "job/schema.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::job {
namespace {

std::string read(const std::string& path) {
  std::ifstream file(source_dir() + "/" + path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(JobDocs, ReferencePageIsUpToDate) {
  EXPECT_TRUE(read("docs/reference/job.md") == config::reference_markdown(job_section()))
      << "run: lockstep config --reference > docs/reference/job.md";
}

TEST(JobDocs, SchemaIsUpToDate) {
  EXPECT_TRUE(read("docs/job.schema.json") == config::json_schema(job_section()))
      << "run: lockstep config --schema > docs/job.schema.json";
}

/// Pages for users, and the texts of refused or idle keys.
std::vector<std::string> texts_that_name_commands() {
  std::vector<std::string> files = {"README.md", "CONTRIBUTING.md", "job/foreign_keys.cpp", "job/fields.hpp"};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(source_dir() + "/docs"))
    if (entry.path().extension() == ".md")
      files.push_back(std::filesystem::relative(entry.path(), source_dir()).string());
  return files;
}

TEST(JobDocs, NoTextRecommendsACommandThatDoesNotExist) {
  const std::set<std::string> commands = {"train", "config", "explain",    "lr",    "import", "generate",
                                          "drill", "report", "compare",    "bench", "data",   "ckpt",
                                          "init",  "doctor", "completion", "man",   "preview"};
  const std::regex named("[`\"]lockstep ([a-z]+)");
  std::size_t found = 0;

  for (const std::string& file : texts_that_name_commands()) {
    const std::string text = read(file);
    for (auto at = std::sregex_iterator(text.begin(), text.end(), named); at != std::sregex_iterator(); ++at, ++found)
      EXPECT_TRUE(commands.contains((*at)[1].str())) << file << ": " << at->str();
  }

  EXPECT_GT(found, 10U);
}

TEST(JobDocs, DeterminismFastSaysWhatItGivesUp) {
  const config::Field* field = config::find_field(job_section().keys.find_section("run")->keys.fields, "determinism");

  EXPECT_NE(field->doc.find("fast: MPI ranks sum with the library's own all-reduce"), std::string::npos) << field->doc;
  EXPECT_NE(field->doc.find("no promise of equal bits"), std::string::npos) << field->doc;
}

/// The text between a fence that opens with ```<language> and the next ```; moves `at` behind it.
std::string next_block(const std::string& page, const std::string& language, std::size_t& at) {
  const std::string fence = "```" + language + "\n";
  const std::size_t begin = page.find(fence, at);
  if (begin == std::string::npos) return {};
  const std::size_t end = page.find("```\n", begin + fence.size());
  at = end;
  return page.substr(begin + fence.size(), end - begin - fence.size());
}

TEST(JobDocs, ErrorPageShowsTheRealMessages) {
  const std::string page = read("docs/errors.md");
  std::size_t at = 0;
  int jobs = 0;
  for (std::string job = next_block(page, "yaml", at); !job.empty(); job = next_block(page, "yaml", at)) {
    const std::string expected = next_block(page, "text", at);
    try {
      (void)load_job_text("job.yaml", job, "/");
      ADD_FAILURE() << "accepted:\n" << job;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()) + "\n", expected) << job;
    }
    ++jobs;
  }
  EXPECT_EQ(jobs, 19);
}

}  // namespace
}  // namespace lockstep::job
