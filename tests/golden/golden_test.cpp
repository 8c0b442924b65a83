// Every recorded trace of the folders in LOCKSTEP_GOLDENS (colon-separated; by default tests/goldens). One test a file.

#include <gtest/gtest.h>

#include <cctype>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include <unistd.h>

#include "tests/golden/checker.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/kernel_backends.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::golden {
namespace {

namespace fs = std::filesystem;

const fs::path own_folder = fs::path(source_dir()) / "tests" / "goldens";

std::vector<fs::path> folders() {
  const char* list = std::getenv("LOCKSTEP_GOLDENS");
  return list == nullptr ? std::vector<fs::path>{own_folder} : split_folders(list);
}

// Folders that cannot be listed are left out here and fail in Folders.HoldTraces.
std::vector<fs::path> all_files() {
  std::vector<fs::path> files;
  for (const fs::path& folder : folders()) {
    try {
      for (const fs::path& file : files_of(folder)) files.push_back(file);
    } catch (const std::exception&) {
    }
  }
  return files;
}

std::string print(const Mismatches& mismatches) {
  std::string text;
  for (std::size_t i = 0; i < mismatches.size() && i < 20; ++i) text += "  " + mismatches[i] + "\n";
  if (mismatches.size() > 20) text += "  and " + std::to_string(mismatches.size() - 20) + " more\n";
  return text;
}

class Trace : public ::testing::TestWithParam<fs::path> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Trace);

TEST_P(Trace, Agrees) {
  const Mismatches mismatches = check_file(GetParam());
  EXPECT_TRUE(mismatches.empty()) << GetParam().string() << ":\n" << print(mismatches);
}

std::string test_name(const ::testing::TestParamInfo<fs::path>& file) {
  std::string name = file.param.stem().string() + "_" + std::to_string(file.index);
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Goldens, Trace, ::testing::ValuesIn(all_files()), test_name);

/// Those that concern kernels, through the kernels of one backend.
class KernelTrace : public ::testing::TestWithParam<std::tuple<testing::Backend, fs::path>> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(KernelTrace);

std::vector<fs::path> kernel_files() {
  std::vector<fs::path> files = all_files();
  std::erase_if(files, [](const fs::path& file) { return !concerns_kernels(file); });
  return files;
}

TEST_P(KernelTrace, Agrees) {
  const auto& [backend, file] = GetParam();
  if (!backend.available()) GTEST_SKIP() << backend.why_not();
  const testing::Session session(backend);
  const Mismatches mismatches = check_file(file, &session);
  EXPECT_TRUE(mismatches.empty()) << file.string() << ":\n" << print(mismatches);
}

INSTANTIATE_TEST_SUITE_P(Goldens, KernelTrace,
                         ::testing::Combine(testing::all_backends(), ::testing::ValuesIn(kernel_files())),
                         [](const auto& test) {
                           return std::get<0>(test.param).name + "_" + test_name({std::get<1>(test.param), test.index});
                         });

TEST(Folders, HoldTraces) {
  ASSERT_FALSE(folders().empty()) << "LOCKSTEP_GOLDENS names no folder";
  for (const fs::path& folder : folders()) EXPECT_NO_THROW((void)files_of(folder)) << folder;
}

TEST(Folders, OwnFolderHasEveryKind) {
  std::set<std::string> kinds;
  for (const fs::path& file : files_of(own_folder)) {
    std::ifstream in(file);
    kinds.insert(nlohmann::json::parse(in).at("kind").get<std::string>());
  }
  EXPECT_EQ(kinds, (std::set<std::string>{"batch_rules", "engine", "loss_scaler", "lr_schedule", "optimizer"}));
}

TEST(Folders, AreSplitAtColons) {
  EXPECT_EQ(split_folders("a:b/c::d"), (std::vector<fs::path>{"a", "b/c", "d"}));
  EXPECT_TRUE(split_folders("").empty());
}

