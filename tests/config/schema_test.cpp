#include "config/schema.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <nlohmann/json.hpp>

#include "config/field_value.hpp"
#include "config/scalar.hpp"
#include "config/schema_text.hpp"
#include "core/error.hpp"

namespace lockstep::config {
namespace {

Section sample() {
  Section root{.name = "job", .doc = "A sample."};
  root.keys.fields = {
      {.name = "count",
       .type = FieldType::integer,
       .default_text = "3",
       .doc = "How many.",
       .unit = "things",
       .min = 1},
      {.name = "strict", .type = FieldType::integer, .default_text = "1", .doc = "Strict.", .strict_integer = true},
      {.name = "rate",
       .type = FieldType::number,
       .default_text = "0.5",
       .doc = "A rate.",
       .min = 0,
       .max = 1,
       .max_open = true},
      {.name = "on", .type = FieldType::boolean, .default_text = "false", .doc = "A switch."},
      {.name = "mode",
       .type = FieldType::choice,
       .default_text = "fast",
       .doc = "A mode.",
       .choices = {"fast", "exact"},
       .refused = {{"magic", "there is none"}}},
      {.name = "threads",
       .type = FieldType::integer,
       .default_text = "auto",
       .doc = "Threads.",
       .nullable = true,
       .min = 1,
       .or_auto = true},
      {.name = "pair", .type = FieldType::number_list, .doc = "Two numbers.", .length = 2},
      {.name = "per_group", .type = FieldType::number_or_list, .doc = "One, or one for each group."},
      {.name = "names", .type = FieldType::text_list, .doc = "Names."},
  };
  Type circle{.name = "circle", .doc = "Round."};
  circle.keys.fields = {{.name = "radius", .type = FieldType::number, .doc = "Its radius.", .required = true}};
  const Type box{.name = "box", .doc = "Square.", .ignore_case = true};
  root.keys.sections.push_back(
      {.name = "shape",
       .doc = "A shape.",
       .types = Types{.doc = "Which.", .known = {circle, box}, .refused = {{"blob", "it has no edge"}}}});
  Section items{.name = "items", .doc = "A list.", .list = true};
  items.keys.fields = {{.name = "id", .type = FieldType::integer, .doc = "Its number.", .required = true}};
  root.keys.sections.push_back(items);
  root.advice["speed"] = "did you mean 'rate'?";
  return root;
}

struct Checked {
  Values values;
  std::size_t errors;
  std::string text;
};

Checked check(const std::string& yaml) {
  Diagnostics diagnostics;
  const Node root = parse_document("t", yaml, Syntax::yaml, diagnostics);
  const Section section = sample();
  Values values = validate(root, section, "", diagnostics);
  return {std::move(values), diagnostics.error_count(), diagnostics.render()};
}

void expect_error(const std::string& yaml, const std::string& part) {
  const Checked checked = check(yaml);
  EXPECT_EQ(checked.errors, 1U) << yaml << "\n" << checked.text;
  EXPECT_NE(checked.text.find(part), std::string::npos) << yaml << "\n" << checked.text;
}

TEST(Schema, GivesTypedValuesOfWhatWasGivenOnly) {
  const Checked checked = check(
      "count: 5e8\nrate: 0\non: true\nmode: exact\nthreads: auto\npair: [1, 2.5]\nper_group: [1, 2]\nnames: [a, "
      "\"1\"]\n"
      "shape: {type: circle, radius: 2}\nitems: [{id: 1}, {id: 2}]\n");
  ASSERT_EQ(checked.errors, 0U) << checked.text;
  EXPECT_EQ(*checked.values.find("count"), ParamValue(500'000'000));
  EXPECT_EQ(*checked.values.find("rate"), ParamValue(0.0));
  EXPECT_EQ(*checked.values.find("on"), ParamValue(true));
  EXPECT_EQ(*checked.values.find("threads"), ParamValue("auto"));
  EXPECT_EQ(*checked.values.find("pair"), ParamValue(ParamValue::List{1.0, 2.5}));
  EXPECT_EQ(*checked.values.find("names"), ParamValue(ParamValue::List{"a", "1"}));
  EXPECT_EQ(*check("threads: \"auto\"\n").values.find("threads"), ParamValue("auto"));
  EXPECT_EQ(checked.values.find("strict"), nullptr);
  EXPECT_EQ(checked.values.section("shape").type, "circle");
  EXPECT_EQ(*checked.values.section("shape").find("radius"), ParamValue(2.0));
  EXPECT_EQ(checked.values.lists.at("items").size(), 2U);
  EXPECT_EQ(check("per_group: 3\n").values.find("per_group")->value, ParamValue(3.0).value);
}

TEST(Schema, AnExplicitNullIsKeptWhereAllowed) {
  EXPECT_TRUE(check("threads: null\n").values.find("threads")->is_null());
  EXPECT_EQ(check("threads:\n").errors, 0U);
  EXPECT_FALSE(check("threads: null\n").values.params().has("threads"));
  expect_error("count: null\n", "count: expected an integer >= 1 (things), got nothing");
}

TEST(Schema, AWrongValueIsRefusedWithWhatWasExpected) {
  expect_error("count: \"5\"\n", "got the text \"5\"");
  expect_error("count: \"5\"\n", "remove the quotes");
  expect_error("count: 0\n", "out of range");
  expect_error("count: 1.5\n", "not a whole number");
  expect_error("count: 010\n", "no leading zeros");
  expect_error("count: 0x10\n", "not hexadecimal");
  expect_error("count: [1]\n", "got a list");
  expect_error("count: auto\n", "got 'auto'");
  expect_error("count: 1e300\n", "write it without exponent");
  expect_error("strict: 10.0\n", "write 10");
  expect_error("strict: 1e3\n", "write 1000");
  expect_error("rate: 1\n", "expected a number from 0 to below 1");
  expect_error("rate: .nan\n", "numbers must be finite");
  expect_error("rate: 1e999\n", "too large");
  expect_error("rate: fast\n", "got 'fast'");
  expect_error("on: yes\n", "write true");
  expect_error("on: off\n", "write false");
  expect_error("on: 1\n", "write true");
  expect_error("on: \"true\"\n", "write true");
  expect_error("mode: exakt\n", "did you mean 'exact'?");
  expect_error("mode: magic\n", "magic is not supported: there is none");
  expect_error("pair: [1]\n", "expected a list of 2 numbers, got a list of 1");
  expect_error("pair: 1\n", "write it in brackets");
  expect_error("pair: [1, x]\n", "pair[1]: expected");
  expect_error("names: []\n", "got a list of 0");
  expect_error("shape: 3\n", "expected a block of keys, got '3'");
  expect_error("items: {id: 1}\n", "expected a list of blocks");
  expect_error("items: [{id: 1}, {}]\n", "items[1].id is required");
  expect_error("[1, 2]\n", "the job file: expected a block of keys, got a list");
  expect_error("", "the file is empty");
}

TEST(Schema, RefusesUnknownKeysAndTypes) {
  expect_error("cuont: 5\n", "unknown key 'cuont' in the job file");
  expect_error("cuont: 5\n", "did you mean 'count'?");
  expect_error("speed: 5\n", "did you mean 'rate'?");
  expect_error("count:5: 1\n", "put a space after the colon");
  expect_error("shape: {type: circle, radius: 1, raduis: 2}\n", "unknown key 'raduis' in shape (circle)");
  expect_error("shape: {type: circel}\n", "did you mean 'circle'?");
  expect_error("shape: {type: blob}\n", "blob is not supported: it has no edge");
  expect_error("shape: {radius: 1}\n", "shape: type is missing");
  expect_error("shape: {type: circle}\n", "shape.radius is required for circle");
  expect_error("shape: {type: Circle, radius: 1}\n", "did you mean 'circle'?");
  EXPECT_EQ(check("shape: {type: BOX}\n").values.section("shape").type, "box");
}

std::string refusal_of(const Params& given) {
  try {
    (void)checked(sample().keys.fields, given, "a program");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return {};
}

TEST(Checked, AProgramsParametersAreRefusedWithTheTextsOfAFile) {
  const std::string file = check("rate: 7\n").text, program = refusal_of({{"rate", 7}});
  const std::string what = "rate: expected a number from 0 to below 1, got '7'";
  EXPECT_NE(file.find(what), std::string::npos) << file;
  EXPECT_NE(program.find("a program: error: params." + what), std::string::npos) << program;
  EXPECT_NE(program.find("out of range"), std::string::npos) << program;
  EXPECT_NE(refusal_of({{"strict", 10.0}}).find("write 10"), std::string::npos);
  EXPECT_NE(refusal_of({{"count", "3"}}).find("remove the quotes"), std::string::npos);
  EXPECT_NE(refusal_of({{"rate", std::numeric_limits<double>::quiet_NaN()}}).find("numbers must be finite"),
            std::string::npos);
  EXPECT_NE(refusal_of({{"cuont", 3}}).find("did you mean 'count'?"), std::string::npos);
  EXPECT_NE(refusal_of({{"count", 0}, {"on", 1}}).find("2 errors"), std::string::npos);
}

TEST(Checked, WhatIsAbsentHasTheDefaultOfItsField) {
  const Fields fields = {
      {.name = "count", .type = FieldType::integer, .default_text = "3", .doc = "."},
      {.name = "rate", .type = FieldType::number, .default_text = "1", .doc = "."},
      {.name = "pair", .type = FieldType::number_list, .default_text = "[0.5, 2]", .doc = "."},
      {.name = "maximum", .type = FieldType::number, .default_text = "0.1", .doc = ".", .nullable = true},
      {.name = "second", .type = FieldType::number, .default_text = "null", .doc = ".", .nullable = true},
      {.name = "total", .type = FieldType::integer, .doc = ".", .required = true},
  };

  const Params params = checked(fields, {{"total", 9}, {"maximum", ParamValue()}}, "a program");

  EXPECT_EQ(params, (Params{{"count", 3},
                            {"rate", 1.0},
                            {"pair", ParamValue::List{0.5, 2.0}},
                            {"maximum", ParamValue()},
                            {"second", ParamValue()},
                            {"total", 9}}));
  EXPECT_FALSE(params.has("maximum"));
  EXPECT_TRUE(checked(fields, {{"total", 9}}, "a program").has("maximum"));
}

/// A block that may hold a list of its own kind.
const Section& part() {
  static const Section section{
      .name = "part",
      .doc = "A part.",
      .keys = {.fields = {{.name = "size", .type = FieldType::number, .doc = "Its size.", .required = true},
                          {.name = "parts", .type = FieldType::block_list, .doc = "Its parts.", .blocks = part}}}};
  return section;
}

const Fields parts_field = {{.name = "parts", .type = FieldType::block_list, .doc = "Parts.", .blocks = part}};

TEST(BlockList, HoldsCheckedBlocksThatNest) {
  const ParamValue inner = ParamValue::Block{{"size", 2.5}};
  const ParamValue outer = ParamValue::Block{{"size", 1.0}, {"parts", ParamValue::List{inner}}};

  const Params params = checked(parts_field, {{"parts", ParamValue::List{outer, inner}}}, "a program");

  EXPECT_EQ(*params.find("parts"), ParamValue(ParamValue::List{outer, inner}));
  EXPECT_EQ(to_yaml(*params.find("parts")), "[{size: 1, parts: [{size: 2.5}]}, {size: 2.5}]");
}

TEST(BlockList, NamesThePlaceOfAMistake) {
  const auto refused = [](const char* yaml) {
    Diagnostics diagnostics;
    const Node root = parse_document("t", yaml, Syntax::yaml, diagnostics);
    const Values values = validate(root, {.keys = {.fields = parts_field}}, "", diagnostics);
    EXPECT_EQ(values.find("parts"), nullptr) << yaml;
    return diagnostics.render();
  };
  EXPECT_NE(
      refused("parts: [{size: 1}, {size: 1, parts: [{size: big}]}]").find("t:1:45: error: parts[1].parts[0].size"),
      std::string::npos);
  EXPECT_NE(refused("parts: [{}]").find("parts[0].size is required"), std::string::npos);
  EXPECT_NE(refused("parts: [3]").find("parts[0]: expected a block of keys"), std::string::npos);
  EXPECT_NE(refused("parts: 3").find("expected a list of blocks"), std::string::npos);
  EXPECT_NE(refused("parts: []").find("got a list of 0"), std::string::npos);
}

TEST(BlockList, IsADefinitionOfTheJsonSchema) {
  const auto schema =
      nlohmann::json::parse(json_schema({.name = "job", .doc = "A sample.", .keys = {.fields = parts_field}}));
  EXPECT_EQ(schema["properties"]["parts"]["items"]["$ref"], "#/definitions/part");
  EXPECT_EQ(schema["definitions"]["part"]["properties"]["parts"]["items"]["$ref"], "#/definitions/part");
}

TEST(Checked, NumbersSurviveToTheBit) {
  const Fields fields = {{.name = "x", .type = FieldType::number, .default_text = "0", .doc = "."}};
  for (const double x : {0.1, 1e22, -2.5e-300, 4.0, -0.0, 123456789.125}) {
    const Params params = checked(fields, {{"x", x}}, "a program");
    EXPECT_EQ(std::bit_cast<std::uint64_t>(params.number("x")), std::bit_cast<std::uint64_t>(x)) << x;
  }
}

TEST(Defaults, ATextThatIsNoValueOfTheFieldIsOurMistake) {
  const Field wrong{.name = "count", .type = FieldType::integer, .default_text = "many", .doc = "."};
  try {
    (void)default_value(wrong);
    FAIL() << "must throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::internal);
    EXPECT_NE(std::string(error.what()).find("expected an integer, got 'many'"), std::string::npos) << error.what();
  }
}

TEST(Params, AReadOfAnotherTypeIsOurMistake) {
  const Params params = {{"word", "fast"}};
  for (const char* name : {"word", "absent"}) {
    try {
      (void)params.number(name);
      FAIL() << "must throw";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::internal);
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
    }
  }
}

TEST(Schema, ReportsEveryErrorAtOnce) {
  EXPECT_EQ(check("count: x\nrate: 7\non: yes\nwhat: 1\nshape: {type: circle}\n").errors, 5U);
}

TEST(Schema, WritesValuesThatReadBackEqual) {
  EXPECT_EQ(to_yaml(1e-8), "1e-08");
  EXPECT_EQ(to_yaml(0.1), "0.1");
  EXPECT_EQ(to_yaml("plain"), "plain");
  EXPECT_EQ(to_yaml("a/b.txt"), "a/b.txt");
  for (const char* text : {"12", "true", "null", "", "*.bias", "a: b", "yes", "-", "1e5", "0x1", ".inf",
                           "a\"b\\c\n\x01\t", "\xC3\xA4", " space ", "#x", "~", "010"}) {
    Diagnostics diagnostics;
    const Node root = parse_document("t", "v: " + to_yaml(text) + "\n", Syntax::yaml, diagnostics);
    ASSERT_EQ(diagnostics.error_count(), 0U) << diagnostics.render();
    EXPECT_EQ(root.find("v")->kind, Node::Kind::scalar) << text;
    EXPECT_EQ(root.find("v")->text, text);
  }
}

TEST(Explain, KeysAreFoundByTheEndOfTheirPathAndByType) {
  const Section root = sample();
  EXPECT_NE(explain_key(root, "shape.radius").find("shape.radius  (type: circle)"), std::string::npos);
  EXPECT_NE(explain_key(root, "radius").find("Its radius."), std::string::npos);
  EXPECT_NE(explain_key(root, "circle").find("Round."), std::string::npos);
  EXPECT_NE(explain_key(root, "shape").find("circle, box"), std::string::npos);
  EXPECT_NE(explain_key(root, "mode").find("refused: magic: there is none"), std::string::npos);
  try {
    (void)explain_key(root, "shape.raduis");
    FAIL() << "must throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    EXPECT_NE(std::string(error.what()).find("did you mean 'radius'?"), std::string::npos) << error.what();
  }
}

TEST(JsonSchema, DescribesTypesRangesAndVariants) {
  const auto schema = nlohmann::json::parse(json_schema(sample()));
  EXPECT_EQ(schema["additionalProperties"], false);
  const auto& properties = schema["properties"];
  EXPECT_EQ(properties["count"]["type"], "integer");
  EXPECT_EQ(properties["count"]["minimum"], 1);
  EXPECT_EQ(properties["rate"]["exclusiveMaximum"], 1);
  EXPECT_EQ(properties["mode"]["enum"].size(), 2U);
  EXPECT_EQ(properties["threads"]["anyOf"].size(), 3U);
  EXPECT_EQ(properties["pair"]["maxItems"], 2);
  EXPECT_EQ(properties["shape"]["oneOf"][0]["properties"]["type"]["const"], "circle");
  EXPECT_EQ(properties["shape"]["oneOf"][0]["required"][1], "radius");
  EXPECT_EQ(properties["items"]["type"], "array");
}

}  // namespace
}  // namespace lockstep::config
