#include "safetensors/header.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::safetensors {
namespace {

/// Why a header is refused that `data` bytes follow.
std::string refused(const std::string& text, std::uint64_t data) {
  return testing::error_text(ErrorKind::checkpoint, [&] { (void)parse_header(text, data, "file"); });
}

void expect_refused(const std::string& text, std::uint64_t data, const std::string& why) {
  const std::string said = refused(text, data);
  EXPECT_NE(said.find("file: is no safetensors file, or a damaged one: "), std::string::npos) << said;
  EXPECT_NE(said.find(why), std::string::npos) << "'" << why << "' is not in: " << said;
}

/// A tensor of a header.
std::string entry(const std::string& name, const std::string& shape, const std::string& offsets,
                  const std::string& dtype = "F32") {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" + offsets + "]}";
}

TEST(SafetensorsHeader, GivesBackWhatWasLaidOut) {
  std::vector<Tensor> tensors = {{.name = "b", .type = Type::f16, .shape = {3}},
                                 {.name = "z", .type = Type::f32, .shape = {}},
                                 {.name = "a", .type = Type::f32, .shape = {2, 2}},
                                 {.name = "none", .type = Type::f64, .shape = {0, 7}},
                                 {.name = "half \"bytes\"", .type = Type::f4, .shape = {6}}};
  const std::string first = lay_out(tensors, {{"format", "pt"}});

  const Header header = parse_header(std::string_view(first).substr(8), 0 + 16 + 4 + 6 + 3, "file");

  EXPECT_EQ(header.tensors, tensors) << "in this order, with these places";
  EXPECT_EQ(header.metadata, (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_EQ(header.data_begin % 8, 0U);
  ASSERT_EQ(tensors[0].name, "none") << "wide elements first";
  EXPECT_EQ(tensors[1].name, "a");
  EXPECT_EQ(tensors[2].name, "z");
  EXPECT_EQ(tensors[3].begin, 20U);
}

TEST(SafetensorsHeader, WhatCannotBeReadIsNotWritten) {
  const auto internal = [](std::vector<Tensor> tensors) {
    (void)testing::error_text(ErrorKind::internal, [&] { (void)lay_out(tensors, {}); });
  };
  internal({{.name = "a", .shape = {1}}, {.name = "a", .shape = {1}}});
  internal({{.name = "__metadata__"}});
  internal({{.name = std::string(longest_name + 1, 'n')}});
  internal({{.name = "a", .shape = {std::uint64_t{1} << 62, 8}}});
  internal({{.name = "a", .shape = std::vector<std::uint64_t>(9, 1)}});
}

TEST(SafetensorsHeader, ItsLengthLiesInTheFile) {
  const unsigned char two[8] = {2};
  EXPECT_EQ(header_length(two, 10, "file"), 2U);
  for (const std::uint64_t size : {0, 7, 8, 9})
    (void)testing::error_text(ErrorKind::checkpoint, [&] { (void)header_length(two, size, "file"); });
  const unsigned char huge[8] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
  (void)testing::error_text(ErrorKind::checkpoint, [&] { (void)header_length(huge, ~std::uint64_t{0}, "file"); });
  const unsigned char over[8] = {0x01, 0xE1, 0xF5, 0x05};  // 100,000,001
  (void)testing::error_text(ErrorKind::checkpoint, [&] { (void)header_length(over, 200'000'000, "file"); });
}

TEST(SafetensorsHeader, SpacesMayFollowAndNothingElse) {
  EXPECT_TRUE(parse_header("{}   ", 0, "file").tensors.empty());
  for (const std::string text : {"", "   ", " {}", "{}\n", "{}\t", "{} x", "[]", "{}{}", "\xEF\xBB\xBF{}"})
    (void)refused(text, 0);
  expect_refused(std::string("{}\0}", 4), 0, "NUL");
}

TEST(SafetensorsHeader, EveryRuleIsNamed) {
  expect_refused("{" + entry("a", "2", "0,8") + "}", 7, "end at byte 8 of the data, the file at 7");
  expect_refused("{" + entry("a", "2", "0,8") + "}", 9, "end at byte 8 of the data, the file at 9");
  expect_refused("{" + entry("a", "2", "0,4") + "}", 4, "a has 4 bytes, its shape 8");
  expect_refused("{" + entry("a", "2", "8,0") + "}", 8, "a ends before it begins");
  expect_refused("{" + entry("a", "1", "0,4") + "," + entry("b", "1", "0,4") + "}", 4, "b begins at byte 0");
  expect_refused("{" + entry("a", "1", "0,4") + "," + entry("b", "1", "8,12") + "}", 12, "ends at 4");
  expect_refused("{" + entry("a", "1", "0,4") + "," + entry("a", "1", "4,8") + "}", 8, "has a twice");
  expect_refused("{" + entry("a", "1", "0,4") + "," + entry("\\u0061", "1", "4,8") + "}", 8, "has a twice");
  expect_refused("{" + entry("a", "4611686018427387904,4", "0,0") + "}", 0, "more bytes than can be counted");
  expect_refused("{" + entry("a", "0,4611686018427387904,8", "0,0") + "}", 0, "more bytes than can be counted");
  expect_refused("{" + entry("a", "18446744073709551616", "0,0") + "}", 0, "not whole or too large");
  expect_refused("{" + entry("a", "-1", "0,4") + "}", 4, "a number below 0");
  expect_refused("{" + entry("a", "1.0", "0,4") + "}", 4, "not whole");
  expect_refused("{" + entry("a", "1,1,1,1,1,1,1,1,1", "0,4") + "}", 4, "more than 8 dimensions");
  expect_refused("{" + entry("a", "3", "0,1", "F4") + "}", 1, "ends within a byte");
  expect_refused("{" + entry("a", "1", "0,4", "F33") + "}", 4, "unknown dtype F33");
  expect_refused("{" + entry("a", "1", "0") + "}", 4, "needs two numbers");
  expect_refused("{" + entry("a", "1", "0,4,4") + "}", 4, "more than two numbers");
  expect_refused("{" + entry(std::string(513, 'n'), "1", "0,4") + "}", 4, "a name of 513 bytes; 512 are allowed");
  expect_refused(R"({"a":{"dtype":"F32","shape":[1]}})", 4, "a needs dtype, shape and data_offsets");
  expect_refused(R"({"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4, "a has dtype twice");
  expect_refused(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"x":1}})", 4, "does not know");
  expect_refused(R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4, "a list");
  expect_refused(R"({"a":[]})", 0, "a is a list; expected an object");
  expect_refused(R"({"__metadata__":{"a":1}})", 0, "a in __metadata__ is a number; expected a text");
  expect_refused(R"({"__metadata__":{"a":"1","a":"2"}})", 0, "has a twice in __metadata__");
  expect_refused(R"({"__metadata__":{},"__metadata__":{}})", 0, "has __metadata__ twice");
  expect_refused("{\"a\xFF\":1}", 0, "no JSON");
  expect_refused(R"({"a)", 0, "no JSON object");
}

