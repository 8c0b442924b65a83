// What the pages of the examples show is what the program prints: every command of a ```console block is run.
#include <gmock/gmock.h>

#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "tests/program/jobs.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::testing {
namespace {

/// A command of a page and the lines that it is said to print; "..." stands for any number of lines.
struct Shown {
  std::string command;
  std::vector<std::string> lines;
};

std::vector<Shown> shown_in(const std::string& page) {
  std::vector<Shown> all;
  std::istringstream in(page);
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("```"))
      inside = line == "```console";
    else if (inside && line.starts_with("$ "))
      all.push_back({line.substr(2), {}});
    else if (inside && !all.empty())
      all.back().lines.push_back(line);
  }
  return all;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> words;
  std::istringstream in(line);
  for (std::string word; in >> word;) {
    while (word.size() > 1 && (word.back() == ',' || word.back() == ';' || word.back() == '}')) word.pop_back();
    words.push_back(word);
  }
  return words;
}

std::optional<double> number_of(const std::string& word) {
  std::size_t end = 0;
  try {
    const double value = std::stod(word, &end);
    return end == word.size() ? std::optional(value) : std::nullopt;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

bool is_clock(const std::string& word) {
  return word.find(':') != std::string::npos && std::isdigit(static_cast<unsigned char>(word[0])) != 0;
}

/// A line of a chart: it has an axis on the left.
bool is_of_a_chart(const std::string& line) {
  return line.find("\u2502") != std::string::npos || line.find("\u2524") != std::string::npos;
}

/// Word by word. A learning rate of a schedule is exact; times and speeds are anything; other numbers come out of
/// training, whose last digits are each machine's own, and lie within `tolerance` of each other.
bool alike(const std::string& shown, const std::string& printed, double tolerance) {
  if (shown == printed) return true;
  if (is_of_a_chart(shown) && is_of_a_chart(printed)) return tolerance > 0;
  const std::vector<std::string> a = words_of(shown), b = words_of(printed);
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (is_clock(a[i]) && is_clock(b[i])) || (i + 1 == a.size() && a[i].ends_with("/s"))) continue;
    if (i + 1 < a.size() && a[i + 1].ends_with("/s") && b[i + 1] == a[i + 1]) continue;
    const std::optional<double> x = number_of(a[i]), y = number_of(b[i]);
    if (!x || !y || (i > 0 && a[i - 1] == "lr" && shown.starts_with("step "))) return false;
    if (std::abs(*x - *y) > tolerance * std::max(std::abs(*x), std::abs(*y))) return false;
  }
  return true;
}

class Readme : public ProgramTest {
 protected:
  /// Runs what the page shows, in its order and in one folder, and compares what is printed.
  void expect_true(const std::string& name, double tolerance) const {
    const std::vector<Shown> all = shown_in(text_of(source_dir() + "/examples/" + name + "/README.md"));
    ASSERT_GE(all.size(), 2U) << name;
    for (const Shown& shown : all) {
      std::string command = shown.command;
      for (std::size_t at = command.find(" examples/"); at != std::string::npos;
           at = command.find(" examples/", at + 1))
        command.replace(at + 1, 0, source_dir() + "/");
      const Outcome outcome = run(command);
      EXPECT_EQ(outcome.exit_code, 0) << command << "\n" << outcome.all();
      // Pages write ".../examples" where a run prints the whole path of this checkout.
      std::string out = outcome.out;
      const std::string root = source_dir() + "/";
      for (std::size_t at = out.find(root); at != std::string::npos; at = out.find(root, at))
        out.replace(at, root.size(), ".../");
      const std::vector<std::string> printed = lines_of(out);
      std::size_t at = 0;
      bool skips = false;
      for (const std::string& line : shown.lines) {
        if (line == "...") {
          skips = true;
          continue;
        }
        const double allowed = command.starts_with("lockstep lr ") ? 0 : tolerance;
        while (skips && at < printed.size() && !alike(line, printed[at], allowed)) ++at;
        ASSERT_LT(at, printed.size()) << command << "\ndoes not print: " << line << "\n" << outcome.out;
        ASSERT_TRUE(alike(line, printed[at], allowed))
            << command << "\npage:    " << line << "\nprinted: " << printed[at];
        ++at;
        skips = false;
      }
      EXPECT_TRUE(skips || at == printed.size()) << command << "\nprints more: " << printed[at];
    }
  }
  /// The picture in the example's folder is what the command that made it draws now.
  void expect_picture(const std::string& name) const {
    EXPECT_EQ(text_of(source_dir() + "/examples/" + name + "/lr.svg"), text_of(path("lr.svg"))) << name;
  }
};

TEST_F(Readme, OfTheWarmUpTutorialIsTrue) {
  expect_true("warmup_tutorial", 0.1);
  expect_picture("warmup_tutorial");
}

TEST_F(Readme, OfTheStagesIsTrue) {
  expect_true("multi_stage", 0.1);
  expect_picture("multi_stage");
}

