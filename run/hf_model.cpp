#include "run/hf_model.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.hpp"
#include "core/log.hpp"
#include "core/text.hpp"
#include "run/checkpoint_store.hpp"
#include "run/durable_folder.hpp"
#include "run/safetensors.hpp"
#include "run/setup.hpp"

namespace lockstep::run {
namespace {

constexpr std::int64_t piece = std::int64_t{1} << 20;
constexpr std::size_t longest_json = std::size_t{64} << 20;

/// The files of weights that a folder has.
std::vector<std::string> weight_files(const std::string& folder) {
  if (path_exists(folder + "/model.safetensors")) return {folder + "/model.safetensors"};
  const std::string index = folder + "/model.safetensors.index.json";
  if (!path_exists(index)) {
    const bool pickled = path_exists(folder + "/pytorch_model.bin");
    fail(ErrorKind::checkpoint, "model.init_from: {} has no model.safetensors{}", printable(folder),
         pickled ? "; pytorch_model.bin is not read. transformers makes the other of it: "
                   "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR)"
                 : "");
  }
  const auto object = nlohmann::json::parse(read_text_file(index, longest_json), nullptr, false);
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

/// Finds a parameter under its own name, or as a model without an output layer has it: without "transformer.".
struct Weights {
  explicit Weights(const std::string& folder) {
    for (const std::string& path : weight_files(folder)) {
      files.push_back(std::make_unique<SafetensorsReader>(path));
      for (const auto& [name, entry] : files.back()->entries())
        by_name.emplace(name, std::pair{files.back().get(), &entry});
    }
  }
  [[nodiscard]] std::pair<const SafetensorsReader*, const SafetensorsReader::Entry*> find(
      const std::string& name) const {
    const std::string prefix = "transformer.";
    for (const std::string& candidate : {name, name.substr(name.starts_with(prefix) ? prefix.size() : 0)})
      if (const auto found = by_name.find(candidate); found != by_name.end()) return found->second;
    return {nullptr, nullptr};
  }
  std::vector<std::unique_ptr<SafetensorsReader>> files;
  std::map<std::string, std::pair<const SafetensorsReader*, const SafetensorsReader::Entry*>> by_name;
};

/// The checkpoint that is meant: one itself, or a run's newest.
std::string checkpoint_of(const std::string& source) {
  if (path_exists(source + "/manifest.json")) return source;
  if (!path_exists(source + "/checkpoints"))
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
  replace_text_file(to, read_text_file(from, std::size_t{1} << 30));
}

}  // namespace

void load_hf_weights(const std::string& folder, engine::Engine& engine) {
  const Weights weights(folder);
  const std::vector<nn::ParameterSpec>& specs = engine.model().parameters();
  for (std::size_t p = 0; p < specs.size(); ++p) {
    const nn::ParameterSpec& spec = specs[p];
    const auto [file, entry] = weights.find(spec.name);
    if (file == nullptr)
      fail(ErrorKind::checkpoint, "model.init_from: {} has no {}, which the model needs", printable(folder), spec.name);
    // A shorter context takes the first positions.
    const bool cropped = spec.name == "transformer.wpe.weight" && entry->shape.size() == 2 &&
                         entry->shape[0] > spec.shape[0] && entry->shape[1] == spec.shape[1];
    if (entry->shape != spec.shape && !cropped)
      fail(ErrorKind::checkpoint, "model.init_from: {}: {} has the shape [{}] there and [{}] in this model",
           printable(file->path()), spec.name, fmt::join(entry->shape, ", "), fmt::join(spec.shape, ", "));
    const std::int64_t begin = engine.layout().of(static_cast<nn::ParamId>(p)).begin;
    const std::int64_t elements = spec.elements();
    file->read(*entry, [&](std::int64_t first, std::int64_t count, const float* values) {
      if (first < elements) engine.write_range("master", begin + first, std::min(count, elements - first), values);
    });
  }
}

std::string export_hf(const std::string& source, const std::string& folder, RankContext& rank) {
  const std::string path = checkpoint_of(source);
  const Manifest manifest = read_manifest(path);
  const job::LoadedJob loaded = job::load_job_text("job.yaml", manifest.state.job, "/");
  if (loaded.config.model.type != "gpt2")
    fail(ErrorKind::config, "{} is of a {}; only a gpt2 has a form that transformers knows", printable(path),
         loaded.config.model.type);
  if (path_exists(folder)) fail(ErrorKind::config, "{} exists already; give a folder that does not", printable(folder));
  // The vocabulary is in the weights, so the data need not be there any more.
  int vocabulary = 0;
  for (const TensorEntry& tensor : manifest.tensors)
    if (tensor.name == "transformer.wte.weight") vocabulary = static_cast<int>(tensor.shape.front());
  const auto model = make_model(loaded.config, vocabulary, 0);
  engine::Engine engine(
      *model, rank.comm, rank.place,
      engine_options(loaded, *model, {.train = 1, .micro = 1, .accumulation = 1, .world = 1, .text = ""}, 0,
                     rank.place.device->immediate()));
  load_checkpoint(path, manifest, engine);

  make_folders(folder);
  std::vector<SafetensorsWriter::Tensor> tensors;
  for (const nn::ParameterSpec& spec : model->parameters()) tensors.push_back({spec.name, spec.shape});
  SafetensorsWriter writer(folder + "/model.safetensors", tensors);
  std::vector<float> values(static_cast<std::size_t>(piece));
  for (std::size_t p = 0; p < model->parameters().size(); ++p) {
    const std::int64_t elements = model->parameters()[p].elements();
    const std::int64_t begin = engine.layout().of(static_cast<nn::ParamId>(p)).begin;
    for (std::int64_t at = 0; at < elements; at += piece) {
      const std::int64_t count = std::min(piece, elements - at);
      engine.read_range("master", begin + at, count, values.data());
      writer.write(values.data(), count);
    }
  }
  writer.finish();
  replace_text_file(folder + "/config.json", config_json(loaded.config.model.gpt2, vocabulary));
  std::string files = "config.json, model.safetensors";
  const job::TextDataConfig& text = loaded.config.data.text;
  if (loaded.config.data.type == "text" && text.vocab && text.merges) {
    if (path_exists(*text.vocab) && path_exists(*text.merges)) {
      copy_file(*text.vocab, folder + "/vocab.json");
      copy_file(*text.merges, folder + "/merges.txt");
      files += ", vocab.json, merges.txt";
    } else {
      log::warning("{} or {} is not there any more: the folder has no tokenizer", printable(*text.vocab),
                   printable(*text.merges));
    }
  }
  return fmt::format("{}: {} (step {} of {}: {})\n", printable(folder), files, manifest.state.step.attempted,
                     printable(path), model->describe());
}

}  // namespace lockstep::run
