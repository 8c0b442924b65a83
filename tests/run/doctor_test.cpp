#include "run/doctor.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::run {
namespace {

using lockstep::testing::ScratchFolder;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

const Finding& find(const std::vector<Finding>& findings, const std::string& what) {
  for (const Finding& finding : findings)
    if (finding.what == what) return finding;
  ADD_FAILURE() << "nothing was found about " << what;
  return findings.front();
}

void put(const std::string& path, const std::string& text) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path) << text;
}

TEST(Doctor, LooksAtThisMachine) {
  const ScratchFolder folder;
  const std::vector<Finding> findings = examine({.root = "", .folder = folder.path().string(), .launch = false});
  for (const char* what : {"CPUs", "instruction set", "memory", "MPI", "/dev/shm", "run folder", "GPU"})
    EXPECT_FALSE(find(findings, what).text.empty()) << what;
  for (const Finding& finding : findings)
    EXPECT_FALSE(finding.kind == Finding::Kind::problem && finding.remedy.empty()) << finding.what;
  EXPECT_THAT(find(findings, "run folder").text, HasSubstr("locks work"));
  EXPECT_TRUE(fs::is_empty(folder.path())) << "leaves nothing";
}

TEST(Doctor, SaysWhatIsMissingAndHowToMendIt) {
  const ScratchFolder folder;
  const std::string root = folder / "machine";
  put(root + "/proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 500 kB\n");
  put(root + "/proc/cpuinfo", "model name\t: Test CPU\nflags\t\t: fpu avx512_bf16\n");
  put(root + "/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
  const std::vector<Finding> findings = examine({.root = root, .folder = folder / "missing", .launch = false});
  EXPECT_THAT(find(findings, "CPUs").text, HasSubstr("Test CPU"));
  EXPECT_THAT(find(findings, "instruction set").text, HasSubstr("AVX512_BF16, no AMX; bf16 products"));
  EXPECT_EQ(find(findings, "memory").kind, Finding::Kind::note);
  EXPECT_THAT(find(findings, "memory").remedy, HasSubstr("echo madvise"));
  EXPECT_EQ(find(findings, "/dev/shm").kind, Finding::Kind::problem);
  EXPECT_EQ(find(findings, "run folder").kind, Finding::Kind::problem);
  EXPECT_THAT(find(findings, "run folder").text, HasSubstr("cannot be written"));
  EXPECT_EQ(exit_code_of(findings), exit_code(ErrorKind::environment));
  EXPECT_THAT(to_text(findings), HasSubstr("2 problems to mend"));
}

TEST(Doctor, NotesAreNoProblems) {
  const std::vector<Finding> findings = {{.what = "a", .text = "b"}, {Finding::Kind::note, "c", "d", "e"}};
  EXPECT_EQ(exit_code_of(findings), 0);
  EXPECT_EQ(to_text(findings),
            "ok       a                b\n"
            "note     c                d\n"
            "                          -> e\n"
            "\nEverything that training needs is here.\n");
}

}  // namespace
}  // namespace lockstep::run
