#include "config/syntax_errors.hpp"

#include <gtest/gtest.h>

#include "config/document.hpp"

namespace lockstep::config {
namespace {

/// The first error of a text: "line:column: message | remedy".
std::string first_error(const std::string& text, Syntax syntax = Syntax::yaml) {
  Diagnostics diagnostics;
  (void)parse_document("t", text, syntax, diagnostics);
  const std::string all = diagnostics.render();
  const std::string line = all.substr(0, all.find('\n'));
  const std::size_t caret = all.find('^');
  const std::string beside = caret == std::string::npos ? "" : all.substr(caret, all.find('\n', caret) - caret);
  const std::size_t blank = beside.find(' ');
  return line.substr(std::min(line.size(), std::size_t{2})) +
         (blank == std::string::npos ? "" : " |" + beside.substr(blank));
}

const char* const not_closed = "error: this quote is not closed on its line | close it with ";

TEST(SyntaxErrors, AnUnclosedQuoteIsNamedWhereItOpened) {
  EXPECT_EQ(first_error("o: \"abc\nx: 1\ny: \"z\"\n"), std::string("1:4: ") + not_closed + "\"");
  EXPECT_EQ(first_error("x: 1\no: 'abc\ny: 2\n"), std::string("2:4: ") + not_closed + "'");
  EXPECT_EQ(first_error("o: \"abc\nx: 1\n"), std::string("1:4: ") + not_closed + "\"") << "the file ends within it";
  EXPECT_EQ(first_error("a: [x, \"y]\nb: \"z\"\n"), std::string("1:8: ") + not_closed + "\"");
  EXPECT_EQ(first_error("a: 1\n\"b: 2\nc\": 3\n"), std::string("2:1: ") + not_closed + "\"");
  EXPECT_EQ(first_error("{\n  \"a\": \"b,\n  \"c\": 1\n}", Syntax::json), std::string("2:8: ") + not_closed + "\"");
  EXPECT_EQ(first_error("{\"a\": 'b", Syntax::json), std::string("1:7: ") + not_closed + "'");
}

TEST(SyntaxErrors, QuotesWithinWordsAreNoQuotes) {
  EXPECT_EQ(first_error("a: it's\nb: 5\" disk\nc: 'it''s'\nd: \"a\\\"b\"\n"), "errors");
  EXPECT_EQ(first_error("{a: it's, b: don't, p: s3://bucket/a#b}", Syntax::json), "errors");
}

TEST(SyntaxErrors, AnUnclosedBracketIsNamedWhereItOpened) {
  EXPECT_EQ(first_error("a: [1, 2\nb: 3\n"), "1:4: error: this [ is never closed | close it with ]");
  EXPECT_EQ(first_error("r: {a: 1\nb: {c: 2}\n"), "1:4: error: this { is never closed | close it with }");
  EXPECT_EQ(first_error("{\n  \"a\": {\n    \"b\": 1,\n  \"c\": 2\n}\n", Syntax::json),
            "2:8: error: this { is never closed | close it with }");
  EXPECT_EQ(first_error("{\"a\": [1, 2}", Syntax::json),
            "1:7: error: this [ is not closed before the } in line 1 | close it with ]");
  EXPECT_EQ(first_error("a: [1]]\n"), "1:7: error: nothing is open that this ] could close | remove it");
}

TEST(SyntaxErrors, AMissingCommaIsNamedWhereItShouldStand) {
  const std::string text = "error: a comma is missing before this | entries in brackets are separated by commas";
  EXPECT_EQ(first_error("{\n  \"a\": 1\n  \"b\": 2\n}", Syntax::json), "3:3: " + text);
  EXPECT_EQ(first_error("{\"a\": {\"x\": 1} \"b\": 2}", Syntax::json), "1:16: " + text);
  EXPECT_EQ(first_error("a: [\"x\" \"y\"]\n"), "1:9: " + text);
  EXPECT_EQ(first_error("r: {a: 1 b: 2}\n"), "1:10: " + text);
}

TEST(SyntaxErrors, AColonWithoutABlankIsNamed) {
  EXPECT_EQ(first_error("a: {b:[1]}\n"),
            "1:7: error: a comma or a closing bracket should stand here | or a blank, after the colon");
}

TEST(SyntaxErrors, VariablesAndTemplatesAreNamed) {
  EXPECT_EQ(first_error("run: {steps: ${STEPS}}\n"),
            "1:14: error: ${STEPS} is not filled in: a job file has no variables | write the value, or give it with "
            "--set");
}

TEST(SyntaxErrors, TheParsersOwnWordsNeverShow) {
  const char* const texts[] = {"a: b: c\n",
                               "a: 1\n  b: 2\n",
                               "a:\n    b: 1\n  c: 2\n",
                               "a: 1\n- b\n",
                               "a: \"x\" y\n",
                               "a: @x\n",
                               "a: `x`\n",
                               "a: %x\n",
                               "a: \"\\q\"\n",
                               "a: \"\\u12\"\n",
                               "a: - b\n",
                               "a: ,\n",
                               "a: *\n",
                               "a: &\n",
                               "a: !<x\n",
                               "%YAML 9\n---\na: 1\n",
                               "a\nb: 1\n",
                               "a:\n\tb: 1\n",
                               "a: 1\n\tb: 2\n",
                               "a: |\n  x\n",
                               "a: >\n\tx\n",
                               "- a\nb: 1\n",
                               "a: x\n  y\n",
                               "{a: 1}}\n",
                               "a: [1,\n2\nb: 3",
                               "\"a\nb\": 1\n",
                               "a: {b: \"c}\n",
                               "? a: b\n: c: d\n",
                               "a: \"\\ud800\"\n",
                               "a: !!int 3\n",
                               "a: 1\n---\nb: 2\n",
                               "a: 'b' 'c'\n"};
  for (const char* text : texts) {
    const std::string error = first_error(text);

    EXPECT_NE(error.find(": error: "), std::string::npos) << text;
    for (const char* jargon :
         {"illegal", "end of map", "end of seq", "flow", "unknown token", "EOF", "scalar", "scanning"})
      EXPECT_EQ(error.find(jargon), std::string::npos) << text << error;
  }
}

TEST(SyntaxErrors, CommonSlipsHaveTheirOwnSentence) {
  EXPECT_EQ(first_error("a: b: c\n"),
            "1:5: error: a second key on one line | begin a block on the next line, or write it in braces; a text that "
            "holds ': ' goes in quotes");
  EXPECT_EQ(first_error("a: 1\n  b: 2\n"),
            "2:3: error: this line is indented deeper than line 1, which has a value already | indent it as line 1");
  EXPECT_EQ(
      first_error("a:\n    b: 1\n  c: 2\n"),
      "3:3: error: the indentation of this line fits no line above | indent it as the keys that it stands beside");
  EXPECT_EQ(first_error("a\nb: 1\n"), "1:1: error: this line has no colon | write key: value");
  EXPECT_EQ(first_error("a:\n\tb: 1\n"), "2:1: error: a tab cannot indent | indent with blanks");
  EXPECT_EQ(first_error(std::string("a: 1\nb: x\0y\n", 12)),
            "2:5: error: a NUL byte (0) stands in the text | remove it; is this a text file?");
  EXPECT_EQ(
      first_error("a: x\n  y\n"),
      "1:4: error: this goes on in the next line | end it on its line; a key of the next line needs a colon there");
  EXPECT_EQ(first_error("a: |\n  x\n"),
            "1:4: error: a text over several lines (| or >) is not supported | write it in one line");
}

}  // namespace
}  // namespace lockstep::config
