#include "run/checkpoint.hpp"

#include <nlohmann/json.hpp>

#include "tests/support/numbers.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::error_text;
using testing::ScratchFolder;
using testing::Task;

/// A rank that trains in fp16 from a scale that overflows, so that every field of the StepState moves.
struct Trainee {
  explicit Trainee(const Task& task = testing::mlp_task(), std::uint64_t seed = 1, bool sgd = false)
      : dataset(task.dataset()), model(task.model()), device(make_cpu_device()), comm(comm::make_single()) {
    engine::EngineOptions options = testing::engine_defaults(task, 4);
    options.compute = DType::f16;
    options.scaler = testing::dynamic_scaler(26, 3);
    options.seed = seed;
    if (sgd) options.optimizer = {.kind = optim::OptimizerOptions::Kind::sgd, .momentum = true};
    engine.emplace(*model, *comm, engine::Place{.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                   options);
  }
  void train(std::int64_t steps) {
    for (std::int64_t i = 0; i < steps; ++i) testing::train_step(*engine, *dataset, engine->read_state().attempted);
  }
  [[nodiscard]] RunState run_state() {
    return {.step = engine->read_state(),
            .sample_position = 44,
            .seed = 7,
            .train_batch = 4,
            .micro_batch = 2,
            .world = 3,
            .threads = 5,
            .isa = "avx2",
            .job = "run:\n  name: a\n",
            .data = "0123456789abcdef"};
  }

  std::unique_ptr<data::Dataset> dataset;
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<DeviceApi> device;
  std::unique_ptr<comm::Communicator> comm;
  std::optional<engine::Engine> engine;
};

/// A folder with one checkpoint, and its store.
struct Saved {
  ScratchFolder folder;
  std::unique_ptr<CheckpointStore> store = make_checkpoint_store(folder.path().string(), 3);
  Trainee trainee;
  std::string path;

