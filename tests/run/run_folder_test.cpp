#include "run/run_folder.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "tests/run/trainee.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using testing::error_text;
using testing::ScratchFolder;

TEST(RunLock, IsHeldByOneJobAndSaysByWhich) {
  const ScratchFolder scratch;
  const std::string folder = scratch / "runs/a";
  {
    const RunLock lock(folder);
    EXPECT_TRUE(lock.effective());
    const std::string text =
        error_text(ErrorKind::environment, [&] { const RunLock second(folder, milliseconds(60)); });
    expect_contains(text, folder + " is in use by pid " + std::to_string(getpid()) + " on ");
    expect_contains(text, "run id " + lock.run_id());
    expect_contains(text, "run_test");  // how it was started
    expect_contains(text, "another run.name");
    const RunLock other(scratch / "runs/b", milliseconds(0));
    EXPECT_NE(other.run_id(), lock.run_id());
  }
  EXPECT_NO_THROW(const RunLock again(folder, milliseconds(0)));
  EXPECT_FALSE(fs::exists(folder)) << "the lock alone makes no run";
}

TEST(RunLock, StaysWhenTheFolderIsMovedAside) {
  const ScratchFolder scratch;
  const std::string folder = scratch / "a";
  const RunLock lock(folder);
  fs::create_directories(folder);
  EXPECT_EQ(move_folder_aside(folder), folder + ".old-1");
  fs::create_directories(folder);
  (void)error_text(ErrorKind::environment, [&] { const RunLock second(folder, milliseconds(0)); });
  EXPECT_EQ(move_folder_aside(folder), folder + ".old-2");
}

TEST(RunLock, GoesWithItsProcessAndIsWaitedFor) {
  const ScratchFolder scratch;
  const std::string folder = scratch / "a";
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const RunLock lock(folder);
    (void)!write(ready[1], "x", 1);
    pause();
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  expect_contains(error_text(ErrorKind::environment, [&] { const RunLock lock(folder, milliseconds(0)); }),
                  "pid " + std::to_string(child));
  std::jthread killer([child] {
    std::this_thread::sleep_for(milliseconds(200));
    kill(child, SIGKILL);
    (void)waitpid(child, nullptr, 0);
  });
  EXPECT_NO_THROW(const RunLock lock(folder, std::chrono::seconds(60)));
}

TEST(RunLock, AFolderThatCannotBeMadeIsNamed) {
  const ScratchFolder scratch;
  testing::write_text(scratch / "file", "in the way");
  const std::string text = error_text(ErrorKind::environment, [&] { const RunLock lock(scratch / "file/a"); });
  expect_contains(text, scratch / "file/a");
  expect_contains(text, "run.output_dir");
}

}  // namespace
}  // namespace lockstep::run
