#include "run/hf_model.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "core/text.hpp"
#include "files/durable_folder.hpp"
#include "run/checkpoint_store.hpp"
#include "run/job_changes.hpp"
#include "run/setup.hpp"
#include "safetensors/file.hpp"

namespace lockstep::run {
namespace {

constexpr std::size_t longest_json = std::size_t{64} << 20;

/// The files of weights that a folder has.
std::vector<std::string> weight_files(const std::string& folder) {
  if (files::path_exists(folder + "/model.safetensors")) return {folder + "/model.safetensors"};
  const std::string index = folder + "/model.safetensors.index.json";
  if (!files::path_exists(index)) {
    const bool pickled = files::path_exists(folder + "/pytorch_model.bin");
    fail(ErrorKind::checkpoint, "model.init_from: {} has no model.safetensors{}", printable(folder),
         pickled ? "; pytorch_model.bin is not read. transformers makes the other of it: "
                   "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR)"
                 : "");
  }
  const auto object = parse_json(files::read_text_file(index, longest_json));
  if (!object.is_object() || !object.contains("weight_map") || !object["weight_map"].is_object())
    fail(ErrorKind::checkpoint, "{}: has no weight_map", printable(index));
  std::set<std::string> names;
  for (const auto& [tensor, file] : object["weight_map"].items()) {
    if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos)
      fail(ErrorKind::checkpoint, "{}: {} lies in {}, which is no file's name", printable(index), printable(tensor),
           printable(file.dump()));
    names.insert(folder + "/" + file.get<std::string>());
  }
  return {names.begin(), names.end()};
}

/// A tensor and the file that holds it.
struct Found {
  const safetensors::File* file = nullptr;
  const safetensors::Tensor* tensor = nullptr;
};

/// The tensors of some files, by name.
struct Weights {
  explicit Weights(const std::vector<std::string>& paths) {
    for (const std::string& path : paths) {
      files.push_back(std::make_unique<safetensors::File>(path));
      for (const safetensors::Tensor& tensor : files.back()->header().tensors)
        by_name.emplace(tensor.name, Found{files.back().get(), &tensor});
    }
  }
  /// Under its own name, or as a model without an output layer has it: without "transformer.".
  [[nodiscard]] Found find(const std::string& name) const {
    const std::string prefix = "transformer.";
    for (const std::string& candidate : {name, name.substr(name.starts_with(prefix) ? prefix.size() : 0)})
      if (const auto found = by_name.find(candidate); found != by_name.end()) return found->second;
    return {};
  }
  std::vector<std::unique_ptr<safetensors::File>> files;
  std::map<std::string, Found> by_name;
};

/// The checkpoint that is meant: one itself, or a run's newest.
std::string checkpoint_of(const std::string& source) {
  if (files::path_exists(source + "/manifest.json")) return source;
  if (!files::path_exists(source + "/checkpoints"))
    fail(ErrorKind::config, "{} is neither a checkpoint nor a run's folder", printable(source));
  const Newest newest = newest_checkpoint(source + "/checkpoints");
  for (const std::string& damage : newest.passed_over) log::warning("{}", damage);
  if (!newest.path) fail(ErrorKind::checkpoint, "{}/checkpoints has no checkpoint yet", printable(source));
  return *newest.path;
}

std::string config_json(const job::Gpt2Config& gpt2, int vocab_size) {
  nlohmann::ordered_json config = {{"architectures", {"GPT2LMHeadModel"}},
                                   {"model_type", "gpt2"},
                                   {"vocab_size", vocab_size},
                                   {"n_positions", gpt2.block_size},
                                   {"n_ctx", gpt2.block_size},
                                   {"n_embd", gpt2.n_embd},
                                   {"n_layer", gpt2.n_layer},
                                   {"n_head", gpt2.n_head},
                                   {"activation_function", "gelu_new"},
                                   {"layer_norm_epsilon", 1e-5},
                                   {"embd_pdrop", gpt2.embd_pdrop},
                                   {"resid_pdrop", gpt2.resid_pdrop},
                                   {"attn_pdrop", 0.0},
                                   {"tie_word_embeddings", true},
                                   {"torch_dtype", "float32"}};
  // Texts of published vocabularies end so; others have no such token, and generation then has no end.
  constexpr int published = 50257;
  config["bos_token_id"] = vocab_size >= published ? nlohmann::ordered_json(published - 1) : nullptr;
  config["eos_token_id"] = config["bos_token_id"];
  return config.dump(2) + "\n";
}

void copy_file(const std::string& from, const std::string& to) {
  files::replace_text_file(to, files::read_text_file(from, std::size_t{1} << 30));
}

}  // namespace