  Saved() {
    trainee.train(12);
    path = store->save(*trainee.engine, trainee.run_state());
  }
  [[nodiscard]] json manifest() const { return json::parse(testing::text_of(fs::path(path) / "manifest.json")); }
  void write_manifest(const json& manifest) const {
    testing::write_text(fs::path(path) / "manifest.json", manifest.dump());
  }
  std::string load_error() {
    Trainee other;
    return error_text(ErrorKind::checkpoint, [&] { store->load(path, *other.engine); });
  }
};

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

TEST(Checkpoint, GivesBackEveryBit) {
  Saved saved;
  Trainee other(testing::mlp_task(), 2);
  saved.store->load(saved.path, *other.engine);
  for (const std::string& name : other.engine->buffer_names()) {
    EXPECT_EQ(testing::count_differing(other.engine->read_buffer(name), saved.trainee.engine->read_buffer(name)), 0U)
        << name;
  }
  const StepState before = saved.trainee.engine->read_state(), after = other.engine->read_state();
  EXPECT_EQ(after.applied, before.applied);
  EXPECT_EQ(after.attempted, before.attempted);
  EXPECT_EQ(after.scale, before.scale);
  EXPECT_EQ(after.hysteresis, before.hysteresis);
  EXPECT_EQ(after.iteration, before.iteration);
  EXPECT_EQ(after.last_overflow, before.last_overflow);
  EXPECT_EQ(after.first_bad, before.first_bad);
  EXPECT_LT(before.applied, before.attempted) << "the state should have seen an overflow";

  saved.trainee.train(8);
  other.train(8);
  EXPECT_EQ(testing::count_differing(other.engine->read_buffer("master"), saved.trainee.engine->read_buffer("master")),
            0U);
  EXPECT_EQ(other.engine->read_state().scale, saved.trainee.engine->read_state().scale);
}

TEST(Checkpoint, KeepsTheRunState) {
  Saved saved;
  const RunState wrote = saved.trainee.run_state(), read = saved.store->read_state(saved.path);
  EXPECT_EQ(read.step.attempted, 12);
  EXPECT_EQ(read.step.scale, wrote.step.scale);
  EXPECT_EQ(read.sample_position, wrote.sample_position);
  EXPECT_EQ(read.seed, wrote.seed);
  EXPECT_EQ(read.train_batch, wrote.train_batch);
  EXPECT_EQ(read.micro_batch, wrote.micro_batch);
  EXPECT_EQ(read.world, wrote.world);
  EXPECT_EQ(read.threads, wrote.threads);
  EXPECT_EQ(read.isa, wrote.isa);
  EXPECT_EQ(read.job, wrote.job);
  EXPECT_EQ(read.data, wrote.data);
}

TEST(Checkpoint, TensorsAreLogical) {
  const ScratchFolder folder;
  const auto store = make_checkpoint_store(folder.path().string(), 1);
  Trainee trainee(testing::gpt_task(folder));
  const std::string path = store->save(*trainee.engine, trainee.run_state());
  const json manifest = json::parse(testing::text_of(fs::path(path) / "manifest.json"));
  EXPECT_EQ(manifest.at("tensors").size(), 3 * trainee.model->parameters().size());
  std::size_t bytes = 0;
  for (const json& tensor : manifest.at("tensors")) {
    std::size_t elements = 1;
    for (const std::size_t n : tensor.at("shape").get<std::vector<std::size_t>>()) elements *= n;
    EXPECT_EQ(tensor.at("bytes"), elements * sizeof(float));
    EXPECT_EQ(tensor.at("begin"), bytes);
    bytes += elements * sizeof(float);
    if (tensor.at("name") == "transformer.wte.weight") {
      EXPECT_EQ(tensor.at("shape")[0], trainee.model->classes());
    }
  }
  EXPECT_EQ(fs::file_size(fs::path(path) / "tensors.bin"), bytes);
}

TEST(Checkpoint, NewestAndKeepLast) {
  const ScratchFolder folder;
  const auto store = make_checkpoint_store(folder.path().string(), 2);
  EXPECT_EQ(store->newest(), std::nullopt);
  Trainee trainee;
  for (int i = 0; i < 4; ++i) {
    trainee.train(3);
    const std::string path = store->save(*trainee.engine, trainee.run_state());
    EXPECT_EQ(store->newest(), path);
  }
  EXPECT_FALSE(fs::exists(folder / "step-3"));
  EXPECT_FALSE(fs::exists(folder / "step-6"));
  EXPECT_TRUE(fs::exists(folder / "step-9"));
  EXPECT_TRUE(fs::exists(folder / "step-12"));
  // Again at the same step: replaces it.
  EXPECT_EQ(store->save(*trainee.engine, trainee.run_state()), folder / "step-12");
  EXPECT_EQ(store->newest(), folder / "step-12");
}

TEST(Checkpoint, AFolderThatDoesNotExistHasNone) {
  const ScratchFolder folder;
  EXPECT_EQ(make_checkpoint_store(folder / "nothing/here", 2)->newest(), std::nullopt);
}

TEST(Checkpoint, OnlyCompleteCheckpointsCount) {
  Saved saved;
  for (const char* name : {".step-99.partial", "step-98", "step-old", "step-12.bak", "step-", "step--5", "notes"})
    fs::create_directories(saved.folder / name);
  testing::write_text(saved.folder / ".step-99.partial/manifest.json", "{}");
  testing::write_text(saved.folder / "step-old/manifest.json", "{}");
  testing::write_text(saved.folder / "step-99999999999999999999", "a file");
  EXPECT_EQ(saved.store->newest(), saved.path) << "step-98 has no manifest";
  saved.trainee.train(1);
  const std::string next = saved.store->save(*saved.trainee.engine, saved.trainee.run_state());
  EXPECT_EQ(saved.store->newest(), next);
  for (const char* name : {"step-old", "step-12.bak", "notes"}) EXPECT_TRUE(fs::exists(saved.folder / name)) << name;
}

TEST(Checkpoint, AnInterruptedSaveIsReplaced) {
  Saved saved;
  saved.trainee.train(1);
  fs::create_directories(saved.folder / ".step-13.partial");
  testing::write_text(saved.folder / ".step-13.partial/rubbish", "left by a crash");
  const std::string path = saved.store->save(*saved.trainee.engine, saved.trainee.run_state());
  EXPECT_FALSE(fs::exists(saved.folder / ".step-13.partial"));
  EXPECT_FALSE(fs::exists(fs::path(path) / "rubbish"));
}

TEST(Checkpoint, DamageIsFound) {
  {
    Saved saved;
    std::string bytes = testing::text_of(fs::path(saved.path) / "tensors.bin");
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    testing::write_text(fs::path(saved.path) / "tensors.bin", bytes);
    expect_contains(saved.load_error(), "damaged");
  }
  {
    Saved saved;
    fs::resize_file(fs::path(saved.path) / "tensors.bin", 100);
    expect_contains(saved.load_error(), "damaged");
  }
  {
    Saved saved;
    fs::remove(fs::path(saved.path) / "tensors.bin");
    expect_contains(saved.load_error(), "tensors.bin: cannot be read");
  }
}

TEST(Checkpoint, AMissingOrBrokenManifestIsNamed) {
  {
    Saved saved;
    fs::remove(fs::path(saved.path) / "manifest.json");
    expect_contains(saved.load_error(), "manifest.json: cannot be read");
    expect_contains(error_text(ErrorKind::checkpoint, [&] { (void)saved.store->read_state(saved.path); }),
                    "manifest.json");
  }
  for (const char* text : {"{\"format_version\": 1", "[]", "{}", "12"}) {
    Saved saved;
    testing::write_text(fs::path(saved.path) / "manifest.json", text);
    expect_contains(saved.load_error(), "damaged");
  }
  for (const char* key : {"step_state", "tensors", "files"}) {
    Saved saved;
    json manifest = saved.manifest();
    manifest.erase(key);
    saved.write_manifest(manifest);
    expect_contains(saved.load_error(), key);
  }
}

TEST(Checkpoint, AnotherFormatVersionIsRefused) {
  for (const json& version : {json(2), json("1")}) {
    Saved saved;
    json manifest = saved.manifest();
    manifest["format_version"] = version;
    saved.write_manifest(manifest);
    const std::string text = saved.load_error();
    expect_contains(text, "format version " + version.dump());
    expect_contains(text, "reads version 1");
  }
}

TEST(Checkpoint, AnotherModelIsRefused) {
  Saved saved;
  Task task = testing::mlp_task();
  task.model = [] { return nn::make_mlp({.features = 8, .hidden = {24, 17}, .classes = 4}); };
  Trainee wider(task);
  expect_contains(error_text(ErrorKind::checkpoint, [&] { saved.store->load(saved.path, *wider.engine); }),
                  "layers.1.weight has another shape");
  task.model = [] { return nn::make_mlp({.features = 8, .hidden = {24, 16, 4}, .classes = 4}); };
  Trainee deeper(task);
  error_text(ErrorKind::checkpoint, [&] { saved.store->load(saved.path, *deeper.engine); });
  Trainee sgd(testing::mlp_task(), 1, true);
  expect_contains(error_text(ErrorKind::checkpoint, [&] { saved.store->load(saved.path, *sgd.engine); }),
                  "no momentum_buffer of layers.0.weight");
}

TEST(Checkpoint, ARangeOutsideTheFileIsRefused) {
  Saved saved;
  json manifest = saved.manifest();
  manifest["tensors"][0]["begin"] = 1 << 30;
  saved.write_manifest(manifest);
  expect_contains(saved.load_error(), "outside tensors.bin");
}

TEST(Checkpoint, AnUnwritableFolderIsAnErrorOfTheCheckpoint) {
  const ScratchFolder folder;
  testing::write_text(folder / "file", "in the way");
  Trainee trainee;
  const auto store = make_checkpoint_store(folder / "file", 2);
  const std::string text =
      error_text(ErrorKind::checkpoint, [&] { (void)store->save(*trainee.engine, trainee.run_state()); });
  expect_contains(text, folder / "file");
}

}  // namespace
}  // namespace lockstep::run
