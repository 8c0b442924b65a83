#include "run/manifest.hpp"

#include <nlohmann/json.hpp>

#include "tests/run/trainee.hpp"

namespace lockstep::run {
namespace {

using nlohmann::json;
using testing::error_text;

Manifest two_tensors() {
  return {
      .state = {.step = {.applied = 9, .attempted = 12, .scale = 1024, .hysteresis = 2, .iteration = 12},
                .sample_position = 48,
                .seed = 7,
                .train_batch = 4,
                .micro_batch = 2,
                .world = 3,
                .threads = 5,
                .isa = "avx2",
                .job = "run:\n  name: a\n",
                .data = "0123456789abcdef"},
      .files = {{.name = "a.safetensors", .sum = {.bytes = 48, .xxh3_128 = "00112233445566778899aabbccddeeff"}}},
      .tensors = {{.name = "w", .kind = "master", .shape = {2, 4}}, {.name = "w", .kind = "exp_avg", .shape = {4}}}};
}

/// The text of a manifest with one thing changed and the hash made right again, as a program with a bug would write it.
std::string with(const std::function<void(json&)>& change) {
  json object = json::parse(manifest_text(two_tensors()));
  object.erase("manifest_xxh3_128");
  change(object);
  object["manifest_xxh3_128"] = files::hash_of(object.dump());
  return object.dump();
}

std::string damage(const std::string& text) {
  try {
    (void)parse_manifest(text, "here/manifest.json");
    ADD_FAILURE() << "accepted: " << text;
  } catch (const Damaged& error) {
    return error.what();
  }
  return {};
}

TEST(Manifest, GivesBackWhatWasWritten) {
  const Manifest wrote = two_tensors(), read = parse_manifest(manifest_text(wrote), "m");
  EXPECT_EQ(read.state.step.applied, 9);
  EXPECT_EQ(read.state.step.scale, 1024);
  EXPECT_EQ(read.state.job, wrote.state.job);
  ASSERT_EQ(read.files.size(), 1U);
  EXPECT_EQ(read.files[0].name, "a.safetensors");
  EXPECT_EQ(read.files[0].sum, wrote.files[0].sum);
  ASSERT_EQ(read.tensors.size(), 2U);
  EXPECT_EQ(read.tensors[1].kind, "exp_avg");
  EXPECT_EQ(read.tensors[1].shape, (std::vector<std::int64_t>{4}));
}

TEST(Manifest, HoldsTheLossOfTheNextSamplesToTheBit) {
  Manifest manifest = two_tensors();
  EXPECT_EQ(parse_manifest(manifest_text(manifest), "m").state.next_loss, std::nullopt);
  for (const double loss : {1.0 / 3, 5e-324, -0.0, 1e300}) {
    manifest.state.next_loss = loss;
    EXPECT_EQ(std::bit_cast<std::uint64_t>(*parse_manifest(manifest_text(manifest), "m").state.next_loss),
              std::bit_cast<std::uint64_t>(loss));
  }
}

TEST(Manifest, HoldsWhatAScheduleRemembersOfItsMetricToTheBit) {
  Manifest manifest = two_tensors();
  EXPECT_EQ(parse_manifest(manifest_text(manifest), "m").state.metric, std::nullopt);
  for (const std::optional<double> best :
       {std::optional<double>(), std::optional<double>(1.0 / 3), std::optional(-0.1)}) {
    manifest.state.metric =
        sched::MetricState{.best = best, .bad = 2, .cooldown = 1, .seen = 7, .lr = {0.1 * 0.7 * 0.7, 5e-324}};
    EXPECT_EQ(parse_manifest(manifest_text(manifest), "m").state.metric, manifest.state.metric);
  }
  const auto broken = [&](const char* path, const json& value) {
    json object = json::parse(manifest_text(manifest));
    object.erase("manifest_xxh3_128");
    object[json::json_pointer(path)] = value;
    object["manifest_xxh3_128"] = files::hash_of(object.dump());
    return damage(object.dump());
  };
  expect_contains(broken("/metric/bad", 8), "bad is 8; expected a whole number from 0 to 7");
  expect_contains(broken("/metric/best", "x"), "best is \"x\"; expected a number");
  expect_contains(broken("/metric/lr", json::array()), "no learning rate");
  expect_contains(broken("/metric/lr/0", nullptr), "a learning rate is null");
  expect_contains(broken("/metric", 3), "an object");
}

TEST(Manifest, MayHoldAPathThatIsNoUtf8) {
  Manifest manifest = two_tensors();
  manifest.state.job = "path: \xFF\n";
  EXPECT_EQ(parse_manifest(manifest_text(manifest), "m").state.job, "path: \xEF\xBF\xBD\n");
}

TEST(Manifest, EveryChangedByteIsFoundBeforeAnythingIsRead) {
  const std::string text = manifest_text(two_tensors());
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (const int bit : {1, 2, 16}) {
      std::string changed = text;
      changed[i] = static_cast<char>(changed[i] ^ bit);
      try {
        // White space may change: what is read is then the same.
        EXPECT_EQ(manifest_text(parse_manifest(changed, "m")), text) << changed;
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::checkpoint) << error.what();
      }
    }
  }
}

