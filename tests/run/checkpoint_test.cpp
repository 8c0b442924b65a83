#include "run/checkpoint.hpp"

#include <nlohmann/json.hpp>

#include "tests/run/trainee.hpp"
#include "tests/support/numbers.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using testing::error_text;
using testing::ScratchFolder;

/// A folder that is a checkpoint, and who wrote it.
struct Saved {
  ScratchFolder folder;
  Trainee trainee;
  std::string path = folder.path().string();

  Saved() {
    trainee.train(12);
    write_checkpoint(path, *trainee.engine, trainee.run_state(), {});
  }
  [[nodiscard]] Manifest manifest() const { return read_manifest(path); }
  [[nodiscard]] std::string tensors() const { return path + "/tensors.bin"; }
  /// What the two ways of reading the tensors say about them; the same.
  std::string damage() {
    const std::string verified = damage_of([&] { verify_tensors(path, manifest()); });
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
  Saved saved;
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
    write_checkpoint(first_folder.path().string(), *saved.engine, saved.run_state(), {});
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
    write_checkpoint(second_folder.path().string(), *loaded.engine, loaded.run_state(), {});
    EXPECT_EQ(testing::text_of(second_folder / "tensors.bin"), testing::text_of(first_folder / "tensors.bin"));

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
  Saved saved;
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

TEST(Checkpoint, TensorsAreLogicalAndTileTheFile) {
  const ScratchFolder folder;
  Trainee trainee(testing::gpt_task(folder));
  write_checkpoint(folder.path().string(), *trainee.engine, trainee.run_state(), {});
  const Manifest manifest = read_manifest(folder.path().string());
  EXPECT_EQ(manifest.tensors.size(), 3 * trainee.model->parameters().size());
  std::uint64_t end = 0;
  for (const TensorEntry& tensor : manifest.tensors) {
    std::uint64_t elements = 1;
    for (const std::int64_t n : tensor.shape) elements *= static_cast<std::uint64_t>(n);
    EXPECT_EQ(tensor.bytes, elements * sizeof(float));
    EXPECT_EQ(tensor.begin, end);
    end += tensor.bytes;
    if (tensor.name == "transformer.wte.weight") {
      EXPECT_EQ(tensor.shape[0], trainee.model->classes()) << "without the padded rows";
    }
  }
  EXPECT_EQ(fs::file_size(folder / "tensors.bin"), end);
}

TEST(Checkpoint, ATensorLargerThanAPieceGoesThroughInPieces) {
  // 1,100 x 1,000 weights: 4.4 million bytes, more than one piece and no multiple of it.
  Task task = testing::mlp_task();
  task.model = [] { return nn::make_mlp({.features = 1100, .hidden = {1000}, .classes = 4}); };
  static_assert(std::size_t{1100 * 1000} * sizeof(float) > file_piece);
  const ScratchFolder folder;
  Trainee trainee(task, 1), other(task, 2);
  write_checkpoint(folder.path().string(), *trainee.engine, trainee.run_state(), {});
  load_checkpoint(folder.path().string(), read_manifest(folder.path().string()), *other.engine);
  EXPECT_EQ(testing::count_differing(testing::read_buffer(*other.engine, "master"),
                                     testing::read_buffer(*trainee.engine, "master")),
            0U);
}

TEST(Checkpoint, AnyDamageOfTheTensorsIsFound) {
  {
    Saved saved;
    std::string bytes = testing::text_of(saved.tensors());
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    testing::write_text(saved.tensors(), bytes);
    expect_contains(saved.damage(), "is damaged");
  }
  {
    Saved saved;
    fs::resize_file(saved.tensors(), 100);
    expect_contains(saved.damage(), "is damaged");
  }
  {
    Saved saved;
    testing::write_text(saved.tensors(), testing::text_of(saved.tensors()) + "x");
    expect_contains(saved.damage(), "is damaged");
  }
  {
    Saved saved;
    fs::remove(saved.tensors());
    expect_contains(Saved::damage_of([&] { verify_tensors(saved.path, saved.manifest()); }), "tensors.bin: is missing");
  }
}

TEST(Checkpoint, WhatCannotBeReadIsNotDamaged) {
  Saved saved;
  const Manifest manifest = saved.manifest();
  fs::remove(saved.tensors());
  fs::create_symlink("tensors.bin", saved.tensors());  // leads to itself
  try {
    verify_tensors(saved.path, manifest);
    FAIL() << "nothing was thrown";
  } catch (const Damaged& error) {
    FAIL() << error.what();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::checkpoint);
    expect_contains(error.what(), saved.tensors() + ": cannot be opened");
  }
}

TEST(Checkpoint, WithoutAManifestItIsNotComplete) {
  Saved saved;
  fs::remove(saved.path + "/manifest.json");
  expect_contains(Saved::damage_of([&] { (void)read_manifest(saved.path); }), "has no manifest.json");
  const std::string nowhere = saved.path + "/no\x1b[31m";
  const std::string text = error_text(ErrorKind::checkpoint, [&] { (void)read_manifest(nowhere); });
  expect_contains(text, "no\\x1b[31m: there is no such checkpoint");
}

TEST(Checkpoint, AnotherModelIsRefused) {
  Saved saved;
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
  Saved saved;
  const std::string text = error_text(ErrorKind::checkpoint, [&] {
    require_same_tensors(saved.path, saved.manifest(), *saved.trainee.model, {"master", "exp_avg"});
  });
  expect_contains(text, "has exp_avg_sq of layers.0.bias, which this job does not");
}

}  // namespace
}  // namespace lockstep::run