/// Headers that are right, wrong in one thing, or wrong by chance.
class Generator {
 public:
  explicit Generator(std::uint32_t seed) : random_(seed) {}

  std::pair<std::string, std::uint64_t> header() {
    static const std::vector<std::pair<const char*, unsigned>> types = {
        {"F32", 32}, {"BF16", 16}, {"U8", 8}, {"F64", 64}, {"F4", 4}, {"F6_E2M3", 6}, {"BOOL", 8}, {"C64", 64}};
    std::vector<std::string> fields;
    std::uint64_t end = 0;
    const int count = upto(4);
    for (int i = 0; i < count; ++i) {
      const auto& [type, bits] = types[static_cast<std::size_t>(upto(7))];
      std::uint64_t product = bits;
      std::vector<std::uint64_t> shape;
      for (int d = upto(3); d > 0; --d) {
        shape.push_back(static_cast<std::uint64_t>(upto(4)) * (bits % 8 == 0 ? 1 : 4));
        product *= shape.back();
      }
      if (product % 8 != 0) {
        shape.push_back(4);
        product *= 4;
      }
      std::uint64_t begin = end, stop = end + product / 8;
      end = stop;
      if (rarely()) begin += static_cast<std::uint64_t>(upto(2));
      if (rarely()) stop -= std::min<std::uint64_t>(stop, static_cast<std::uint64_t>(upto(2)));
      if (rarely()) shape.push_back(std::uint64_t{1} << (40 + upto(23)));
      if (rarely()) shape.assign(static_cast<std::size_t>(upto(12)), 1);
      std::string numbers;
      for (const std::uint64_t n : shape) numbers += (numbers.empty() ? "" : ",") + number(n);
      const std::string name = rarely()   ? "t0"
                               : rarely() ? std::string(static_cast<std::size_t>(510 + upto(4)), 'n')
                                          : "t" + std::to_string(i);
      std::vector<std::string> parts = {quoted("dtype") + ":" + quoted(rarely() ? "F31" : type),
                                        quoted("shape") + ":[" + numbers + "]",
                                        quoted("data_offsets") + ":[" + number(begin) + "," + number(stop) + "]"};
      std::shuffle(parts.begin(), parts.end(), random_);
      if (rarely()) parts.pop_back();
      if (rarely()) parts.push_back(parts.front());
      if (rarely()) parts.push_back("\"extra\":null");
      fields.push_back(quoted(name) + ":" + space() + "{" + joined(parts) + "}");
    }
    if (upto(3) == 0)
      fields.push_back("\"__metadata__\":{\"format\":" + std::string(rarely() ? "1" : "\"pt\"") +
                       (rarely() ? ",\"format\":\"x\"" : "") + "}");
    std::shuffle(fields.begin(), fields.end(), random_);
    std::string text = "{" + joined(fields) + "}";
    if (rarely()) end += static_cast<std::uint64_t>(upto(3));
    text.append(static_cast<std::size_t>(upto(7)), ' ');
    for (int changes = rarely() ? 1 + upto(2) : 0; changes > 0 && !text.empty(); --changes) {
      const auto at = static_cast<std::size_t>(upto(static_cast<int>(text.size()) - 1));
      switch (upto(3)) {
        case 0:
          text[at] = static_cast<char>(upto(255));
          break;
        case 1:
          text.erase(at, 1);
          break;
        case 2:
          text.insert(at, 1, static_cast<char>(upto(255)));
          break;
        default:
          text.insert(at, text.substr(at, static_cast<std::size_t>(upto(9))));
      }
    }
    return {text, end};
  }