TEST(Manifest, RubbishIsNoManifest) {
  for (const char* text : {"", "{\"format_version\": 3", "[]", "12", "\xFF\xFE"})
    EXPECT_EQ(damage(text), "here/manifest.json: is no manifest: its text is damaged");
  EXPECT_EQ(damage("{\"format_version\": 3}"), "here/manifest.json: carries no hash");
}

TEST(Manifest, ValuesWithinOneAnotherWithoutEndAreRubbish) {
  const std::size_t depth = 200'000;
  const std::string nested = std::string(depth, '[') + std::string(depth, ']');
  EXPECT_EQ(damage(R"({"format_version": )" + nested + "}"), "here/manifest.json: is no manifest: its text is damaged");
}

TEST(Manifest, AnotherFormatVersionIsRefusedNotCalledDamaged) {
  for (const json& version : {json(1), json(2), json(4), json("3"), json()}) {
    for (const std::string& text :
         {json({{"format_version", version}}).dump(), with([&](json& m) { m["format_version"] = version; })}) {
      try {
        (void)parse_manifest(text, "m");
        ADD_FAILURE() << "accepted";
      } catch (const Damaged& error) {
        ADD_FAILURE() << error.what();
      } catch (const Error& error) {
        expect_contains(error.what(),
                        fmt::format("m: has format version {}; this program reads version 3. Go on with the "
                                    "version of lockstep that wrote it",
                                    version.dump()));
      }
    }
  }
}

TEST(Manifest, EveryFieldIsNeeded) {
  const json whole = json::parse(manifest_text(two_tensors()));
  for (const auto& item : whole.items()) {
    if (item.key() == "manifest_xxh3_128" || item.key() == "format_version") continue;
    expect_contains(damage(with([&](json& m) { m.erase(item.key()); })), "has no " + item.key());
  }
  for (const auto& item : whole.at("tensors")[0].items())
    expect_contains(damage(with([&](json& m) { m["tensors"][0].erase(item.key()); })), "has no " + item.key());
  for (const auto& item : whole.at("step_state").items())
    expect_contains(damage(with([&](json& m) { m["step_state"].erase(item.key()); })), "has no " + item.key());
}

TEST(Manifest, EveryNumberHasItsRange) {
  const auto number = [&](const char* path, const json& value) {
    return damage(with([&](json& m) { m[json::json_pointer(path)] = value; }));
  };
  expect_contains(number("/micro_batch", 0), "micro_batch is 0; expected a whole number from 1 to 4");
  expect_contains(number("/micro_batch", 5), "micro_batch is 5");
  expect_contains(number("/micro_batch", 3), "train_batch_size 4 is no multiple of micro_batch 3");
  expect_contains(number("/train_batch_size", 0), "train_batch_size is 0");
  expect_contains(number("/world_size", 0), "world_size is 0");
  expect_contains(number("/world_size", 4294967297), "world_size is 4294967297");
  expect_contains(number("/threads", -1), "threads is -1");
  expect_contains(number("/sample_position", -1), "sample_position is -1");
  expect_contains(number("/sample_position", 1.5), "sample_position is 1.5");
  expect_contains(number("/sample_position", "48"), "sample_position is \"48\"");
  expect_contains(number("/sample_position", true), "sample_position is true");
  expect_contains(number("/sample_position", 18446744073709551615U), "sample_position is 18446744073709551615");
  expect_contains(number("/seed", -1), "seed is -1");
  expect_contains(number("/step_state/applied", 13), "applied is 13; expected a whole number from 0 to 12");
  expect_contains(number("/step_state/scale", 0), "scale is 0; expected a number above 0");
  expect_contains(number("/step_state/scale", json()), "scale is null");
  expect_contains(number("/step_state", json::array()), "an object belongs");
  expect_contains(number("/isa", 3), "isa is 3; expected a text");
  expect_contains(number("/isa", json::array({"\x1B[31m"})), "isa is [\"\\u001b[31m\"]");
}

TEST(Manifest, TensorsCanBeCountedAndStandThereOnce) {
  const auto tensor = [&](std::size_t i, const char* key, const json& value) {
    return damage(with([&](json& m) { m["tensors"][i][key] = value; }));
  };
  expect_contains(tensor(0, "shape", {4611686018427387904, 4}), "more elements than can be counted");
  expect_contains(tensor(0, "shape", {2, 0}), "a dimension is 0");
  expect_contains(tensor(1, "kind", "master"), "master of w stands there twice");
}

TEST(Manifest, FilesLieInTheFolder) {
  for (const char* name : {"/etc/passwd", "../x", "a/b", "..", ".", ""})
    expect_contains(damage(with([&](json& m) { m["files"][0]["name"] = name; })), "which is no plain name");
  expect_contains(damage(with([](json& m) { m["files"][0]["name"] = std::string("a\0b", 3); })), "a\\x00b");
  expect_contains(damage(with([](json& m) { m["files"].push_back(m["files"][0]); })), "lists a.safetensors twice");
  expect_contains(damage(with([](json& m) { m["files"][0]["bytes"] = -1; })), "bytes is -1");
}

}  // namespace
}  // namespace lockstep::run
