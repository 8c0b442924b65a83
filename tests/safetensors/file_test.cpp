#include "safetensors/file.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/dtype.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::safetensors {
namespace {

using testing::error_text;
using testing::ScratchFolder;

std::vector<float> floats_of(const File& file, const std::string& name) {
  std::vector<float> values;
  file.read_floats(*file.header().find(name), [&](std::int64_t, std::int64_t count, const float* from) {
    values.insert(values.end(), from, from + count);
  });
  return values;
}

TEST(SafetensorsFile, SixteenBitTensorsAreWidened) {
  const ScratchFolder scratch;
  Writer writer(scratch / "x",
                {{.name = "a", .type = Type::bf16, .shape = {2}},
                 {.name = "b", .type = Type::f16, .shape = {1, 2}},
                 {.name = "mask", .type = Type::boolean, .shape = {1}}},
                {});
  const bf16 a[] = {bf16(1.5F), bf16(-2.0F)};
  const f16 b[] = {f16(0.25F), f16(3.0F)};
  writer.write(a, sizeof a);
  writer.write(b, sizeof b);
  writer.write("\1", 1);
  const files::FileSum sum = writer.finish();

  const File file(scratch / "x");

  EXPECT_EQ(sum.bytes, std::filesystem::file_size(scratch / "x"));
  EXPECT_EQ(floats_of(file, "a"), (std::vector<float>{1.5F, -2.0F}));
  EXPECT_EQ(floats_of(file, "b"), (std::vector<float>{0.25F, 3.0F}));
  EXPECT_NE(
      error_text(ErrorKind::checkpoint, [&] { (void)floats_of(file, "mask"); }).find("mask is BOOL; weights may be"),
      std::string::npos);
}

TEST(SafetensorsFile, ATensorLargerThanAPieceIsWhole) {
  const ScratchFolder scratch;
  std::vector<float> values(files::file_piece / sizeof(float) + 1001);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  Writer writer(scratch / "x", {{.name = "w", .shape = {values.size()}}}, {});
  writer.write(values.data(), values.size() * sizeof(float));
  (void)writer.finish();
  EXPECT_EQ(floats_of(File(scratch / "x"), "w"), values);
}

TEST(SafetensorsFile, WhatIsNoFileOfTensorsIsNamed) {
  const ScratchFolder scratch;
  const auto error_of = [&] { return error_text(ErrorKind::checkpoint, [&] { const File file(scratch / "x"); }); };
  testing::write_text(scratch / "x", "short");
  EXPECT_NE(error_of().find("does not lie in the file of 5 bytes"), std::string::npos) << error_of();
  std::filesystem::remove(scratch / "x");
  std::filesystem::create_directory(scratch / "x");
  EXPECT_NE(error_of().find("is no regular file"), std::string::npos) << error_of();
  testing::write_text(scratch / "y", "y");
  std::filesystem::remove(scratch / "x");
  std::filesystem::create_symlink("y", scratch / "x");
  const std::string refused = error_text(ErrorKind::checkpoint, [&] { const File file(scratch / "x", false); });
  EXPECT_NE(refused.find("cannot be opened"), std::string::npos) << refused;
}

TEST(SafetensorsFile, OneThatBecomesShorterIsAnError) {
  const ScratchFolder scratch;
  Writer writer(scratch / "x", {{.name = "w", .shape = {4}}}, {});
  const float values[4] = {};
  writer.write(values, sizeof values);
  (void)writer.finish();
  const File file(scratch / "x");
  std::filesystem::resize_file(scratch / "x", std::filesystem::file_size(scratch / "x") - 4);
  EXPECT_NE(error_text(ErrorKind::checkpoint, [&] { (void)floats_of(file, "w"); }).find("has become shorter"),
            std::string::npos);
}

}  // namespace
}  // namespace lockstep::safetensors
