// Whole DeepSpeed files as people write them, beside what becomes of each: the table that `lockstep train` prints, or
// every error with its place in the file.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "config/document.hpp"
#include "config/words.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
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

/// With LOCKSTEP_REWRITE=1 in the environment what is expected is written anew, to be read in the diff.
bool rewrites() { return std::getenv("LOCKSTEP_REWRITE") != nullptr; }

TEST(DeepSpeedFiles, AreTakenIgnoredOrRefusedAsTheTableBesideEachSays) {
  const std::vector<std::string> files = names();
  ASSERT_GE(files.size(), 31U);
  for (const std::string& name : files) {
    const std::string path = source_dir() + "/tests/job/deepspeed/" + name + ".txt";

    const std::string outcome = outcome_of(name);

    if (rewrites()) testing::write_text(path, outcome);
    EXPECT_EQ(outcome, testing::text_of(path)) << name << ".json";
    EXPECT_EQ(outcome.find("job.yaml"), std::string::npos) << "errors point into the DeepSpeed file: " << name;
  }
}

/// In a few words: optimizer, schedule, precision, stage, and other blocks that are not turned off.
std::string what_it_has(const std::string& name) {
  config::Diagnostics diagnostics;
  const config::Node file = config::read_document(source_dir() + "/tests/job/deepspeed/" + name + ".json", diagnostics);
  std::vector<std::string> words, others;
  for (const config::Member& member : file.members) {
    const config::Node& value = member.value;
    const config::Node* type = value.find("type");
    const config::Node* enabled = value.find("enabled");
    const config::Node* stage = value.find("stage");
    if (member.key.ends_with("batch_size") || member.key.starts_with("train_micro") ||
        member.key == "gradient_accumulation_steps" || member.key == "gradient_clipping" ||
        member.key == "steps_per_print" || value.is_word("false") || (enabled != nullptr && enabled->is_word("false")))
      continue;
    if (type != nullptr)
      words.push_back(type->text);
    else if (stage != nullptr)
      words.push_back("stage " + stage->text);
    else if (member.key == "fp16" || member.key == "bf16")
      words.push_back(member.key + (enabled != nullptr && enabled->text == "auto" ? " auto" : ""));
    else
      others.push_back("`" + member.key + "`");
  }
  words.insert(words.end(), others.begin(), others.end());
  return words.empty() ? "no text of JSON" : config::join(words);
}

/// A row of the page's table.
std::string row_of(const std::string& name) {
  const std::string outcome = outcome_of(name);
  const std::string link = "[" + name + "](../tests/job/deepspeed/" + name + ".json)";
  std::string verdict;
  const std::size_t error = outcome.find(": error: ");
  if (error == std::string::npos) {
    const std::size_t begin = outcome.find("no effect here: "), end = outcome.find("auto, now: ");
    const std::string idle = begin == std::string::npos ? "" : outcome.substr(begin, end - begin);
    const auto keys = std::count(idle.begin(), idle.end(), '\n');
    verdict = "runs" + (keys == 0 ? "" : "; " + counted(keys, "key") + " without effect");
  } else {
    const std::size_t line = outcome.find(':') + 1;
    std::string message = outcome.substr(error + 9, outcome.find('\n') - error - 9);
    message.resize(std::min(message.size(), message.find(". ")));  // the rest stands in the .txt
    verdict = "refused at line " + outcome.substr(line, outcome.find(':', line) - line) + ": " + message;
    const std::size_t count = outcome.rfind('\n', outcome.size() - 2) + 1;
    if (const int errors = std::stoi(outcome.substr(count)); errors > 1)
      verdict += "; and " + std::to_string(errors - 1) + " more";
  }
  for (std::size_t at = 0; (at = verdict.find('|', at)) != std::string::npos; at += 2) verdict.insert(at, 1, '\\');
  return "| " + link + " | " + what_it_has(name) + " | " + verdict + " |\n";
}

TEST(DeepSpeedFiles, AreTheTableOfThePage) {
  std::string table = "| file | what it has | verdict |\n| --- | --- | --- |\n";
  for (const std::string& name : names()) table += row_of(name);
  const std::string path = source_dir() + "/docs/deepspeed.md";
  std::string page = testing::text_of(path);
  const std::string begin = "<!-- files -->\n", end = "<!-- end of files -->\n";
  const std::size_t from = page.find(begin) + begin.size(), to = page.find(end);
  ASSERT_NE(to, std::string::npos);

  if (rewrites()) testing::write_text(path, page.replace(from, to - from, table));

  const std::string now = testing::text_of(path);
  const std::size_t now_to = now.find(end);
  EXPECT_EQ(now.substr(from, now_to - from), table) << "LOCKSTEP_REWRITE=1 job_test writes it anew";
}

TEST(DeepSpeedFiles, ImportedAsAJobFileLoadToTheSameJob) {
  const std::string folder = source_dir() + "/tests/job/deepspeed";
  int accepted = 0;
  for (const std::string& name : names()) {
    const std::string text = "model: {type: mlp}\ndata: {type: clusters}\nrun: {name: r, steps: 10}\n";
    std::optional<LoadedJob> job;
    try {
      job = load_job_text("job.yaml", text + "deepspeed: " + name + ".json\n", folder);
    } catch (const Error&) {
      continue;
    }
    ++accepted;

    const std::string imported = imported_yaml(*job);

    EXPECT_EQ(load_job_text("imported.yaml", imported, "/").config, job->config) << imported;
    for (const DeepSpeedReport::Key& key : job->deepspeed->acted_on)
      EXPECT_NE(imported.find("# line " + std::to_string(key.position.line)), std::string::npos) << key.key;
    for (const auto* keys : {&job->deepspeed->without_effect, &job->deepspeed->autos})
      for (const DeepSpeedReport::Key& key : *keys)
        EXPECT_NE(imported.find(key.key.substr(key.key.rfind('.') + 1)), std::string::npos) << key.key << "\n"
                                                                                            << imported;
  }
  EXPECT_GE(accepted, 15);
}

}  // namespace
}  // namespace lockstep::job
