#include "config/document.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <string>

#include "config/override.hpp"
#include "config/scalar.hpp"
#include "config/words.hpp"

namespace lockstep::config {
namespace {

struct Parsed {
  Node root;
  Diagnostics diagnostics;
  std::string errors;
};

Parsed parse(const std::string& text, Syntax syntax = Syntax::yaml) {
  Parsed parsed;
  parsed.root = parse_document("t", text, syntax, parsed.diagnostics);
  parsed.errors = parsed.diagnostics.render();
  return parsed;
}

std::string position(const Node& node) {
  return std::to_string(node.position.line) + ":" + std::to_string(node.position.column);
}

void expect_error(const std::string& text, const std::string& part, Syntax syntax = Syntax::yaml) {
  const Parsed parsed = parse(text, syntax);
  EXPECT_GE(parsed.diagnostics.error_count(), 1U) << text;
  EXPECT_NE(parsed.errors.find(part), std::string::npos) << text << "\n" << parsed.errors;
}

TEST(Document, KeepsThePlaceOfEveryKeyAndValue) {
  const Parsed parsed = parse("a: 1\nblock:\n  key:  value\n  list: [x, \"y z\"]\n");
  ASSERT_EQ(parsed.diagnostics.error_count(), 0U) << parsed.errors;
  EXPECT_EQ(position(*parsed.root.find("a")), "1:4");
  const Node& block = *parsed.root.find("block");
  EXPECT_EQ(block.members[0].key_position.line, 3);
  EXPECT_EQ(block.members[0].key_position.column, 3);
  EXPECT_EQ(position(*block.find("key")), "3:9");
  const Node& list = *block.find("list");
  EXPECT_EQ(position(list.items[0]), "4:10");
  EXPECT_EQ(position(list.items[1]), "4:13");
  EXPECT_TRUE(list.items[1].quoted);
  EXPECT_EQ(list.items[1].position.length, 5);
}

TEST(Document, KeepsPlacesBehindJsonComments) {
  const std::string text =
      "{ // a \"quoted\" remark\n"
      "\t\"a\": /* in between */ 1, # hash\n"
      "  /* over\n"
      "     lines */ \"b\": \"no // comment # here\"\n"
      "}\n";
  const Parsed parsed = parse(text, Syntax::json);
  ASSERT_EQ(parsed.diagnostics.error_count(), 0U) << parsed.errors;
  EXPECT_EQ(position(*parsed.root.find("a")), "2:24");
  EXPECT_EQ(position(*parsed.root.find("b")), "4:20");
  EXPECT_EQ(parsed.root.find("b")->text, "no // comment # here");
}

TEST(Document, JoinsSurrogatePairsAndKeepsColumnsBehindThem) {
  const Parsed parsed = parse(R"({"s": "\ud83d\ude00!", "n": 5})", Syntax::json);
  ASSERT_EQ(parsed.diagnostics.error_count(), 0U) << parsed.errors;
  EXPECT_EQ(parsed.root.find("s")->text, "\xF0\x9F\x98\x80!");
  EXPECT_EQ(position(*parsed.root.find("n")), "1:29");
  expect_error(R"({"s": "\ud83d."})", "half of a surrogate pair", Syntax::json);
  expect_error(R"({"s": "\ude00"})", "t:1:8: error: \\ude00 is half", Syntax::json);
}

TEST(Document, ReadsEscapesOfJson) {
  const Parsed parsed = parse(R"({"s": "a\/b\u0041\n\"q\\"})", Syntax::json);
  ASSERT_EQ(parsed.diagnostics.error_count(), 0U) << parsed.errors;
  EXPECT_EQ(parsed.root.find("s")->text, "a/bA\n\"q\\");
}

TEST(Document, NamesBothLinesOfADuplicateKey) {
  const Parsed parsed = parse("lr: 1\nx: 2\nlr: 3\n");
  EXPECT_NE(parsed.errors.find("t:3:1: error: duplicate key 'lr': given in line 1 and again in line 3"),
            std::string::npos)
      << parsed.errors;
  EXPECT_EQ(parsed.root.find("lr")->text, "1");
  expect_error("{\"a\": 1,\n \"a\": 2}", "given in line 1 and again in line 2", Syntax::json);
}

TEST(Document, RefusesWhatYamlOffersBeyondPlainValues) {
  expect_error("a: 1\n---\nb: 2\n", "t:2:1: error: a second document");
  expect_error("a: 1\n---\n", "a second document");
  expect_error("x: &name 1\n", "anchors (&name) are not supported");
  expect_error("x: &name 1\ny: *name\n", "aliases (*name) are not supported");
  expect_error("a: &a [1, *a]\n", "aliases (*name) are not supported");
  expect_error("<<: {a: 1}\n", "merge keys (<<) are not supported");
  expect_error("x: !!int \"12\"\n", "type tags");
  expect_error("? [a, b]\n: 1\n", "a key must be a single word");
}

TEST(Document, ReportsSyntaxWithPlaceAndTabHint) {
  expect_error("a: [1, 2\nb: 3\n", "t:1:4: error: this [ is never closed");
  expect_error("a:\n\tb: 1\n", "t:2:1: error: a tab cannot indent");
  expect_error("{\"a\": 1 /* never", "t:1:9: error: this comment is never closed", Syntax::json);
}

TEST(Document, RefusesTextThatIsNotUtf8) {
  expect_error("a: 1\nb: \xFF\n", "t:2:4: error: the text is not UTF-8");
  expect_error("a: \xC0\xAF", "t:1:4: error: the text is not UTF-8");      // '/' in two bytes
  expect_error("a: \xED\xA0\x80", "t:1:4: error: the text is not UTF-8");  // half of a pair
  expect_error(std::string("a\0b", 3), "t:1:2: error: a NUL byte (0) stands in the text");
}

TEST(Document, CountsColumnsInCharacters) {
  const Parsed parsed = parse("{äö: 1, äö: 2}\n");
  EXPECT_NE(parsed.errors.find("t:1:9: error: duplicate key"), std::string::npos) << parsed.errors;
  EXPECT_NE(parsed.errors.find("      |         ^~ remove"), std::string::npos) << parsed.errors;
}

TEST(Document, DropsByteOrderMarkAndCarriageReturns) {
  const Parsed parsed = parse(
      "\xEF\xBB\xBF"
      "a: 1\r\nb: 2\r\n");
  ASSERT_EQ(parsed.diagnostics.error_count(), 0U) << parsed.errors;
  EXPECT_EQ(parsed.root.find("b")->text, "2");
  EXPECT_EQ(position(*parsed.root.find("a")), "1:4");
}

TEST(Document, BoundsSizeDepthAndTime) {
  const auto start = std::chrono::steady_clock::now();
  expect_error("a: " + std::string(1 << 20, 'x'), "more than 1.00 MiB, the most that a job file has");
  expect_error(std::string(65, '['), "nested deeper than 64 levels");
  expect_error(std::string(500'000, '['), "nested deeper than 64 levels");
  std::string many = "a: [0";
  for (int i = 0; i < 120'000; ++i) many += ",1";
  expect_error(many + "]", "more than 100000 values");
  // Keys are looked for among all that came before, and a long one is compared with none that it cannot mean.
  std::string keys;
  for (int i = 0; i < 49'000; ++i) keys += "key_number_" + std::to_string(i) + ": 0\n";
  EXPECT_EQ(parse(keys).diagnostics.error_count(), 0U);
  EXPECT_EQ(nearest(std::string(1'000'000, 'x'), {"steps", "seed"}), "");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  const Parsed deep = parse(std::string(60, '[') + std::string(60, ']'));
  EXPECT_EQ(deep.diagnostics.error_count(), 0U) << deep.errors;
}

TEST(Document, ChoosesTheSyntax) {
  EXPECT_EQ(syntax_of("job.yaml", "a: 1 # {"), Syntax::yaml);
  EXPECT_EQ(syntax_of("ds.json", "a"), Syntax::json);
  EXPECT_EQ(syntax_of("ds.hjson", "a"), Syntax::json);
  EXPECT_EQ(syntax_of("ds", "\n  { \"a\": 1 }"), Syntax::json);
  EXPECT_EQ(syntax_of("ds", "// remark\n{}"), Syntax::json);
}

TEST(Override, SetsReplacesAndMakesBlocks) {
  Parsed parsed = parse("run: {steps: 10}\ngroups: [{lr: 1}, {lr: 2}]\n");
  apply_override(parsed.root, "run.steps=20", parsed.diagnostics);
  apply_override(parsed.root, "comm.timeout_s=1e2", parsed.diagnostics);
  apply_override(parsed.root, "optimizer.params={lr: 0.5, betas: [0.8, 0.9]}", parsed.diagnostics);
  apply_override(parsed.root, "groups.1.lr=3", parsed.diagnostics);
  apply_override(parsed.root, "run.name=a=b", parsed.diagnostics);
  ASSERT_EQ(parsed.diagnostics.error_count(), 0U) << parsed.diagnostics.render();
  EXPECT_EQ(parsed.root.find("run")->find("steps")->text, "20");
  EXPECT_EQ(parsed.root.find("run")->find("name")->text, "a=b");
  EXPECT_EQ(parsed.root.find("comm")->find("timeout_s")->text, "1e2");
  EXPECT_EQ(parsed.root.find("optimizer")->find("params")->find("betas")->items[1].text, "0.9");
  EXPECT_EQ(parsed.root.find("groups")->items[1].find("lr")->text, "3");
}

TEST(Override, ErrorsNameTheOption) {
  for (const char* option : {"run", "=1", "run.steps=[1", "run.steps.x=1", "groups.7.lr=1", "groups.x=1"}) {
    Parsed parsed = parse("run: {steps: 10}\ngroups: [{lr: 1}]\n");
    apply_override(parsed.root, option, parsed.diagnostics);
    ASSERT_EQ(parsed.diagnostics.error_count(), 1U) << option;
    EXPECT_EQ(parsed.diagnostics.render().find("--set " + std::string(option) + ": error: "), 0U)
        << parsed.diagnostics.render();
  }
}

TEST(Scalar, OnlyDecimalNumbersAreNumbers) {
  EXPECT_EQ(interpret("12").value, ParamValue(12));
  EXPECT_EQ(interpret("-0").value, ParamValue(0));
  EXPECT_EQ(interpret("+7").value, ParamValue(7));
  EXPECT_EQ(interpret("1e-4").value, ParamValue(1e-4));
  EXPECT_EQ(interpret("5e8").value, ParamValue(5e8));
  EXPECT_EQ(interpret(".5").value, ParamValue(0.5));
  EXPECT_EQ(interpret("3.").value, ParamValue(3.0));
  EXPECT_EQ(interpret("9223372036854775807").value, ParamValue(std::numeric_limits<std::int64_t>::max()));
  EXPECT_EQ(interpret("true").value, ParamValue(true));
  for (const char* text : {"010", "00", "0x10", "0o17", "0b1", "1_000", "1,000", ".inf", "-.inf", ".nan", "nan",
                           "1e999", "9223372036854775808", "01.5"})
    EXPECT_FALSE(interpret(text).problem.empty()) << text;
  for (const char* text : {"yes", "abc", "", "-", "+", ".", "e5", "1e", "1e+", "1.5.2", "12a", "True"}) {
    EXPECT_EQ(interpret(text).value, ParamValue(text)) << text;
    EXPECT_TRUE(interpret(text).problem.empty()) << text;
  }
}

}  // namespace
}  // namespace lockstep::config