// A check that cannot fail proves nothing, so each kind is also shown a wrong trace.
class Changed : public ::testing::Test {
 protected:
  Changed() : folder_(fs::temp_directory_path() / ("lockstep_goldens_" + std::to_string(getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Changed() override { fs::remove_all(folder_); }

  static std::string text_of(const std::string& name) {
    std::ifstream in(own_folder / name);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }

  Mismatches check_text(const std::string& text) const {
    std::ofstream(folder_ / "changed.json") << text;
    return check_file(folder_ / "changed.json");
  }

  // The trace with the first `from` after `anchor` replaced by `to`.
  Mismatches check_edit(const std::string& name, const std::string& anchor, const std::string& from,
                        const std::string& to) const {
    std::string text = text_of(name);
    const std::size_t start = text.find(anchor);
    if (start == std::string::npos) throw std::runtime_error("no " + anchor + " in " + name);
    const std::size_t at = text.find(from, start);
    if (at == std::string::npos) throw std::runtime_error("no " + from + " in " + name);
    return check_text(text.replace(at, from.size(), to));
  }

  fs::path folder_;
};

TEST_F(Changed, AnUnchangedCopyAgrees) { EXPECT_TRUE(check_text(text_of("warmup_seed_example.json")).empty()); }

TEST_F(Changed, TheLastDigitOfALearningRateIsSeen) {
  const Mismatches found =
      check_edit("warmup_seed_example.json", "\"lr\": [[", "0.010000000000000002", "0.010000000000000001");
  ASSERT_EQ(found.size(), 1U) << print(found);
  EXPECT_NE(found[0].find("0.010000000000000002"), std::string::npos) << found[0];
}

TEST_F(Changed, TheLastDigitOfAMomentumIsSeen) {
  EXPECT_EQ(check_edit("api_before_step.json", "\"betas\": [[[", "0.8500000000000001", "0.85").size(), 1U);
}

TEST_F(Changed, AnIndexIsSeen) {
  EXPECT_EQ(check_edit("resume_warmup_load.json", "\"last_batch_iteration\": [", "6, 7", "5, 7").size(), 1U);
}

TEST_F(Changed, AnAnswerIsSeen) {
  EXPECT_EQ(check_edit("api_before_step.json", "\"results\"", "0.0032500000000000003", "0.00325").size(), 1U);
  EXPECT_EQ(check_edit("api_before_step.json", "\"results\"", "{\"error\": \"AssertionError\"}", "[0.001]").size(), 1U);
}

TEST_F(Changed, AMissingRefusalIsSeen) {
  EXPECT_FALSE(
      check_edit("err_warmup_steps_zero.json", "params", "\"warmup_num_steps\": 0", "\"warmup_num_steps\": 5").empty());
}

TEST_F(Changed, AScaleIsSeen) {
  EXPECT_FALSE(check_edit("ls_hyst2.json", "\"scale\": [", "32768.0", "32767.0").empty());
  EXPECT_FALSE(check_edit("ls_min_floor_raise.json", "\"dynamic\"", "\"raised_at\": 4", "\"raised_at\": null").empty());
}

TEST_F(Changed, KernelsThatDifferAreSeen) {
  nlohmann::json optimizer = nlohmann::json::parse(text_of("opt_adamw.json"));
  double& value = optimizer["float32"][3][0].get_ref<double&>();
  value += 1e-4;
  nlohmann::json scaler = nlohmann::json::parse(text_of("ls_hyst2.json"));
  scaler["dynamic"]["scale"][2] = 1.5;
  const testing::Session session(testing::backend_list().front());
  for (const nlohmann::json& changed : {optimizer, scaler}) {
    std::ofstream(folder_ / "changed.json") << changed.dump();
    EXPECT_EQ(check_file(folder_ / "changed.json", &session).size(), 1U);
  }
}

TEST_F(Changed, AnEngineStepIsSeen) {
  EXPECT_FALSE(check_edit("eng_warmup_overflow.json", "\"overflow\"", "\"0010", "\"0001").empty());
  EXPECT_FALSE(check_edit("eng_warmup_overflow.json", "\"lr_used\"", "0.0009000000000000001", "0.0009").empty());
}

TEST_F(Changed, AParameterIsSeen) {
  std::string text = text_of("opt_adamw.json");
  nlohmann::json trace = nlohmann::json::parse(text);
  double& value = trace["float64"][3][0].get_ref<double&>();
  value *= 1 + 1e-11;
  EXPECT_EQ(check_text(trace.dump()).size(), 1U);
}

TEST_F(Changed, ABatchSizeIsSeen) {
  EXPECT_EQ(check_edit("batch_rules.json", "\"result\"", "\"train\": 16", "\"train\": 17").size(), 1U);
}

TEST_F(Changed, WhatIsNoTraceDisagrees) {
  EXPECT_FALSE(check_text("{\"kind\": \"lr_schedule\"").empty());
  EXPECT_FALSE(check_text("{\"name\": \"no kind\"}").empty());
  EXPECT_FALSE(check_text("{\"kind\": \"astrology\"}").empty());
  EXPECT_FALSE(check_text("{\"kind\": \"lr_schedule\"}").empty());
  EXPECT_FALSE(check_file(folder_ / "absent.json").empty());
}

TEST_F(Changed, AnEmptyFolderIsRefused) {
  const auto refusal = [](const fs::path& folder) {
    return testing::error_text(ErrorKind::data, [&] { (void)files_of(folder); });
  };
  EXPECT_NE(refusal(folder_).find("holds no *.json"), std::string::npos);
  EXPECT_NE(refusal(folder_ / "absent").find("there is no folder"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::golden
