#include "job/hf_config.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/json.hpp"
#include "core/text.hpp"

namespace lockstep::job {
namespace {

using Json = nlohmann::json;

class Reader {
 public:
  explicit Reader(const std::string& folder) : path_(printable(folder + "/config.json")) {
    std::error_code none;
    if (!std::filesystem::is_directory(folder, none))
      fail(ErrorKind::config,
           "{} is no folder; a Hugging Face model is a folder with config.json and model.safetensors",
           printable(folder));
    std::ifstream file(folder + "/config.json", std::ios::binary);
    if (!file) fail(ErrorKind::config, "{} cannot be opened", path_);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    object_ = parse_json(text);
    if (!object_.is_object()) fail(ErrorKind::config, "{} is no JSON object", path_);
  }

  [[nodiscard]] std::int64_t number(const char* key, const char* other = nullptr) const {
    const char* const name = object_.contains(key) || other == nullptr ? key : other;
    const Json value = object_.value(name, Json());
    if (!value.is_number_integer() || value.get<std::int64_t>() < 1)
      fail(ErrorKind::config, "{}: {} is {}; a whole number from 1 up is needed", path_, name, printable(value.dump()));
    return value.get<std::int64_t>();
  }

  /// Refuses any value but `wanted`, which is also what an absent key means.
  void only(const char* key, const Json& wanted, const char* why) const {
    const auto found = object_.find(key);
    if (found == object_.end() || found->is_null() || *found == wanted) return;
    if (wanted.is_number() && found->is_number() && std::fabs(found->get<double>() - wanted.get<double>()) <= 1e-12)
      return;
    fail(ErrorKind::config, "{}: {} is {}, but only {} can be taken: {}", path_, key, printable(found->dump()),
         wanted.dump(), why);
  }

 private:
  std::string path_;
  Json object_;
};

}  // namespace

HfGpt2 read_hf_gpt2(const std::string& folder) {
  const Reader reader(folder);
  reader.only("model_type", "gpt2", "model.type gpt2 computes GPT-2 alone");
  reader.only("activation_function", "gelu_new", "GELU in its tanh form stands between the layers");
  reader.only("layer_norm_epsilon", 1e-5, "that is what layer norms add");
  reader.only("scale_attn_weights", true, "scores are divided by the root of the head's width");
  reader.only("scale_attn_by_inverse_layer_idx", false, "scores are scaled alike in every layer");
  reader.only("tie_word_embeddings", true, "the output layer is the embedding's matrix");
  reader.only("add_cross_attention", false, "there is no encoder");
  const HfGpt2 config{.n_layer = reader.number("n_layer"),
                      .n_head = reader.number("n_head"),
                      .n_embd = reader.number("n_embd"),
                      .n_positions = reader.number("n_positions", "n_ctx"),
                      .vocab_size = reader.number("vocab_size")};
  reader.only("n_inner", 4 * config.n_embd, "the MLP is four times as wide as the embedding");
  return config;
}

}  // namespace lockstep::job