// What lr-find reads off a curve moves by a step of its sweep, a fifth, where rounding differs.
TEST_F(Readme, OfTheRangeTestIsTrue) {
  expect_true("lr_range_test", 0.4);
  EXPECT_NE(text_of(path("find.svg")).find("suggestion"), std::string::npos);
}

// The comparison itself can fail.
TEST_F(Readme, IsComparedWordByWord) {
  EXPECT_TRUE(alike("step 3/9  33%  eta    0:01  loss 0.5012  lr 1.000e-03  1.2k samples/s",
                    "step 3/9  33%  eta    0:07  loss 0.5000  lr 1.000e-03   900 samples/s", 0.01));
  EXPECT_FALSE(alike("step 3/9  loss 0.5  lr 1.000e-03", "step 3/9  loss 0.5  lr 1.001e-03", 0.1));
  EXPECT_FALSE(alike("step 3/9  loss 0.5  lr 1.000e-03", "step 3/9  loss 0.6  lr 1.000e-03", 0.1));
  EXPECT_FALSE(alike("2,0,0.1", "2,0,0.2", 0.4));
  EXPECT_FALSE(alike("a b", "a b c", 1));
}

/// How the run of this name ended: its last val_loss.
double last_val_loss(const std::string& metrics) {
  double loss = NAN;
  for (const std::string& line : lines_of(metrics)) {
    const nlohmann::json step = nlohmann::json::parse(line);
    if (step.contains("val_loss")) loss = step["val_loss"].get<double>();
  }
  return loss;
}

class LrFind : public ProgramTest {
 protected:
  LrFind() { write_text(path("job.yaml"), text_of(source_dir() + "/examples/lr_range_test/job.yaml")); }
};

TEST_F(LrFind, SuggestsWhatTrains) {
  const Outcome found = run("lockstep lr-find job.yaml");
  ASSERT_EQ(found.exit_code, 0) << found.all();
  const std::size_t begin = found.out.find("optimizer:\n"), end = found.out.find("# or one cycle");
  ASSERT_NE(begin, std::string::npos) << found.out;
  std::string job = text_of(path("job.yaml"));
  job.resize(job.find("optimizer:"));
  write_text(path("patched.yaml"), job + found.out.substr(begin, end - begin));

  const Outcome patched = run("lockstep train patched.yaml --set run.name=patched");
  const Outcome before = run("lockstep train job.yaml --set run.name=before");

  ASSERT_EQ(patched.exit_code, 0) << patched.all();
  ASSERT_EQ(before.exit_code, 0) << before.all();
  const double loss = last_val_loss(text_of(path("runs/patched/metrics.jsonl")));
  EXPECT_LT(loss, 0.4) << "chance is log 4 = 1.39, and the hand-tuned job of examples/mlp_clusters ends at 0.33";
  EXPECT_GT(last_val_loss(text_of(path("runs/before/metrics.jsonl"))), 2 * loss);
}

TEST_F(LrFind, TouchesNothingOfTheRunItLooksAt) {
  const std::string short_run =
      " --set run.steps=40 --set run.checkpoint.every=20 --set train_micro_batch_size_per_gpu=32";
  ASSERT_EQ(run("mpirun -n 2 lockstep train job.yaml --set run.name=r" + short_run).exit_code, 0);
  const auto everything = [this] {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path(".")))
      if (entry.is_regular_file()) files[entry.path().string()] = text_of(entry.path().string());
    return files;
  };
  const auto before = everything();

  const Outcome found = run("mpirun -n 2 lockstep lr-find job.yaml --set run.name=r --resume runs/r" + short_run);
  const Outcome alone = run("mpirun -n 2 lockstep lr-find job.yaml --set run.name=r" + short_run);

  EXPECT_EQ(found.exit_code, 0) << found.all();
  EXPECT_EQ(count_of(found.out, "learning-rate range test"), 1) << found.out;
  EXPECT_NE(found.out.find("start     runs/r/checkpoints/step-40"), std::string::npos) << found.out;
  EXPECT_EQ(alone.exit_code, 0) << alone.all();
  EXPECT_EQ(everything(), before);
}

TEST_F(LrFind, RefusesWhatIsNoSweep) {
  const Outcome turned = run("lockstep lr-find job.yaml --from 1 --to 0.1");
  const Outcome picture = run("lockstep lr-find job.yaml --plot find.png");
  const Outcome low = run("lockstep lr-find job.yaml --from 1e-20 --to 1e-15 --steps 20");

  EXPECT_EQ(turned.exit_code, 2);
  EXPECT_NE(turned.err.find("--to 0.1 is not above --from 1"), std::string::npos) << turned.err;
  EXPECT_EQ(picture.exit_code, 2);
  EXPECT_EQ(low.exit_code, 2) << low.all();
  EXPECT_NE(low.err.find("the loss fell nowhere"), std::string::npos) << low.err;
  EXPECT_FALSE(std::filesystem::exists(path("runs")));
}

}  // namespace
}  // namespace lockstep::testing
