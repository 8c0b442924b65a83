#include "run/hf_model.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "comm/local.hpp"
#include "job/hf_config.hpp"
#include "run/setup.hpp"
#include "run/trainer.hpp"
#include "safetensors/file.hpp"
#include "tests/support/source_dir.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

using lockstep::testing::error_text;
using lockstep::testing::ScratchFolder;
using nlohmann::json;
using ::testing::HasSubstr;

/// config.json as transformers writes it, in short.
json hf_config() {
  return {{"model_type", "gpt2"},
          {"n_layer", 2},
          {"n_head", 2},
          {"n_embd", 8},
          {"n_positions", 16},
          {"vocab_size", 11},
          {"n_inner", nullptr},
          {"attn_pdrop", 0.1},
          {"activation_function", "gelu_new"},
          {"layer_norm_epsilon", 1e-05}};
}

class HfModel : public ::testing::Test {
 protected:
  [[nodiscard]] std::string folder() const { return scratch_.path().string(); }
  void write_config(const json& config) const {
    lockstep::testing::write_text(scratch_ / "config.json", config.dump());
  }
  std::string refused(const json& change) {
    json config = hf_config();
    config.update(change);
    write_config(config);
    return error_text(ErrorKind::config, [&] { (void)job::read_hf_gpt2(folder()); });
  }
  [[nodiscard]] job::LoadedJob job(const std::string& model_keys = "") const {
    return job::load_job_text("job.yaml",
                              "model: {type: gpt2, init_from: " + folder() + model_keys +
                                  "}\ndata: {type: text, path: t.txt, tokenizer: byte}\nrun: {steps: 1}\n"
                                  "train_batch_size: 1\n",
                              "/");
  }

  /// An engine of a tiny model on one rank.
  struct Tiny {
    explicit Tiny(std::int64_t block_size = 16, std::uint64_t seed = 1)
        : model(nn::make_gpt2(
              {.n_layer = 2, .n_head = 2, .n_embd = 8, .block_size = static_cast<int>(block_size), .vocab_size = 11})) {
      engine::EngineOptions options;
      options.micro_batch = {.batch = 1, .length = block_size};
      options.groups = {lockstep::testing::adam_group(0.1)};
      options.seed = seed;
      engine.emplace(*model, *comm,
                     engine::Place{.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1}, options);
    }
    [[nodiscard]] std::vector<float> values(std::size_t parameter) {
      std::vector<float> result(static_cast<std::size_t>(model->parameters()[parameter].elements()));
      engine->read_range("master", engine->layout().of(static_cast<nn::ParamId>(parameter)).begin,
                         static_cast<std::int64_t>(result.size()), result.data());
      return result;
    }
    /// A file of its weights, under names that `rename` makes of its own.
    void save(const std::string& path, const std::function<std::string(const std::string&)>& rename) {
      std::vector<safetensors::Tensor> tensors;
      std::map<std::string, std::size_t> of;
      for (std::size_t p = 0; p < model->parameters().size(); ++p) {
        const nn::ParameterSpec& spec = model->parameters()[p];
        tensors.push_back({.name = rename(spec.name), .shape = {spec.shape.begin(), spec.shape.end()}});
        of[tensors.back().name] = p;
      }
      safetensors::Writer writer(path, tensors, {});
      for (const safetensors::Tensor& tensor : writer.tensors()) {
        const std::vector<float> own = values(of.at(tensor.name));
        writer.write(own.data(), own.size() * sizeof(float));
      }
      (void)writer.finish();
    }
    std::unique_ptr<DeviceApi> device = make_cpu_device();
    std::unique_ptr<comm::Communicator> comm = comm::make_single(device.get());
    std::unique_ptr<nn::Model> model;
    std::optional<engine::Engine> engine;
  };
  ScratchFolder scratch_;
};

TEST_F(HfModel, SizesComeFromTheFolder) {
  write_config(hf_config());
  const job::Gpt2Config gpt2 = job().config.model.gpt2;
  EXPECT_EQ(gpt2.n_layer, 2);
  EXPECT_EQ(gpt2.n_head, 2);
  EXPECT_EQ(gpt2.n_embd, 8);
  EXPECT_EQ(gpt2.block_size, 16);
  EXPECT_EQ(gpt2.vocab_size, 11);
  EXPECT_EQ(job(", block_size: 4").config.model.gpt2.block_size, 4);
}

TEST_F(HfModel, ARunsOwnJobNeedsTheFolderNoMore) {
  write_config(hf_config());
  const std::string effective = job::effective_yaml(job().config);
  std::filesystem::remove(scratch_ / "config.json");
  EXPECT_EQ(job::load_job_text("job.yaml", effective, "/").config.model.gpt2.vocab_size, 11);
}