void load_hf_weights(const std::string& folder, engine::Engine& engine) {
  const Weights weights(weight_files(folder));
  const std::vector<nn::ParameterSpec>& specs = engine.model().parameters();
  for (std::size_t p = 0; p < specs.size(); ++p) {
    const nn::ParameterSpec& spec = specs[p];
    const auto [file, tensor] = weights.find(spec.name);
    if (file == nullptr)
      fail(ErrorKind::checkpoint, "model.init_from: {} has no {}, which the model needs", printable(folder), spec.name);
    const std::vector<std::uint64_t> shape(spec.shape.begin(), spec.shape.end());
    // A shorter context takes the first positions.
    const bool cropped = spec.name == "transformer.wpe.weight" && tensor->shape.size() == 2 &&
                         tensor->shape[0] > shape[0] && tensor->shape[1] == shape[1];
    if (tensor->shape != shape && !cropped)
      fail(ErrorKind::checkpoint, "model.init_from: {}: {} has the shape [{}] there and [{}] in this model",
           printable(file->path()), spec.name, fmt::join(tensor->shape, ", "), fmt::join(spec.shape, ", "));
    const std::int64_t begin = engine.layout().of(static_cast<nn::ParamId>(p)).begin;
    const std::int64_t elements = spec.elements();
    file->read_floats(*tensor, [&](std::int64_t first, std::int64_t count, const float* values) {
      if (first < elements) engine.write_range("master", begin + first, std::min(count, elements - first), values);
    });
  }
}

std::optional<std::string> hf_config_of(const Manifest& manifest) {
  const std::optional<job::JobConfig> config = job_of_then(manifest.state.job);
  if (!config || config->model.type != "gpt2") return std::nullopt;
  // The vocabulary is in the weights, so the data need not be there any more.
  int vocabulary = 0;
  for (const TensorEntry& tensor : manifest.tensors)
    if (tensor.name == "transformer.wte.weight") vocabulary = static_cast<int>(tensor.shape.front());
  return config_json(config->model.gpt2, vocabulary);
}

std::string export_hf(const std::string& source, const std::string& folder) {
  const std::string path = checkpoint_of(source);
  const Manifest manifest = read_manifest(path);
  const job::LoadedJob loaded = job::load_job_text("job.yaml", manifest.state.job, "/");
  const std::optional<std::string> config = hf_config_of(manifest);
  if (!config)
    fail(ErrorKind::config, "{} is of a {}; only a gpt2 has a form that transformers knows", printable(path),
         loaded.config.model.type);
  if (files::path_exists(folder))
    fail(ErrorKind::config, "{} exists already; give a folder that does not", printable(folder));
  verify_files(path, manifest);
  std::vector<std::string> shards;
  for (const FileEntry& file : manifest.files)
    if (file.name.starts_with("model-")) shards.push_back(path + "/" + file.name);
  const Weights weights(shards);
  std::vector<safetensors::Tensor> tensors;
  std::int64_t parameters = 0;
  for (const auto& [name, found] : weights.by_name) {
    tensors.push_back({.name = name, .shape = found.tensor->shape});
    parameters += static_cast<std::int64_t>(found.tensor->bytes() / sizeof(float));
  }

  files::make_folders(folder);
  safetensors::Writer writer(folder + "/model.safetensors", std::move(tensors), {{"format", "pt"}});
  for (const safetensors::Tensor& tensor : writer.tensors()) {
    const Found found = weights.by_name.at(tensor.name);
    found.file->read_floats(*found.tensor, [&](std::int64_t, std::int64_t count, const float* values) {
      writer.write(values, static_cast<std::size_t>(count) * sizeof(float));
    });
  }
  (void)writer.finish();
  files::replace_text_file(folder + "/config.json", *config);
  std::string files = "config.json, model.safetensors";
  const job::TextDataConfig& text = loaded.config.data.text;
  if (loaded.config.data.type == "text" && text.vocab && text.merges) {
    if (files::path_exists(*text.vocab) && files::path_exists(*text.merges)) {
      copy_file(*text.vocab, folder + "/vocab.json");
      copy_file(*text.merges, folder + "/merges.txt");
      files += ", vocab.json, merges.txt";
    } else {
      log::warning("{} or {} is not there any more: the folder has no tokenizer", printable(*text.vocab),
                   printable(*text.merges));
    }
  }
  return fmt::format("{}: {} (step {} of {}: {} parameters)\n", printable(folder), files, manifest.state.step.attempted,
                     printable(path), parameters);
}

}  // namespace lockstep::run
