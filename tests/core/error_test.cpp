#include "core/error.hpp"

#include <gtest/gtest.h>

#include <set>

namespace lockstep {
namespace {

constexpr ErrorKind kinds[] = {ErrorKind::internal,   ErrorKind::config,      ErrorKind::data,
                               ErrorKind::checkpoint, ErrorKind::diverged,    ErrorKind::hang,
                               ErrorKind::desync,     ErrorKind::environment, ErrorKind::preempted};

TEST(Error, CarriesItsKindAndItsText) {
  try {
    fail(ErrorKind::data, "{} has {} lines", "corpus.txt", 3);
    FAIL() << "fail() returned";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::data);
    EXPECT_STREQ(error.what(), "corpus.txt has 3 lines");
  }
}

TEST(Error, ExitCodesAreTheDocumentedOnes) {
  std::set<int> codes;
  for (const ErrorKind kind : kinds) codes.insert(exit_code(kind));
  EXPECT_EQ(codes, (std::set<int>{1, 2, 3, 4, 5, 6, 7, 8, 75}));
  EXPECT_EQ(exit_code(ErrorKind::config), 2);
  EXPECT_EQ(exit_code(ErrorKind::desync), 7);
}

TEST(Error, EveryKindHasItsOwnName) {
  std::set<std::string_view> names;
  for (const ErrorKind kind : kinds) names.insert(to_string(kind));
  EXPECT_EQ(names.size(), std::size(kinds));
}

TEST(Require, NamesTheCallersPlace) {
  EXPECT_NO_THROW(require(true, "never"));
  const int line = __LINE__ + 2;
  try {
    require(false, "the shard is too small");
    FAIL() << "require() returned";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::internal);
    const std::string text = error.what();
    EXPECT_EQ(text.find("the shard is too small ("), 0U) << text;
    EXPECT_NE(text.find("error_test.cpp:" + std::to_string(line) + ")"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace lockstep