TEST_F(HfModel, SizesThatDifferAreRefused) {
  write_config(hf_config());
  EXPECT_THAT(error_text(ErrorKind::config, [&] { (void)job(", n_layer: 3"); }),
              HasSubstr("model.n_layer is 3, but the model of init_from has 2"));
  EXPECT_THAT(error_text(ErrorKind::config, [&] { (void)job(", block_size: 32"); }),
              HasSubstr("model.block_size is 32, but the model of init_from has 16"));
  EXPECT_THAT(error_text(ErrorKind::config, [&] { (void)make_model(job().config, /*classes=*/12, /*features=*/0); }),
              HasSubstr("model.vocab_size is 11, but the data has 12 different tokens"));
}

TEST_F(HfModel, WhatAModelOfOursDoesNotComputeIsRefused) {
  EXPECT_THAT(refused({{"model_type", "llama"}}), HasSubstr("model_type is \"llama\", but only \"gpt2\" can be taken"));
  EXPECT_THAT(refused({{"activation_function", "relu"}}), HasSubstr("only \"gelu_new\" can be taken"));
  EXPECT_THAT(refused({{"layer_norm_epsilon", 1e-6}}), HasSubstr("layer_norm_epsilon is 1e-06"));
  EXPECT_THAT(refused({{"scale_attn_by_inverse_layer_idx", true}}), HasSubstr("only false can be taken"));
  EXPECT_THAT(refused({{"tie_word_embeddings", false}}), HasSubstr("only true can be taken"));
  EXPECT_THAT(refused({{"n_inner", 16}}), HasSubstr("n_inner is 16, but only 32 can be taken"));
  EXPECT_THAT(refused({{"n_layer", "two"}}), HasSubstr("n_layer is \"two\"; a whole number from 1 up is needed"));
  EXPECT_THAT(error_text(ErrorKind::config, [&] { (void)job::read_hf_gpt2(scratch_ / "none"); }),
              HasSubstr("is no folder"));
}

TEST_F(HfModel, WeightsAreFoundUnderBothNames) {
  for (const bool prefixed : {true, false}) {
    Tiny from(16, 7), to;
    from.save(scratch_ / "model.safetensors",
              [&](const std::string& name) { return prefixed ? name : name.substr(std::strlen("transformer.")); });
    ASSERT_NE(from.values(0), to.values(0));
    load_hf_weights(folder(), *to.engine);
    for (std::size_t p = 0; p < to.model->parameters().size(); ++p) EXPECT_EQ(from.values(p), to.values(p)) << p;
  }
}

TEST_F(HfModel, WeightsMayLieInSeveralFiles) {
  Tiny from(16, 7), to;
  from.save(scratch_ / "a.safetensors", [](const std::string& name) { return name; });
  lockstep::testing::write_text(scratch_ / "model.safetensors.index.json",
                                R"({"weight_map": {"transformer.wte.weight": "a.safetensors"}})");
  load_hf_weights(folder(), *to.engine);
  EXPECT_EQ(from.values(1), to.values(1));
}

TEST_F(HfModel, AShorterContextTakesTheFirstPositions) {
  Tiny from(16, 7), to(4);
  from.save(scratch_ / "model.safetensors", [](const std::string& name) { return name; });
  load_hf_weights(folder(), *to.engine);
  std::vector<float> first = from.values(1);
  first.resize(4 * 8);
  EXPECT_EQ(to.values(1), first);
  EXPECT_EQ(to.values(0), from.values(0));
  Tiny longer(32);
  EXPECT_THAT(error_text(ErrorKind::checkpoint, [&] { load_hf_weights(folder(), *longer.engine); }),
              HasSubstr("transformer.wpe.weight has the shape [16, 8] there and [32, 8] in this model"));
}

TEST_F(HfModel, WhatIsMissingIsNamed) {
  Tiny tiny;
  EXPECT_THAT(error_text(ErrorKind::checkpoint, [&] { load_hf_weights(folder(), *tiny.engine); }),
              HasSubstr("has no model.safetensors"));
  lockstep::testing::write_text(scratch_ / "pytorch_model.bin", "x");
  EXPECT_THAT(error_text(ErrorKind::checkpoint, [&] { load_hf_weights(folder(), *tiny.engine); }),
              HasSubstr("pytorch_model.bin is not read"));
  tiny.save(scratch_ / "model.safetensors",
            [](const std::string& name) { return name == "transformer.ln_f.bias" ? "other" : name; });
  EXPECT_THAT(error_text(ErrorKind::checkpoint, [&] { load_hf_weights(folder(), *tiny.engine); }),
              HasSubstr("has no transformer.ln_f.bias, which the model needs"));
}

/// hf_oracle.json, recorded by record_hf_oracle.py, as the folder that transformers had written.
class HfOracle : public HfModel {
 protected:
  void SetUp() override {
    std::ifstream file(source_dir() + "/tests/run/hf_oracle.json");
    oracle_ = json::parse(file);
    write_config(oracle_["config"]);
    std::vector<safetensors::Tensor> tensors;
    for (const auto& [name, tensor] : oracle_["tensors"].items())
      tensors.push_back({.name = name, .shape = tensor["shape"].get<std::vector<std::uint64_t>>()});
    safetensors::Writer writer(scratch_ / "model.safetensors", tensors, {});
    for (const safetensors::Tensor& tensor : writer.tensors()) {
      const auto values = oracle_["tensors"][tensor.name]["values"].get<std::vector<float>>();
      writer.write(values.data(), values.size() * sizeof(float));
    }
    (void)writer.finish();
  }

