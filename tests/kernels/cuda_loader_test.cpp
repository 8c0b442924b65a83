#include "kernels/cuda_loader.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/scratch.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::testing {
namespace {

namespace fs = std::filesystem;

/// A copy of the headers of core/, kernels/ and comm/, whose build id the script can be asked for.
class BuildId : public ::testing::Test {
 protected:
  BuildId() {
    for (const char* layer : {"core", "kernels", "comm"})
      for (const auto& entry : fs::recursive_directory_iterator(sources_ / layer)) {
        if (entry.path().extension() != ".hpp") continue;
        const fs::path to = root_ / fs::relative(entry.path(), sources_);
        fs::create_directories(to.parent_path());
        fs::copy_file(entry.path(), to);
      }
  }

  std::string id(const std::string& compiler = "GNU 12.2.0", const std::string& version = "0.1.0") {
    const fs::path output = root_ / "id.h";
    const std::string command = "cmake -DROOT=" + root_.string() +
                                " -DHEADER=kernels/cuda_loader.hpp,comm/nccl_loader.hpp '-DCOMPILER=" + compiler +
                                "' -DVERSION=" + version + " -DOUTPUT=" + output.string() + " -P " +
                                (sources_ / "cmake/build_id.cmake").string();
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    return text_of(output);
  }
  void append(const char* header, const char* text) {
    ASSERT_TRUE(fs::exists(root_ / header)) << header;
    std::ofstream(root_ / header, std::ios::app) << text;
  }

  const fs::path sources_ = source_dir();
  const ScratchFolder folder_;
  const fs::path root_ = folder_.path();
};

TEST_F(BuildId, IsAHashThatRepeats) {
  const std::string first = id();
  EXPECT_EQ(id(), first);
  EXPECT_NE(first.find("#define LOCKSTEP_BUILD_ID \""), std::string::npos) << first;
  EXPECT_EQ(std::string(build_id()).size(), 64U);
}

TEST_F(BuildId, ChangesWithEveryHeaderThatCrossesTheBoundary) {
  std::string before = id();
  for (const char* header : {"kernels/cuda_loader.hpp", "kernels/table.hpp", "kernels/adam/adam.hpp",
                             "kernels/flat.hpp", "kernels/decide/step.hpp", "core/device.hpp", "core/step_values.hpp",
                             "core/dtype.hpp", "comm/nccl_api.hpp", "comm/communicator.hpp"}) {
    append(header, "// another default, of the same size\n");
    const std::string after = id();
    EXPECT_NE(after, before) << header;
    before = after;
  }
}

TEST_F(BuildId, IsNotMovedByWhatDoesNotCross) {
  const std::string before = id();
  append("kernels/adam/adam_rule.hpp", "// each side has its own\n");
  append("core/rng.hpp", "// host only\n");
  EXPECT_EQ(id(), before);
}

TEST_F(BuildId, ChangesWithCompilerAndVersion) {
  const std::string before = id();
  EXPECT_NE(id("GNU 13.1.0"), before);
  EXPECT_NE(id("GNU 12.2.0", "0.2.0"), before);
}

TEST_F(BuildId, AnUnchangedIdLeavesItsFileAlone) {
  (void)id();
  const fs::file_time_type long_ago = fs::file_time_type::clock::now() - std::chrono::hours(24);
  fs::last_write_time(root_ / "id.h", long_ago);
  (void)id();
  EXPECT_EQ(fs::last_write_time(root_ / "id.h"), long_ago);
}

}  // namespace
}  // namespace lockstep::testing
