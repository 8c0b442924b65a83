// bench scaling: predictions beside measured points.
#include <gmock/gmock.h>

#include <sstream>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

using ::testing::HasSubstr;

class Scaling : public ProgramTest {};

/// The columns of a number of ranks.
std::vector<std::string> row(const std::string& out, const std::string& ranks) {
  std::istringstream in(out);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::vector<std::string> all;
    for (std::string word; words >> word;) all.push_back(word);
    if (!all.empty() && all.front() == ranks) return all;
  }
  return {};
}

TEST_F(Scaling, PredictsBesideWhatItMeasured) {
  const Outcome outcome = run("lockstep bench scaling job.yaml --simulate --samples 3");

  ASSERT_EQ(outcome.exit_code, 0) << outcome.all();
  for (const char* ranks : {"1", "2", "4"}) {
    const std::vector<std::string> columns = row(outcome.out, ranks);
    ASSERT_GE(columns.size(), 9U) << outcome.out;
    EXPECT_GT(std::stod(columns.back()), 0) << "measured";
  }
  EXPECT_EQ(row(outcome.out, "1024").back().back(), '%') << "not measured: " << outcome.out;
}

TEST_F(Scaling, TakesNumbersOfOtherMachines) {
  const Outcome outcome = run(
      "lockstep bench scaling job.yaml --simulate --compute-ms 100 --latency-us 1000 --gigabytes-per-s 1 --at 8 --at "
      "12");

  ASSERT_EQ(outcome.exit_code, 0) << outcome.all();
  // One bucket: 6 messages of 1 ms; 22 where 12 ranks send to each other. All of them are seen: backward completes
  // the bucket at its end.
  const std::vector<std::string> eight = row(outcome.out, "8"), twelve = row(outcome.out, "12");
  ASSERT_GE(eight.size(), 8U) << outcome.out;
  EXPECT_EQ(eight[1], std::to_string(6 * (std::stoi(twelve[1]) / 22))) << outcome.out;
  EXPECT_EQ(row(outcome.out, "1024").size(), 0U);
}

TEST_F(Scaling, SaysThatItSimulates) {
  const Outcome outcome = run("lockstep bench scaling job.yaml");

  EXPECT_EQ(outcome.exit_code, 2) << outcome.all();
  EXPECT_THAT(outcome.err, HasSubstr("--simulate"));
}

}  // namespace
}  // namespace lockstep::testing
