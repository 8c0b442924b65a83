#include "tests/job/odd_files.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "core/error.hpp"
#include "core/text.hpp"
#include "job/job.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::job {
namespace {

/// Whether a terminal would obey something in it. Tabs of the file stay in the excerpt.
bool has_control_bytes(std::string text) {
  std::erase_if(text, [](char c) { return c == '\n' || c == '\t'; });
  return printable(text) != text;
}

/// The place of the first error, as in "job.yaml:3:9: error: ...".
std::string place_of(const std::string& errors, const OddFile& file) {
  const std::string place = errors.substr(0, errors.find(": error: "));
  return place.starts_with(file.name + ":") ? place.substr(file.name.size() + 1) : place;
}

TEST(OddFiles, EachIsAcceptedOrRefusedAtItsPlace) {
  const OddFiles files = odd_files();
  ASSERT_GE(files.size(), 500U);
  for (const OddFile& file : files) {
    SCOPED_TRACE(printable(file.text.substr(0, 400)) + (file.overrides.empty() ? "" : printable(file.overrides[0])));
    std::string errors;
    try {
      (void)load_job_text(file.name, file.text, "/", file.overrides);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::config) << error.what();
      errors = error.what();
    }

    EXPECT_EQ(errors.empty() ? "" : place_of(errors, file), printable(file.place)) << errors;
    EXPECT_NE(errors.find(file.part), std::string::npos) << file.part << "\n" << errors;
    EXPECT_FALSE(has_control_bytes(errors)) << printable(errors);
    for (const char* jargon : {"illegal", "end of map", "end of seq", "yaml-cpp", "unknown token", "not valid YAML"})
      EXPECT_EQ(errors.find(jargon), std::string::npos) << errors;
  }
}

TEST(OddFiles, WhatIsNoFileIsRefusedAtOnce) {
  const testing::ScratchFolder folder;
  const std::string pipe = folder / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const auto text = [](const std::string& path) {
    return testing::error_text(ErrorKind::config, [&] { (void)load_job(path); });
  };

  EXPECT_EQ(text(pipe), pipe + ": is a pipe, not a file; name a file that holds the text");
  EXPECT_EQ(text("/dev/null"), "/dev/null: is a device, not a file; name a file that holds the text");
  EXPECT_EQ(text("/dev/zero"), "/dev/zero: is a device, not a file; name a file that holds the text");
  EXPECT_EQ(text(folder.path().string()),
            folder.path().string() + ": is a folder, not a file; name a file that holds the text");
  EXPECT_EQ(text("/nowhere/\x1b[2J"),
            "/nowhere/\\x1b[2J: cannot be opened for reading: No such file or directory; check the path");
}

/// The same files for the program itself: LOCKSTEP_ODD_FILES names a folder to write them to, each beside the place
/// that is expected of it.
TEST(OddFiles, CanBeWrittenOutForTheProgram) {
  const testing::ScratchFolder scratch;
  const char* wanted = std::getenv("LOCKSTEP_ODD_FILES");
  const std::filesystem::path folder = wanted != nullptr ? wanted : scratch.path();
  std::filesystem::create_directories(folder);
  std::size_t number = 0;

  for (const OddFile& file : odd_files()) {
    if (!file.overrides.empty()) continue;
    const std::string stem = fmt::format("odd{:04}", number++);
    testing::write_text(folder / (stem + (file.name.ends_with(".json") ? ".json" : ".yaml")), file.text);
    testing::write_text(folder / (stem + ".place"), file.place + "\n");
  }

  EXPECT_GE(number, 500U);
  EXPECT_TRUE(std::filesystem::exists(folder / "odd0499.place"));
}

}  // namespace
}  // namespace lockstep::job
