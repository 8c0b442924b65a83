#include "run/checkpoint.hpp"

#include <nlohmann/json.hpp>
#include <tuple>

#include "run/agreement.hpp"
#include "run/checkpoint_store.hpp"
#include "run/checkpoint_tools.hpp"
#include "run/hf_model.hpp"
#include "tests/run/trainee.hpp"
#include "tests/support/checkpoint_tensors.hpp"
#include "tests/support/numbers.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using testing::error_text;
using testing::ScratchFolder;

/// A folder that is a checkpoint, and who wrote it.
struct SavedHere {
  ScratchFolder folder;
  Trainee trainee;
  std::string path = folder.path().string();

  SavedHere() {
    trainee.train(12);
    write_checkpoint(path, *trainee.engine, trainee.run_state());
  }
  [[nodiscard]] Manifest manifest() const { return read_manifest(path); }
  [[nodiscard]] std::string tensors() const { return path + "/model-00001-of-00001.safetensors"; }
  /// What the two ways of reading the tensors say about them; the same.
  std::string damage() {
    const std::string verified = damage_of([&] { verify_files(path, manifest()); });
    Trainee other;
    const std::string loaded = damage_of([&] { load_checkpoint(path, manifest(), *other.engine); });
    EXPECT_EQ(loaded, verified);
    return verified;
  }
  template <class Body>
  static std::string damage_of(const Body& body) {
    try {
      body();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Damaged& error) {
      EXPECT_EQ(error.kind(), ErrorKind::checkpoint);
      return error.what();
    }
    return {};
  }
};

