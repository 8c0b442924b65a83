#include "files/durable_file.hpp"

#include "files/durable_folder.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::files {
namespace {

namespace fs = std::filesystem;
using testing::error_text;
using testing::ScratchFolder;

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

TEST(DurableFile, ReadsWhatWasWrittenWithTheSameSum) {
  const ScratchFolder folder;
  const std::string path = folder / "file";
  std::string bytes(file_piece + 1000, 'a');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * i >> 3);
  FileWriter writer(path);
  writer.write(bytes.data(), 7);
  writer.write(bytes.data() + 7, bytes.size() - 7);
  const FileSum wrote = writer.finish();

  FileReader reader(path);
  std::string read(bytes.size() + 5, '\0');
  EXPECT_EQ(reader.read(read.data(), 100), 100U);
  EXPECT_EQ(reader.read(read.data() + 100, read.size() - 100), bytes.size() - 100) << "the file's end";
  EXPECT_EQ(read.substr(0, bytes.size()), bytes);
  EXPECT_EQ(reader.sum(), wrote);
  EXPECT_EQ(wrote.bytes, bytes.size());
  EXPECT_EQ(wrote.xxh3_128, hash_of(bytes));
  EXPECT_EQ(read_text_file(path, bytes.size()), bytes);
}

TEST(DurableFile, HashesAsTheReferenceDoes) {
  EXPECT_EQ(hash_of(""), "99aa06d3014798d86001c324468d497f") << "XXH3_128bits of nothing, from xxHash's documentation";
}

TEST(DurableFile, ATextLongerThanAllowedIsRefused) {
  const ScratchFolder folder;
  testing::write_text(folder / "file", "12345");
  EXPECT_EQ(read_text_file(folder / "file", 5), "12345");
  expect_contains(error_text(ErrorKind::checkpoint, [&] { (void)read_text_file(folder / "file", 4); }),
                  "is longer than 4 bytes");
}

TEST(DurableFile, ErrorsNameThePathWithoutObeyingIt) {
  const ScratchFolder folder;
  const std::string path = folder / "no\x1b[2Jthing/file";
  for (const std::string& text : {error_text(ErrorKind::checkpoint, [&] { FileReader reader(path); }),
                                  error_text(ErrorKind::checkpoint, [&] { FileWriter writer(path); }),
                                  error_text(ErrorKind::checkpoint, [&] { rename_path(path, "x"); }),
                                  error_text(ErrorKind::checkpoint, [&] { sync_folder(path); })})
    expect_contains(text, "no\\x1b[2Jthing/file: cannot be");
}

TEST(DurableFile, ATextIsReplacedByOneRename) {
  const ScratchFolder folder;
  replace_text_file(folder / "job.yaml", "one");
  replace_text_file(folder / "job.yaml", "two");
  EXPECT_EQ(testing::text_of(folder / "job.yaml"), "two");
  EXPECT_EQ(names_in(folder.path().string()), std::vector<std::string>{"job.yaml"});
}

TEST(DurableFolder, AMissingFolderIsEmptyAndAnUnreadableOneAnError) {
  const ScratchFolder folder;
  EXPECT_TRUE(names_in(folder / "nothing").empty());
  EXPECT_FALSE(is_folder(folder / "nothing"));
  fs::create_symlink("loop", folder / "loop");
  expect_contains(error_text(ErrorKind::checkpoint, [&] { (void)names_in(folder / "loop"); }), "cannot be listed");
  expect_contains(error_text(ErrorKind::checkpoint, [&] { (void)path_exists(folder / "loop/x"); }),
                  "cannot be looked up");
}

TEST(DurableFolder, MakesWhatIsMissingAbove) {
  const ScratchFolder folder;
  make_folders(folder / "a/b/c");
  make_folders(folder / "a/b/c/");
  EXPECT_TRUE(is_folder(folder / "a/b/c"));
  testing::write_text(folder / "file", "in the way");
  expect_contains(error_text(ErrorKind::checkpoint, [&] { make_folders(folder / "file"); }),
                  "file: cannot be used as a folder");
}

}  // namespace
}  // namespace lockstep::files
