#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "fuzz/target.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::fuzz {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// What lies in one of the folders of a target, in the order of the names.
std::vector<fs::path> files_in(const std::string& kind, const Target& target) {
  std::vector<fs::path> files;
  std::error_code none;
  for (const auto& entry :
       fs::directory_iterator(source_dir() + "/fuzz/" + kind + "/" + std::string(target.name), none))
    files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

class Replay : public ::testing::TestWithParam<Target> {};

TEST_P(Replay, EverySeedAndEveryRegressionIsTakenOrRefused) {
  const std::vector<fs::path> seeds = files_in("seeds", GetParam());
  ASSERT_GE(seeds.size(), 3U);
  for (const std::string kind : {"seeds", "regressions"})
    for (const fs::path& file : files_in(kind, GetParam())) {
      SCOPED_TRACE(file.string());
      EXPECT_NO_THROW(GetParam().run(testing::text_of(file)));
    }
}

TEST_P(Replay, ASeedMayBreakOffAnywhereAndHaveAnyByteChanged) {
  constexpr std::size_t most_places = 60;  // of a file, evenly spread
  for (const fs::path& file : files_in("seeds", GetParam())) {
    SCOPED_TRACE(file.string());
    const std::string whole = testing::text_of(file);
    const std::size_t step = std::max<std::size_t>(1, whole.size() / most_places);
    for (std::size_t at = 0; at < whole.size(); at += step) {
      SCOPED_TRACE(at);
      EXPECT_NO_THROW(GetParam().run(whole.substr(0, at)));
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ (1 << at % 8));
      EXPECT_NO_THROW(GetParam().run(changed));
    }
  }
}

/// 200 KiB of what readers go through slowly or deeply if they are careless: brackets, quotes, separators, keys.
TEST_P(Replay, ALongMonotonousInputIsTakenOrRefusedToo) {
  constexpr std::size_t bytes = 200'000;
  const std::string front = GetParam().name == "idx_gz" ? std::string(1, '\0') : std::string();
  for (const std::string piece : {"[",       "{",      "{\"a\":",  "\"",   "'",
                                  ",",       ": ",     "- ",       "? ",   "a: 1\n",
                                  "a",       "1",      " ",        "\n",   "\t",
                                  "\\u00e9", "&a *a ", "#",        "/*",   "{\"step\":[",
                                  "1,",      "t h\n",  "\xC3\xA9", "\xFF", "[1,{\"\\ud83d\\ude00\":0},"}) {
    SCOPED_TRACE(piece);
    std::string input = front;
    while (input.size() < bytes) input += piece;
    EXPECT_NO_THROW(GetParam().run(input));
    EXPECT_NO_THROW(GetParam().run("{\"step\": 1, \"format_version\": " + input));
  }
  std::string keys;
  for (int i = 0; keys.size() < bytes; ++i) keys += fmt::format("key{}: {}\n", i, i);
  EXPECT_NO_THROW(GetParam().run(keys));
}

INSTANTIATE_TEST_SUITE_P(Targets, Replay, ::testing::ValuesIn(targets().begin(), targets().end()),
                         [](const auto& one) { return std::string(one.param.name); });

TEST(FuzzTargets, EachFolderOfSeedsAndRegressionsIsATargets) {
  std::vector<std::string> names;
  for (const Target& one : targets()) names.emplace_back(one.name);
  for (const std::string kind : {"seeds", "regressions"})
    for (const auto& entry : fs::directory_iterator(source_dir() + "/fuzz/" + kind))
      EXPECT_THAT(names, ::testing::Contains(entry.path().filename().string())) << entry.path();
}

TEST(FuzzTargets, AReaderThatBreaksItsPromiseIsAFinding) {
  const auto reading = [](const auto& read) { return accepts("a.txt", read); };
  EXPECT_TRUE(reading([] {}));
  EXPECT_FALSE(reading([] { fail(ErrorKind::data, "a.txt:3: is empty"); }));
  EXPECT_THROW(reading([] { fail(ErrorKind::internal, "a.txt: a broken promise"); }), Finding);
  EXPECT_THROW(reading([] { fail(ErrorKind::data, "it is empty"); }), Finding);
  EXPECT_THROW(reading([] { fail(ErrorKind::data, "a.txt: \x1B[2J"); }), Finding);
  EXPECT_THROW(reading([] { fail(ErrorKind::data, "a.txt: \xFF"); }), Finding);
  EXPECT_THROW(reading([] { promise(false, "no end"); }), Finding);
  EXPECT_THROW(reading([] { throw std::out_of_range("a.txt"); }), std::out_of_range);
}

}  // namespace
}  // namespace lockstep::fuzz
