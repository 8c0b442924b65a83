#include "run/tensorboard.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "core/error.hpp"
#include "tests/support/event_file.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::run {
namespace {

using testing::EventFile;
using testing::ScratchFolder;

std::string only_file_of(const std::string& folder) {
  std::string path;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) path = entry.path().string();
  return path;
}

TEST(Tensorboard, ChecksumIsTheStandards) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);              // the check value of CRC catalogues
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);    // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43U);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(""), 0U);
}

TEST(Tensorboard, ARecordIsFramedByLengthAndMaskedChecksums) {
  const std::string record = tf_record("abc");

  ASSERT_EQ(record.size(), 8U + 4U + 3U + 4U);
  EXPECT_EQ(record.substr(0, 8), std::string("\x03\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(record.substr(12, 3), "abc");
  // crc32c("abc") is 0x364b3fb7, a published test value; masked by hand.
  const std::uint32_t masked = std::rotr(0x364b3fb7U, 15) + 0xa282ead8U;
  std::uint32_t stored = 0;
  std::memcpy(&stored, record.data() + 15, 4);
  EXPECT_EQ(stored, masked);
}

TEST(Tensorboard, AFileHoldsWhatWasWritten) {
  const ScratchFolder folder;
  {
    TensorboardFile file(folder / "logs", 0);
    for (int step = 1; step <= 300; ++step) {
      const std::vector<ScalarEvent> events = {{"Train/Samples/lr", 0.001 * step, step * 16LL},
                                               {"Train/Samples/train_loss", step == 7 ? NAN : 1.0 / step, step * 16LL}};
      ASSERT_EQ(file.write(events), 0);
    }
    EXPECT_NE(file.path().find("tfevents"), std::string::npos) << "readers look for the word";
  }

  const EventFile read(only_file_of(folder / "logs"));

  EXPECT_EQ(read.version, "brain.Event:2");
  EXPECT_TRUE(read.session_starts.empty());
  const auto& lr = read.scalars.at("Train/Samples/lr");
  const auto& loss = read.scalars.at("Train/Samples/train_loss");
  ASSERT_EQ(lr.size(), 300U);
  ASSERT_EQ(loss.size(), 300U);
  for (int step = 1; step <= 300; ++step) {
    const auto i = static_cast<std::size_t>(step - 1);
    EXPECT_EQ(lr[i].first, step * 16);
    EXPECT_EQ(lr[i].second, static_cast<float>(0.001 * step));
    if (step == 7)
      EXPECT_TRUE(std::isnan(loss[i].second));
    else
      EXPECT_EQ(loss[i].second, static_cast<float>(1.0 / step));
  }
  for (const double time : read.wall_times) EXPECT_GT(time, 1.6e9) << "seconds since 1970";
}

TEST(Tensorboard, ARunThatGoesOnVoidsWhatOlderFilesHaveFromThere) {
  const ScratchFolder folder;
  const TensorboardFile first(folder / "logs", 0);
  const TensorboardFile second(folder / "logs", 161);

  const EventFile read(second.path());

  EXPECT_EQ(read.session_starts, std::vector<std::int64_t>{161});
  EXPECT_LT(first.path(), second.path()) << "readers take files in the order of their names";
}

TEST(Tensorboard, AFolderThatCannotBeMadeIsAnErrorOfTheMachine) {
  const ScratchFolder folder;
  testing::write_text(folder / "file", "");
  try {
    const TensorboardFile file(folder / "file/logs", 0);
    ADD_FAILURE() << "made";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::environment);
    EXPECT_NE(std::string(error.what()).find("tensorboard: "), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace lockstep::run