  /// The largest distance between the logits of a model that was started from `from` and transformers'.
  double worst_logit(const std::string& from) {
    const job::LoadedJob loaded =
        job::load_job_text("job.yaml",
                           "model: {type: gpt2, init_from: " + from +
                               "}\ndata: {type: text, path: t.txt}\nrun: {steps: 1}\ntrain_batch_size: 1\n",
                           "/");
    const auto model = make_model(loaded.config, 13, 0);
    const auto device = make_cpu_device();
    const auto comm = comm::make_single(device.get());
    engine::Engine engine(*model, *comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                          engine_options(loaded, *model, batch_sizes(loaded.config, 1, "a test"), 0));
    load_hf_weights(from, engine);
    double worst = 0;
    for (std::size_t length = 1; length <= 10; ++length) {
      data::HostBatch batch;
      batch.batch = 1;
      batch.length = static_cast<std::int64_t>(length);
      batch.tokens = oracle_["tokens"].get<std::vector<std::int32_t>>();
      batch.tokens.resize(length);
      const std::vector<float> logits = engine.last_logits(batch);
      for (std::size_t c = 0; c < 13; ++c)
        worst =
            std::max(worst, std::fabs(static_cast<double>(logits[c]) - oracle_["logits"][length - 1][c].get<double>()));
    }
    return worst;
  }
  json oracle_;
};

TEST_F(HfOracle, LogitsAreThoseOfTransformers) {
  // Both compute in fp32; logits are of order 3.
  EXPECT_LT(worst_logit(folder()), 2e-5);
}

/// A whole run that starts there, then the way back.
TEST_F(HfOracle, WhatIsExportedComesBackWithTheSameBits) {
  lockstep::testing::write_text(scratch_ / "t.txt", [] {
    std::string text;
    for (int i = 0; i < 300; ++i) text += static_cast<char>('a' + (i * i + i / 7) % 13);
    return text;
  }());
  const std::string text = "model: {type: gpt2, init_from: " + folder() +
                           "}\ndata: {type: text, path: " + scratch_ / "t.txt" +
                           "}\nrun: {steps: 1, name: one, output_dir: " + scratch_ / "runs" +
                           "}\ntrain_batch_size: 2\noptimizer: {type: SGD, params: {lr: 0}}\n";
  const job::LoadedJob job = job::load_job_text("job.yaml", text, "/");
  const auto on_one_rank = [](const std::function<void(RankContext&)>& body) {
    const auto device = make_cpu_device();
    const auto comm = comm::make_single(device.get());
    RankContext rank{.comm = *comm,
                     .place = {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                     .world_source = "a test",
                     .summary = ""};
    struct Quiet {
      Quiet() { ::testing::internal::CaptureStdout(); }
      ~Quiet() { (void)::testing::internal::GetCapturedStdout(); }
    } const quiet;
    body(rank);
  };
  on_one_rank([&](RankContext& rank) { (void)train(job, "never", rank); });
  const std::string report = export_hf(scratch_ / "runs/one", scratch_ / "exported");

  EXPECT_THAT(report, HasSubstr("config.json, model.safetensors (step 1 of"));
  const std::string checkpoint = scratch_ / "runs/one/checkpoints/step-1";
  const safetensors::File exported(scratch_ / "exported/model.safetensors");
  for (const auto& [name, tensor] : oracle_["tensors"].items()) {
    const safetensors::Tensor* there = exported.header().find(name);
    ASSERT_NE(there, nullptr) << name;
    std::vector<float> values;
    exported.read_floats(*there, [&](std::int64_t, std::int64_t count, const float* from) {
      values.insert(values.end(), from, from + count);
    });
    EXPECT_EQ(values, tensor["values"].get<std::vector<float>>()) << name;
  }
  EXPECT_EQ(exported.header().tensors.size(), oracle_["tensors"].size()) << "no padding, no second output layer";
  EXPECT_EQ(job::read_hf_gpt2(checkpoint).vocab_size, 13) << "a checkpoint is such a folder itself";
  EXPECT_LT(worst_logit(checkpoint), 2e-5);
  EXPECT_EQ(job::read_hf_gpt2(scratch_ / "exported").vocab_size, 13);
  EXPECT_LT(worst_logit(scratch_ / "exported"), 2e-5);
  EXPECT_THAT(error_text(ErrorKind::config, [&] { (void)export_hf(scratch_ / "runs/one", scratch_ / "exported"); }),
              HasSubstr("exists already"));
}

}  // namespace
}  // namespace lockstep::run