TEST(Checkpoint, GivesBackEveryBit) {
  SavedHere saved;
  Trainee other(testing::mlp_task(), 2);
  load_checkpoint(saved.path, saved.manifest(), *other.engine);
  for (const std::string& name : other.engine->buffer_names()) {
    EXPECT_EQ(testing::count_differing(testing::read_buffer(*other.engine, name),
                                       testing::read_buffer(*saved.trainee.engine, name)),
              0U)
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
  EXPECT_EQ(testing::count_differing(testing::read_buffer(*other.engine, "master"),
                                     testing::read_buffer(*saved.trainee.engine, "master")),
            0U);
  EXPECT_EQ(other.engine->read_state().scale, saved.trainee.engine->read_state().scale);
}

/// A checkpoint says nothing of the device: what was saved on one place is loaded on another, to the bit, and goes on.
class CheckpointPlaces : public testing::PlaceTest {};
INSTANTIATE_TEST_SUITE_P(Checkpoints, CheckpointPlaces, testing::devices(), testing::place_name);

TEST_P(CheckpointPlaces, MoveBetweenTheCpuAndADevice) {
  const Task task = testing::mlp_task();
  for (const auto& [from, to] : {std::pair{testing::cpu_place, place()}, std::pair{place(), testing::cpu_place}}) {
    const ScratchFolder first_folder, second_folder;
    Trainee saved(task, 1, false, from), loaded(task, 2, false, to);
    saved.train(12);
    write_checkpoint(first_folder.path().string(), *saved.engine, saved.run_state());
    load_checkpoint(first_folder.path().string(), read_manifest(first_folder.path().string()), *loaded.engine);

    for (const std::string& name : saved.engine->buffer_names())
      EXPECT_EQ(testing::count_differing(testing::read_buffer(*loaded.engine, name),
                                         testing::read_buffer(*saved.engine, name)),
                0U)
          << name;
    const StepState before = saved.engine->read_state(), after = loaded.engine->read_state();
    EXPECT_EQ(after.applied, before.applied);
    EXPECT_EQ(after.attempted, before.attempted);
    EXPECT_EQ(after.scale, before.scale);
    EXPECT_LT(before.applied, before.attempted) << "the state should have seen an overflow";
    write_checkpoint(second_folder.path().string(), *loaded.engine, loaded.run_state());
    for (const char* file : {"model-00001-of-00001.safetensors", "optimizer-00001-of-00001.safetensors"})
      EXPECT_EQ(testing::text_of(second_folder / file), testing::text_of(first_folder / file)) << file;

    saved.train(4);
    loaded.train(4);
    saved.engine->drain();
    loaded.engine->drain();
    const auto a = saved.engine->results(), b = loaded.engine->results();
    ASSERT_FALSE(a.empty() || b.empty());
    EXPECT_EQ(a.back().step, b.back().step);
    EXPECT_EQ(a.back().scale, b.back().scale);
    // fp16 activations, their sums in another order, four steps long.
    EXPECT_NEAR(b.back().loss, a.back().loss, 1e-2 * a.back().loss);
  }
}

TEST(Checkpoint, KeepsTheRunState) {
  SavedHere saved;
  const RunState wrote = saved.trainee.run_state(), read = saved.manifest().state;
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

TEST(Checkpoint, WeightsAreAFolderThatAModelStartsFrom) {
  const ScratchFolder folder;
  Trainee trainee(testing::gpt_task(folder)), other(testing::gpt_task(folder), 2);
  fs::create_directories(folder / "step");
  write_checkpoint(folder / "step", *trainee.engine, trainee.run_state());
  const Manifest manifest = read_manifest(folder / "step");
  EXPECT_EQ(manifest.tensors.size(), 3 * trainee.model->parameters().size());
  const safetensors::File file(folder / "step/model-00001-of-00001.safetensors");
  EXPECT_EQ(file.header().tensors.size(), trainee.model->parameters().size());
  EXPECT_EQ(file.header().metadata.at("format"), "pt") << "what transformers asks for";
  const safetensors::Tensor* wte = file.header().find("transformer.wte.weight");
  ASSERT_NE(wte, nullptr);
  EXPECT_EQ(wte->shape[0], static_cast<std::uint64_t>(trainee.model->classes())) << "without the padded rows";

  load_hf_weights(folder / "step", *other.engine);

  EXPECT_EQ(testing::read_buffer(*other.engine, "master"), testing::read_buffer(*trainee.engine, "master"));
}

/// R2's sentence for the first format: refused, with the remedy, and not taken for damage.
TEST(Checkpoint, AFolderOfTheFormatBeforeIsRefusedWithOneSentence) {
  const std::string text =
      error_text(ErrorKind::checkpoint, [] { (void)newest_checkpoint(source_dir() + "/tests/run/checkpoint_v2"); });
  expect_contains(text,
                  "step-4/manifest.json: has format version 2; this program reads version 3. Go on with the version of "
                  "lockstep that wrote it, or start anew with --resume never, which keeps this run aside");
}

/// Ranks that write, ranks that read, and the stage of ZeRO of those that write; the others have the one opposite.
class CheckpointRanks : public ::testing::TestWithParam<std::tuple<int, int, int>> {};
INSTANTIATE_TEST_SUITE_P(Checkpoints, CheckpointRanks,
                         ::testing::Combine(::testing::Range(1, 5), ::testing::Range(1, 5), ::testing::Range(0, 4)));

TEST_P(CheckpointRanks, AnyNumberOfRanksReadsWhatAnyNumberWrote) {
  const auto [writers, readers, stage] = GetParam();
  const ScratchFolder folder;
  const Task task = testing::gpt_task(folder);
  const auto save = [&](engine::Engine& engine, const std::string& to) {
    RunState state = some_state();
    state.step = engine.read_state();
    const Saved saved = CheckpointStore({.folder = folder / to, .run_id = "feed"}).save(engine, state);
    EXPECT_EQ(saved.trouble, "");
    EXPECT_EQ(saved.path, folder / to + "/step-3");
  };
  engines_on(
      task, writers, 1,
      [&](engine::Engine& engine) {
        const auto dataset = task.dataset();
        for (int i = 0; i < 3; ++i) testing::train_step(engine, *dataset, i);
        save(engine, "first");
      },
      stage);
  const std::string first = folder / "first/step-3";
  ASSERT_EQ(newest_checkpoint(folder / "first").path, first);

  engines_on(
      task, readers, 2,
      [&](engine::Engine& engine) {
        load_checkpoint(first, read_manifest(first), engine);
        require_equal_parameters(engine.comm(), engine);
        save(engine, "second");
        const auto dataset = task.dataset();
        for (int i = 3; i < 6; ++i) testing::train_step(engine, *dataset, i);  // and it goes on
        engine.drain();
      },
      3 - stage);

  EXPECT_EQ(testing::logical_tensors(folder / "second/step-3"), testing::logical_tensors(first));
}

TEST(Checkpoint, ToolsSayWhatIsThereAndWhatDiffers) {
  const ScratchFolder folder;
  const Task task = testing::mlp_task();
  const auto save = [&](int ranks, std::uint64_t seed, const std::string& to) {
    engines_on(task, ranks, seed, [&](engine::Engine& engine) {
      RunState state = some_state();
      state.step.attempted = 7;
      (void)CheckpointStore({.folder = folder / to + "/checkpoints", .run_id = "feed"}).save(engine, state);
    });
    return folder / to + "/checkpoints/step-7";
  };
  const std::string one = save(1, 1, "one"), three = save(3, 1, "three"), other = save(2, 2, "other");

  EXPECT_EQ(diff_checkpoints(one, three).text, "the same bits: 18 tensors\n") << "whoever wrote them";
  const CheckpointReport differs = diff_checkpoints(one, other);
  EXPECT_FALSE(differs.good);
  expect_contains(differs.text, "master/layers.0.weight: ");
  expect_contains(differs.text, " elements differ, by at most ");
  expect_contains(list_checkpoints(folder / "three").text, "step-7: step 7, ");
  expect_contains(verify_checkpoints(folder / "three").text, "written by 3 ranks: whole");
  EXPECT_TRUE(verify_checkpoints(three).good);
  fs::resize_file(three + "/optimizer-00002-of-00003.safetensors", 100);
  EXPECT_TRUE(list_checkpoints(folder / "three").good) << "only the manifest is read";
  const CheckpointReport damaged = verify_checkpoints(folder / "three");
  EXPECT_FALSE(damaged.good);
  expect_contains(damaged.text, "optimizer-00002-of-00003.safetensors: is damaged");
  expect_contains(error_text(ErrorKind::config, [&] { (void)list_checkpoints(folder / "none"); }), "is neither");
}

TEST(Checkpoint, ATensorLargerThanAPieceGoesThroughInPieces) {
  // 1,100 x 1,000 weights: 4.4 million bytes, more than one piece and no multiple of it.
  Task task = testing::mlp_task();
  task.model = [] { return nn::make_mlp({.features = 1100, .hidden = {1000}, .classes = 4}); };
  static_assert(std::size_t{1100 * 1000} * sizeof(float) > files::file_piece);
  const ScratchFolder folder;
  Trainee trainee(task, 1), other(task, 2);
  write_checkpoint(folder.path().string(), *trainee.engine, trainee.run_state());
  load_checkpoint(folder.path().string(), read_manifest(folder.path().string()), *other.engine);
  EXPECT_EQ(testing::count_differing(testing::read_buffer(*other.engine, "master"),
                                     testing::read_buffer(*trainee.engine, "master")),
            0U);
}

TEST(Checkpoint, AnyDamageOfTheTensorsIsFound) {
  {
    SavedHere saved;
    std::string bytes = testing::text_of(saved.tensors());
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    testing::write_text(saved.tensors(), bytes);
    expect_contains(saved.damage(), "is damaged");
  }
  {
    SavedHere saved;
    fs::resize_file(saved.tensors(), 100);
    expect_contains(saved.damage(), "is damaged");
  }
  {
    SavedHere saved;
    testing::write_text(saved.tensors(), testing::text_of(saved.tensors()) + "x");
    expect_contains(saved.damage(), "is damaged");
  }
  {
    SavedHere saved;
    fs::remove(saved.tensors());
    expect_contains(SavedHere::damage_of([&] { verify_files(saved.path, saved.manifest()); }),
                    "model-00001-of-00001.safetensors: is missing");
  }
}

TEST(Checkpoint, AManifestThatIsALinkToAnotherPlaceIsRefused) {
  const SavedHere saved;
  const ScratchFolder elsewhere;
  fs::rename(saved.path + "/manifest.json", elsewhere / "manifest.json");
  fs::create_symlink(elsewhere / "manifest.json", saved.path + "/manifest.json");
  expect_contains(error_text(ErrorKind::checkpoint, [&] { (void)saved.manifest(); }),
                  "/manifest.json: cannot be opened: Too many levels of symbolic links");
}

TEST(Checkpoint, WhatCannotBeReadIsNotDamaged) {
  SavedHere saved;
  const Manifest manifest = saved.manifest();
  fs::remove(saved.tensors());
  fs::create_symlink("model-00001-of-00001.safetensors", saved.tensors());  // leads to itself
  try {
    verify_files(saved.path, manifest);
    FAIL() << "nothing was thrown";
  } catch (const Damaged& error) {
    FAIL() << error.what();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::checkpoint);
    expect_contains(error.what(), saved.tensors() + ": cannot be opened");
  }
}

TEST(Checkpoint, WithoutAManifestItIsNotComplete) {
  SavedHere saved;
  fs::remove(saved.path + "/manifest.json");
  expect_contains(SavedHere::damage_of([&] { (void)read_manifest(saved.path); }), "has no manifest.json");
  const std::string nowhere = saved.path + "/no\x1b[31m";
  const std::string text = error_text(ErrorKind::checkpoint, [&] { (void)read_manifest(nowhere); });
  expect_contains(text, "no\\x1b[31m: there is no such checkpoint");
}

TEST(Checkpoint, AnotherModelIsRefused) {
  SavedHere saved;
  const auto refused = [&](Trainee& other) {
    return error_text(ErrorKind::checkpoint, [&] { load_checkpoint(saved.path, saved.manifest(), *other.engine); });
  };
  Task task = testing::mlp_task();
  task.model = [] { return nn::make_mlp({.features = 8, .hidden = {24, 17}, .classes = 4}); };
  Trainee wider(task);
  const std::vector<float> before = testing::read_buffer(*wider.engine, "master");
  expect_contains(refused(wider), "layers.1.weight has the shape [24, 16] there and [24, 17] in this model");
  EXPECT_EQ(testing::read_buffer(*wider.engine, "master"), before) << "refused before the first byte";
  task.model = [] { return nn::make_mlp({.features = 8, .hidden = {24, 16, 4}, .classes = 4}); };
  Trainee deeper(task);
  expect_contains(refused(deeper), "another");
  Trainee sgd(testing::mlp_task(), 1, true);
  expect_contains(refused(sgd), "no momentum_buffer of layers.0.weight");
}

TEST(Checkpoint, MomentsThatTheOptimizerDoesNotHaveAreRefused) {
  SavedHere saved;
  const std::string text = error_text(ErrorKind::checkpoint, [&] {
    require_same_tensors(saved.path, saved.manifest(), *saved.trainee.model, {"master", "exp_avg"});
  });
  expect_contains(text, "has exp_avg_sq of layers.0.bias, which this job does not");
}

}  // namespace
}  // namespace lockstep::run
