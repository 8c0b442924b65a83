#pragma once

#include <optional>
#include <string>

#include "engine/engine.hpp"
#include "job/job.hpp"
#include "run/manifest.hpp"

namespace lockstep::run {

/// Puts the weights of a Hugging Face GPT-2 (model.safetensors, or the files that model.safetensors.index.json lists)
/// in place of the engine's initial ones; they may be fp32, bf16 or fp16. Of more positions than the model's context
/// the first are taken. Every rank reads the files. ErrorKind::checkpoint if a tensor is missing or has another shape
/// than the model's.
void load_hf_weights(const std::string& folder, engine::Engine& engine);

/// Writes the weights of a run's newest checkpoint, or of the checkpoint `source`, as a folder that transformers loads:
/// config.json, model.safetensors and, for tokenizer gpt2, vocab.json and merges.txt. Without rows that only memory
/// has. Reads the checkpoint to its last byte first. Returns what was written, for people. ErrorKind::config for a
/// model that is no GPT-2 or a folder that exists.
[[nodiscard]] std::string export_hf(const std::string& source, const std::string& folder);

/// config.json of a checkpoint of a GPT-2; nothing of other models.
[[nodiscard]] std::optional<std::string> hf_config_of(const Manifest& manifest);

}  // namespace lockstep::run
