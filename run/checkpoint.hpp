#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/engine.hpp"
#include "run/checkpoint_shards.hpp"
#include "run/manifest.hpp"

namespace lockstep::run {

/// A checkpoint is a folder with manifest.json and safetensors files (docs/checkpoint.md). Tensors are logical and
/// written and read by ranges of elements, so any number of ranks reads any checkpoint, and nobody needs more than the
/// pieces of `file_piece` bytes under way.
///
/// Errors: Damaged where the content is not what was written, files::DiskTrouble where the disk is full or has failed,
/// ErrorKind::checkpoint for everything else.

/// manifest.json as it stands there.
[[nodiscard]] std::string read_manifest_text(const std::string& path, files::FileSystem& fs = files::disk());
[[nodiscard]] Manifest read_manifest(const std::string& path, files::FileSystem& fs = files::disk());
/// Reads every byte of every file and compares it with the manifest; the pieces of each tensor must tile it once.
void verify_files(const std::string& path, const Manifest& manifest, files::FileSystem& fs = files::disk());

/// Refuses a checkpoint whose tensors are not exactly those of `model` in each of `buffers` ("master" and the
/// optimizer's moments); names the first that is missing, too many or of another shape.
void require_same_tensors(const std::string& path, const Manifest& manifest, const nn::Model& model,
                          const std::vector<std::string>& buffers);

/// Fills the engine; every rank calls it, and keeps what it holds. The bytes are compared with the manifest as they
/// come: after an exception the engine holds half of them and must not be used.
void load_checkpoint(const std::string& path, const Manifest& manifest, engine::Engine& engine,
                     files::FileSystem& fs = files::disk());

/// Elements of one tensor in a checkpoint, as they come: `begin` counts within the tensor.
using Visit =
    std::function<void(const TensorEntry& tensor, std::int64_t begin, std::int64_t count, const float* values)>;
/// What verify_files does, with every element given to `visit` on the way.
void visit_tensors(const std::string& path, const Manifest& manifest, const Visit& visit,
                   files::FileSystem& fs = files::disk());

/// The engine's tensors, as the manifest lists them.
[[nodiscard]] std::vector<TensorEntry> tensors_of(engine::Engine& engine);

/// Writes what stands beside the shards, manifest.json last, and flushes the folder. Rank 0, with the shards of all
/// ranks.
void finish_checkpoint(const std::string& path, Manifest manifest, files::FileSystem& fs = files::disk());

/// Bytes that a checkpoint of this engine takes.
[[nodiscard]] std::uint64_t checkpoint_bytes(engine::Engine& engine);

}  // namespace lockstep::run