 private:
  int upto(int most) { return static_cast<int>(random_() % (static_cast<unsigned>(most) + 1)); }
  bool rarely() { return upto(24) == 0; }
  std::string space() { return rarely() ? std::string(1, " \n\t\r"[upto(3)]) : ""; }
  std::string number(std::uint64_t n) {
    if (!rarely()) return std::to_string(n);
    switch (upto(4)) {
      case 0:
        return std::to_string(n) + ".0";
      case 1:
        return "-" + std::to_string(n);
      case 2:
        return "0" + std::to_string(n);
      case 3:
        return std::to_string(n) + "e0";
      default:
        return "184467440737095516" + std::to_string(10 + upto(10));
    }
  }
  std::string quoted(std::string text) {
    if (rarely() && !text.empty()) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(text[0])));
      text = escaped + text.substr(1);
    }
    if (rarely() && rarely()) text += "\\ud800";
    return "\"" + text + "\"";
  }
  std::string joined(const std::vector<std::string>& parts) {
    std::string text;
    for (const std::string& part : parts) text += (text.empty() ? "" : "," + space()) + part;
    return text;
  }

  std::mt19937 random_;
};

/// tools/gate.sh asks for more than CI has time for.
int number_in(const char* variable, int otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::stoi(text);
}

TEST(SafetensorsHeader, AgreesWithAnIndependentReader) {
  if (std::system("python3 -c 'import json' >/dev/null 2>&1") != 0) GTEST_SKIP() << "there is no python3";
  const int headers = number_in("LOCKSTEP_TEST_HEADERS", 20000), seed = number_in("LOCKSTEP_TEST_SEED", 20261126);
  std::printf("%d headers of seed %d\n", headers, seed);
  const testing::ScratchFolder folder;
  std::ofstream out(folder / "headers", std::ios::binary);
  std::string ours;
  std::vector<std::string> texts;
  Generator generator(static_cast<std::uint32_t>(seed));
  for (int i = 0; i < headers; ++i) {
    const auto [text, data] = generator.header();
    const std::uint64_t sizes[] = {text.size(), data};
    out.write(reinterpret_cast<const char*>(sizes), sizeof sizes);
    out << text;
    texts.push_back(text);
    try {
      (void)parse_header(text, data, "file");
      ours += '1';
    } catch (const Error&) {
      ours += '0';
    }
  }
  out.close();

  const std::string command = "python3 " + source_dir() + "/tests/safetensors/strict_checker.py " + folder / "headers" +
                              " > " + folder / "verdicts";
  ASSERT_EQ(std::system(command.c_str()), 0);

  const std::string theirs = testing::text_of(folder / "verdicts");
  ASSERT_EQ(theirs.size(), ours.size());
  for (std::size_t i = 0; i < ours.size(); ++i) EXPECT_EQ(ours[i], theirs[i]) << "header " << i << ": " << texts[i];
  const auto accepted = std::count(ours.begin(), ours.end(), '1');
  std::printf("%ld of them accepted\n", static_cast<long>(accepted));
  EXPECT_GT(accepted, headers / 10) << "the generator makes both";
  EXPECT_LT(accepted, headers * 9 / 10);
}

}  // namespace
}  // namespace lockstep::safetensors
