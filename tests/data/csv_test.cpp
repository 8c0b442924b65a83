#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "data/dataset.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CsvTest : public ::testing::Test {
 protected:
  CsvOptions write(const std::string& text, CsvOptions options = {}) {
    options.path = scratch_ / "t.csv";
    if (options.target.empty()) options.target = "y";
    lockstep::testing::write_text(options.path, text);
    return options;
  }
  std::string error_of(const std::string& text, const CsvOptions& options = {}) {
    const CsvOptions written = write(text, options);
    const std::string error = lockstep::testing::error_text(ErrorKind::data, [&] { (void)make_csv(written); });
    const std::string path = options.path.empty() ? written.path : options.path;
    return error.substr(error.starts_with(path) ? path.size() - 5 : 0);  // from "t.csv"
  }
  lockstep::testing::ScratchFolder scratch_;
};

TEST_F(CsvTest, ARegressionHasNumbersToPredict) {
  const auto csv = make_csv(write("a,y,b\n1,10,2\n3,-2.5,4\n5,1e3,6\n7,0,8\n",
                                  {.regression = true, .standardize = false, .validation_fraction = 0.25}));
  HostBatch batch;
  csv->eval_batch(0, 2, batch);

  EXPECT_TRUE(csv->shape().regression);
  EXPECT_EQ(csv->shape().classes, 1);
  EXPECT_EQ(csv->features(), 2);
  EXPECT_EQ(csv->train_samples(), 3);
  EXPECT_EQ(csv->eval_samples(), 1);
  EXPECT_THAT(batch.features, ElementsAre(7, 8, 0, 0));
  EXPECT_THAT(batch.values, ElementsAre(0, 0));
  EXPECT_THAT(batch.targets, ElementsAre(0, -1));
  EXPECT_EQ(batch.target_count, 1.0);
  EXPECT_THAT(csv->describe(), HasSubstr("4 rows of 2 features, predicting 'y': 3 to train, 1 to validate"));
}

TEST_F(CsvTest, ClassesAreNumberedByValueOrByTheirText) {
  HostBatch batch;
  const auto numbers = make_csv(write("x,y\n1,10\n2,9\n3,-1\n4,10\n", {.validation_fraction = 0.9}));
  numbers->eval_batch(0, 3, batch);
  EXPECT_EQ(numbers->classes(), 3);
  EXPECT_THAT(batch.targets, ElementsAre(1, 0, 2)) << "-1 is class 0, 9 is 1, 10 is 2";

  const auto texts = make_csv(write("x,y\n1,wolf\n2,cat\n3,\"a, \"\"b\"\"\"\n4,cat\n", {.validation_fraction = 0.9}));
  texts->eval_batch(0, 3, batch);
  EXPECT_THAT(batch.targets, ElementsAre(1, 0, 1));
}

TEST_F(CsvTest, FeaturesAreStandardizedByTheTrainingRows) {
  const auto csv =
      make_csv(write("x,c,y\n1,5,0\n3,5,0\n2,5,0\n2,5,0\n9,6,0\n", {.regression = true, .validation_fraction = 0.2}));
  HostBatch batch;
  csv->eval_batch(0, 1, batch);
  const double deviation = std::sqrt(0.5);  // of 1, 3, 2, 2
  EXPECT_NEAR(batch.features[0], (9 - 2) / deviation, 1e-5);
  EXPECT_EQ(batch.features[1], 1.0F) << "a constant column has no deviation to divide by";
}

TEST_F(CsvTest, ColumnsMayBeChosen) {
  const auto csv = make_csv(write(
      "name;x;\"the y\";z\nfoo;1;0;2\nbar;3;1;4\n",
      {.target = "the y", .features = {"z", "x"}, .standardize = false, .separator = ';', .validation_fraction = 0.5}));
  HostBatch batch;
  csv->eval_batch(0, 1, batch);
  EXPECT_THAT(batch.features, ElementsAre(4, 3));
}

