// The table of docs/faults.md that says what is rehearsed: every row is held by tests that exist.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>
#include <set>
#include <sstream>

#include "tests/support/scratch.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;

/// "Suite.Name" of every test of the tree.
std::set<std::string> tests_of_the_tree() {
  const std::regex test(R"(\n(?:TYPED_)?TEST(?:_F|_P)?\((\w+),\s*(\w+)\))");
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(source_dir() + "/tests")) {
    if (!entry.path().string().ends_with("_test.cpp")) continue;
    const std::string text = testing::text_of(entry.path());
    for (std::sregex_iterator at(text.begin(), text.end(), test), end; at != end; ++at)
      names.insert(fmt::format("{}.{}", (*at)[1].str(), (*at)[2].str()));
  }
  return names;
}

TEST(FaultsDocs, EveryRowOfWhatIsRehearsedNamesTestsThatExist) {
  const std::set<std::string> tests = tests_of_the_tree();
  ASSERT_GT(tests.size(), 1000U);
  std::istringstream page(testing::text_of(source_dir() + "/docs/faults.md"));
  const std::regex name(R"(`(\w+\.\w+)`)");
  bool inside = false;
  int rows = 0;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("## ")) inside = line == "## What is rehearsed";
    if (!inside || !line.starts_with("| ") || line.starts_with("| what ") || line.starts_with("| ---")) continue;
    ++rows;
    const std::string held_by = line.substr(line.rfind("| ", line.size() - 3));
    int named = held_by.find("`tools/test.sh`") == std::string::npos ? 0 : 1;
    for (std::sregex_iterator at(held_by.begin(), held_by.end(), name), end; at != end; ++at, ++named)
      EXPECT_TRUE(tests.contains((*at)[1].str())) << (*at)[1].str() << " is no test:\n" << line;
    EXPECT_GT(named, 0) << line;
  }
  EXPECT_GT(rows, 20);
}

}  // namespace
}  // namespace lockstep::run
