#include "run/csv_monitor.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "core/error.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::run {
namespace {

using testing::ScratchFolder;
using testing::text_of;

void write_step(CsvMonitor& monitor, std::int64_t x, double lr) {
  const std::vector<ScalarEvent> events = {{"Train/Samples/lr", lr, x}, {"Train/Samples/train_loss", NAN, x}};
  ASSERT_EQ(monitor.write(events), 0);
}

TEST(CsvMonitor, WritesOneFileATagAsDeepSpeedDoes) {
  const ScratchFolder folder;
  CsvMonitor monitor(folder / "logs/job", 0);

  write_step(monitor, 16, 0.001);
  write_step(monitor, 32, 0.1 + 0.2);

  EXPECT_EQ(text_of(folder / "logs/job/Train_Samples_lr.csv"), "step,lr\r\n16,0.001\r\n32,0.30000000000000004\r\n");
  EXPECT_EQ(text_of(folder / "logs/job/Train_Samples_train_loss.csv"), "step,train_loss\r\n16,nan\r\n32,nan\r\n");
}

TEST(CsvMonitor, ARunThatGoesOnCutsBackAndKeepsOneHeader) {
  const ScratchFolder folder;
  testing::write_text(folder / "Train_Samples_lr.csv", "step,lr\r\n16,1\r\n32,2\r\n48,3\r\n64,");  // and a cut row
  testing::write_text(folder / "mine.csv", "64,4\r\n");

  CsvMonitor monitor(folder.path().string(), 33);
  write_step(monitor, 48, 0.5);

  EXPECT_EQ(text_of(folder / "Train_Samples_lr.csv"), "step,lr\r\n16,1\r\n32,2\r\n48,0.5\r\n");
  EXPECT_EQ(text_of(folder / "Train_Samples_train_loss.csv"), "step,train_loss\r\n48,nan\r\n") << "new: with a header";
  EXPECT_EQ(text_of(folder / "mine.csv"), "64,4\r\n") << "not its own";
}

TEST(CsvMonitor, ANewRunBesideOlderRowsLosesNone) {
  const ScratchFolder folder;
  testing::write_text(folder / "Train_Samples_lr.csv", "step,lr\r\n16,1\r\n");

  CsvMonitor monitor(folder.path().string(), 0);
  write_step(monitor, 16, 2);

  EXPECT_EQ(text_of(folder / "Train_Samples_lr.csv"), "step,lr\r\n16,1\r\nstep,lr\r\n16,2\r\n");
}

TEST(CsvMonitor, SaysThatARowCouldNotBeWritten) {
  const ScratchFolder folder;
  CsvMonitor monitor(folder / "logs", 0);
  std::filesystem::remove_all(folder / "logs");
  const std::vector<ScalarEvent> events = {{"Train/Samples/lr", 1, 16}};
  EXPECT_EQ(monitor.write(events), ENOENT);
}

TEST(CsvMonitor, AFolderThatCannotBeMadeIsAnErrorOfTheMachine) {
  const ScratchFolder folder;
  testing::write_text(folder / "file", "");
  try {
    const CsvMonitor monitor(folder / "file/logs", 0);
    ADD_FAILURE() << "made";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::environment);
  }
}

}  // namespace
}  // namespace lockstep::run