TEST_F(CsvTest, LineEndsBlanksAndAByteOrderMarkDoNotMatter) {
  const CsvOptions plain{.regression = true, .standardize = false, .validation_fraction = 0};
  const std::uint64_t fingerprint = make_csv(write("x,y\n1,2\n-3,4\n", plain))->fingerprint();
  EXPECT_EQ(make_csv(write("\xEF\xBB\xBFx , y\r\n 1, +2 \r\n\r\n-3 ,\"4\"\r\n \r\n", plain))->fingerprint(),
            fingerprint);
  EXPECT_EQ(make_csv(write("x,y\n1,2\n-3,4", plain))->fingerprint(), fingerprint) << "the last line has no end";
}

TEST_F(CsvTest, TheFingerprintIsOfValuesTargetsAndDivision) {
  const CsvOptions options{.regression = true, .validation_fraction = 0.4};
  const std::string text = "x,y\n1,2\n3,4\n5,6\n";
  const std::uint64_t fingerprint = make_csv(write(text, options))->fingerprint();
  EXPECT_NE(make_csv(write("x,y\n1,2\n3,4\n5,7\n", options))->fingerprint(), fingerprint);
  EXPECT_NE(make_csv(write("x,y\n1,2\n3.5,4\n5,6\n", options))->fingerprint(), fingerprint);
  EXPECT_NE(make_csv(write(text, {.regression = true, .validation_fraction = 0}))->fingerprint(), fingerprint);
  EXPECT_NE(
      make_csv(write(text, {.regression = true, .standardize = false, .validation_fraction = 0.4}))->fingerprint(),
      fingerprint);
}

TEST_F(CsvTest, WhatIsWrongIsToldWithLineAndColumn) {
  const CsvOptions regression{.regression = true};
  EXPECT_EQ(
      error_of("x,y\n1,2\n1,two\n", regression),
      "t.csv:3:3: 'two' in column 'y' is not a number: give each text a column of 0 and 1, or leave the column out "
      "with data.features");
  EXPECT_THAT(error_of("x,y\n,2\n", regression), HasSubstr("t.csv:2:1: no number in column 'x'"));
  EXPECT_THAT(error_of("x,y\nnan,2\n", regression), HasSubstr("t.csv:2:1: 'nan' in column 'x' is not finite"));
  EXPECT_THAT(error_of("x,y\n1e99,2\n", regression), HasSubstr("does not fit into 32 bits"));
  EXPECT_THAT(error_of("x,y\n1,2\n\n1,2,3\n", regression), HasSubstr("t.csv:4:5: 3 cells, but the header has 2"));
  EXPECT_THAT(error_of("x,y\n\"1,2\n", regression), HasSubstr("t.csv:2:1: a quote that is not closed"));
  EXPECT_THAT(error_of("x,y\n\"1\"2,2\n", regression), HasSubstr("t.csv:2:4: '2' behind a closing quote"));
  EXPECT_THAT(error_of("x,x,y\n1,2,3\n"), HasSubstr("t.csv:1:3: two columns are named 'x'"));
  EXPECT_THAT(error_of("x,,y\n1,2,3\n"), HasSubstr("t.csv:1:3: column 2 of the header has no name"));
  EXPECT_THAT(error_of("x,z\n1,2\n"),
              HasSubstr("t.csv:1:1: data.target: there is no column 'y'; the header has 'x', 'z'"));
  EXPECT_THAT(error_of("x,y\n1,2\n", {.features = {"q"}}), HasSubstr("data.features: there is no column 'q'"));
  EXPECT_THAT(error_of("x,y\n1,2\n", {.features = {"y"}}),
              HasSubstr("'y' is the target, so it cannot be a feature too"));
  EXPECT_THAT(error_of("x,y\n1,2\n", {.features = {"x", "x"}}), HasSubstr("data.features names 'x' twice"));
  EXPECT_THAT(error_of("y\n1\n"), HasSubstr("no column but the target"));
  EXPECT_THAT(error_of("x,y\n"), HasSubstr("has a header and no rows"));
  EXPECT_THAT(error_of("x,y\n1,\n"), HasSubstr("t.csv:2:3: no class in column 'y'"));
}

}  // namespace
}  // namespace lockstep::data
