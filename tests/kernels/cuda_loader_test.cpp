#include "kernels/cuda_loader.hpp"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

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

/// A folder with the library, in which a module may lie or not, and a program that asks for it there.
class Loader : public ::testing::Test {
 protected:
  struct Answer {
    int exit_code = -1;
    std::string text;
  };

  Loader() { put(libraries_ / "liblockstep.so"); }
  void put(const fs::path& file) const { fs::create_symlink(file, folder_.path() / file.filename()); }
  void put_module(const char* part) const { put(parts_ / part / "liblockstep_cuda.so"); }
  [[nodiscard]] static bool has_real_module() { return fs::exists(libraries_ / "liblockstep_cuda.so"); }

  /// environment: "NAME='value' ..."; libraries: searched after the folder
  [[nodiscard]] Answer ask(const std::string& environment = "", const std::string& libraries = "") const {
    const std::string output = folder_ / "answer";
    const std::string command = "env -u CUDA_VISIBLE_DEVICES " + environment + " LD_LIBRARY_PATH='" +
                                folder_.path().string() + ":" + libraries + "' '" + (parts_ / "cuda_probe").string() +
                                "' > '" + output + "' 2>&1";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text_of(output)};
  }
  static void expect_refusal(const Answer& answer, const std::vector<std::string>& parts) {
    EXPECT_EQ(answer.exit_code, 8) << answer.text;
    EXPECT_EQ(answer.text.rfind("device: cuda: ", 0), 0U) << answer.text;
    for (const std::string& part : parts)
      EXPECT_NE(answer.text.find(part), std::string::npos) << "no \"" << part << "\" in: " << answer.text;
    EXPECT_NE(answer.text.find("use device: cpu"), std::string::npos) << "no way out: " << answer.text;
    EXPECT_EQ(std::count(answer.text.begin(), answer.text.end(), '\n'), 1) << answer.text;
  }

  static inline const fs::path parts_ = LOCKSTEP_LOADER_PARTS;
  static inline const fs::path libraries_ = LOCKSTEP_LIBRARIES;
  const ScratchFolder folder_;
};

TEST_F(Loader, SaysThatTheModuleIsMissing) {
  expect_refusal(ask(),
                 {"the CUDA module is missing: there is no " + (folder_ / "liblockstep_cuda.so"), "preset cuda"});
}

TEST_F(Loader, NamesALibraryThatTheModuleNeedsAndDoesNotFind) {
  put_module("needy_cuda");
  expect_refusal(ask(),
                 {"the CUDA module is there, but libabsent.so, which it needs, is not found", "LD_LIBRARY_PATH"});
}

TEST_F(Loader, SaysWhatElseKeepsAModuleFromOpening) {
  write_text(folder_ / "liblockstep_cuda.so", "no library");
  expect_refusal(ask(),
                 {"the CUDA module cannot be opened: ", "liblockstep_cuda.so: file too short", "build it again"});
}

TEST_F(Loader, SaysThatTheDriverIsMissing) {
  put_module("fake_cuda");
  expect_refusal(ask("LOCKSTEP_FAKE_CUDA='0 13000 0 same'"), {"the NVIDIA driver is missing (libcuda.so.1", "--gpus"});
}

TEST_F(Loader, SaysThatTheDriverIsTooOld) {
  put_module("fake_cuda");
  expect_refusal(ask("LOCKSTEP_FAKE_CUDA='12040 13000 0 same'"),
                 {"the NVIDIA driver is too old: it knows CUDA 12.4, and the CUDA module was built with 13.0"});
}

TEST_F(Loader, SaysThatThereIsNoGpuAndWhatHidesThem) {
  put_module("fake_cuda");
  const std::string environment = "LOCKSTEP_FAKE_CUDA='13000 13000 0 same'";
  const Answer none = ask(environment);
  expect_refusal(none, {"driver is there, but no GPU (no CUDA-capable device is detected)", "nvidia-smi -L"});
  EXPECT_EQ(none.text.find("CUDA_VISIBLE_DEVICES"), std::string::npos) << none.text;
  expect_refusal(ask(environment + " CUDA_VISIBLE_DEVICES=7"), {"CUDA_VISIBLE_DEVICES=7 chooses among them"});
}

TEST_F(Loader, RefusesAModuleOfAnotherBuildBeforeItAsksForTheGpu) {
  put_module("fake_cuda");
  const Answer answer = ask("LOCKSTEP_FAKE_CUDA='0 13000 0 other'");
  EXPECT_EQ(answer.exit_code, 8);
  EXPECT_NE(answer.text.find("is of another build than this program"), std::string::npos) << answer.text;
}

TEST_F(Loader, GivesTheModuleWhereAllIsThere) {
  put_module("fake_cuda");
  const Answer answer = ask("LOCKSTEP_FAKE_CUDA='13000 13000 2 same'");
  EXPECT_EQ(answer.exit_code, 0);
  EXPECT_EQ(answer.text, "2 GPUs\n");
}

/// The real module, on a machine as it is.
class RealModule : public Loader {
 protected:
  void SetUp() override {
    if (!has_real_module()) GTEST_SKIP() << "the CUDA module was not built";
    put(libraries_ / "liblockstep_cuda.so");
  }
  static bool has_driver() {
    void* driver = dlopen("libcuda.so.1", RTLD_LAZY);
    if (driver != nullptr) dlclose(driver);
    return driver != nullptr;
  }
};

TEST_F(RealModule, FindsNoDriverWhereThereIsNone) {
  if (has_driver()) GTEST_SKIP() << "this machine has a driver";
  expect_refusal(ask(), {"the NVIDIA driver is missing"});
}

TEST_F(RealModule, FindsNoGpuWhereTheDriverSeesNone) {
  expect_refusal(ask("", (parts_ / "fake_driver").string()),
                 {"the NVIDIA driver is there, but no GPU (no CUDA-capable device is detected)"});
}

TEST_F(RealModule, NamesALibraryOfNvidiaThatCannotBeRead) {
  for (const char* of_toolkit : {"12", "13", "14"})
    write_text(folder_ / ("libcublasLt.so." + std::string(of_toolkit)), "no library");
  expect_refusal(ask(), {"the CUDA module cannot be opened: ", "libcublasLt.so.1", ": file too short"});
}

}  // namespace
}  // namespace lockstep::testing
