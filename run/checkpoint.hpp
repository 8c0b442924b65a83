#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.hpp"
#include "run/manifest.hpp"
#include "safetensors/file.hpp"

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

/// The first thing that went wrong on this rank. A rank that cannot write must still take part in what the others need
/// it for, so errors of files are kept until all agree on them.
class FirstError {
 public:
  FirstError() = default;
  /// Calls `work` unless something has gone wrong already.
  template <class Work>
  void unless_failed(const Work& work) {
    if (!text_.empty()) return;
    try {
      work();
    } catch (const files::DiskTrouble& error) {
      *this = {ErrorKind::checkpoint, true, error.what()};
    } catch (const Error& error) {
      *this = {error.kind(), false, error.what()};
    }
  }
  [[nodiscard]] bool failed() const { return !text_.empty(); }
  [[nodiscard]] const std::string& text() const { return text_; }
  /// Throws what is kept, if anything is, as what it was.
  void rethrow(const std::string& before) const;

  /// Collective: every rank takes the error of the lowest rank that has one, which is named if there are others.
  void agree(comm::Communicator& comm);

 private:
  FirstError(ErrorKind kind, bool trouble, std::string text) : kind_(kind), trouble_(trouble), text_(std::move(text)) {}

  ErrorKind kind_ = ErrorKind::checkpoint;
  bool trouble_ = false;
  std::string text_;
};

/// This rank's part of a checkpoint's tensors, on its way into the folder `path`.
///
/// Weights go whole to one rank each, so that shards are files that others read too; ranks share them out evenly by
/// bytes. Moments are written where they are: each rank writes its own ranges.
class ShardWriter {
 public:
  /// Collective: streams all tensors out of the engine. Errors of files go to `error`; those of ranks are thrown.
  ShardWriter(const std::string& path, engine::Engine& engine, FirstError& error,
              files::FileSystem& fs = files::disk());
  /// Flushes this rank's files. Rank-local.
  [[nodiscard]] std::vector<FileEntry> finish();

 private:
  struct Shard {
    std::string name;
    std::unique_ptr<safetensors::Writer> writer;
  };
  void write_weights(engine::Engine& engine, FirstError& error);
  void write_moments(engine::Engine& engine, FirstError& error);
  void begin_shard(const std::string& name, std::vector<safetensors::Tensor> tensors);

  std::string path_;
  files::FileSystem& fs_;
  std::vector<Shard> shards_;
};

/// Writes what stands beside the shards, manifest.json last, and flushes the folder. Rank 0, with the shards of all
/// ranks.
void finish_checkpoint(const std::string& path, Manifest manifest, files::FileSystem& fs = files::disk());

/// Bytes that a checkpoint of this engine takes.
[[nodiscard]] std::uint64_t checkpoint_bytes(engine::Engine& engine);

}  // namespace lockstep::run
