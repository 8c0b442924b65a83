#include "core/json.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lockstep {
namespace {

std::string nested(int depth) {
  const auto count = static_cast<std::size_t>(depth);
  return std::string(count, '[') + std::string(count, ']');
}

TEST(Json, ATextIsReadAndAnythingElseIsDiscarded) {
  EXPECT_EQ(parse_json(R"({"a": [1, "\"[{"]})")["a"][1], "\"[{");
  EXPECT_TRUE(parse_json("").is_discarded());
  EXPECT_TRUE(parse_json("{").is_discarded());
  EXPECT_TRUE(parse_json("1 2").is_discarded());
}

TEST(Json, NestingIsReadToItsLimitAndNoDeeper) {
  EXPECT_TRUE(parse_json(nested(deepest_json)).is_array());
  EXPECT_TRUE(parse_json(nested(deepest_json + 1)).is_discarded());
  // Brackets that close, and those within texts, do not count.
  std::string flat = "[0";
  for (int i = 0; i < 1000; ++i) flat += R"(,[],{},"[[[\\","\"[")";
  EXPECT_EQ(parse_json(flat + "]").size(), 4001U);
}

TEST(Json, ATextAsDeepAsTheStackIsDiscardedAndNotFollowed) {
  EXPECT_TRUE(parse_json(nested(5'000'000)).is_discarded());
}

}  // namespace
}  // namespace lockstep
