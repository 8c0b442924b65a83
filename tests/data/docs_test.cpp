// docs/data.md is precise enough to write the order of the samples again; its numbers are those of the code.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <vector>

#include "data/permutation.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::data {
namespace {

using testing::HasSubstr;

/// The page with its line breaks as spaces.
std::string data_page() {
  std::ifstream file(source_dir() + "/docs/data.md");
  std::ostringstream text;
  text << file.rdbuf();
  std::string page = text.str();
  for (char& c : page)
    if (c == '\n') c = ' ';
  return page;
}

std::vector<std::int64_t> first_of(std::int64_t n, std::int64_t count) {
  const Permutation order(n, 1, 0);
  std::vector<std::int64_t> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(order[i]);
  return values;
}

// Computed from the page alone by a program in another language.
const std::vector<std::int64_t> ten = {1, 0, 4, 8, 6, 3, 7, 2, 5, 9};
const std::vector<std::int64_t> of_thousand = {904, 925, 834, 862, 209, 344};

TEST(DataDocs, TheOrderIsTheOneThatThePageDescribes) {
  EXPECT_EQ(first_of(10, 10), ten);
  EXPECT_EQ(first_of(1000, 6), of_thousand);
  EXPECT_EQ(epoch_offset(128, 1, 0), 54);
  EXPECT_EQ(epoch_offset(128, 1, 1), 80);
}

TEST(DataDocs, ThePageShowsTheOrderOfTheCode) {
  const std::string page = data_page();

  EXPECT_THAT(page,
              HasSubstr(fmt::format("epoch 0 has the order {} of 10 samples", fmt::join(first_of(10, 10), ", "))));
  EXPECT_THAT(page, HasSubstr(fmt::format("that of 1000 begins {};", fmt::join(first_of(1000, 6), ", "))));
  EXPECT_THAT(page, HasSubstr(fmt::format("the offset among 128 is {}, and {} in epoch 1", epoch_offset(128, 1, 0),
                                          epoch_offset(128, 1, 1))));
}

}  // namespace
}  // namespace lockstep::data
