#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/engine.hpp"
#include "run/manifest.hpp"

namespace lockstep::run {

/// A checkpoint is a folder with manifest.json and tensors.bin (docs/checkpoint.md). Tensors are whole and logical, so
/// any number of ranks reads any checkpoint; both directions move `file_piece` bytes at a time.
///
/// Errors: Damaged where the content is not what was written, ErrorKind::checkpoint for everything else.

/// manifest.json as it stands there.
[[nodiscard]] std::string read_manifest_text(const std::string& path);
[[nodiscard]] Manifest read_manifest(const std::string& path);
/// Reads all of tensors.bin and compares it with the manifest.
void verify_tensors(const std::string& path, const Manifest& manifest);

/// Refuses a checkpoint whose tensors are not exactly those of `model` in each of `buffers` ("master" and the
/// optimizer's moments); names the first that is missing, too many or of another shape.
void require_same_tensors(const std::string& path, const Manifest& manifest, const nn::Model& model,
                          const std::vector<std::string>& buffers);

/// Fills the engine; every rank calls it. The bytes are compared with the manifest as they come: after an exception the
/// engine holds half of them and must not be used.
void load_checkpoint(const std::string& path, const Manifest& manifest, engine::Engine& engine);

/// Writes tensors.bin and manifest.json into the empty folder `path` and flushes them to the disk. `under_way` is
/// called between the two.
void write_checkpoint(const std::string& path, engine::Engine& engine, const RunState& state,
                      const std::function<void()>& under_way);

}  // namespace lockstep::run
