#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.hpp"
#include "run/first_error.hpp"
#include "run/manifest.hpp"
#include "safetensors/file.hpp"

namespace lockstep::run {

/// What this rank writes of every checkpoint of an engine: files and their tensors, in the order of their bytes.
///
/// Weights go whole to one rank each, so that shards are files that others read too; ranks share them out evenly by
/// bytes. Moments are written where they are: each rank writes its own ranges.
class ShardPlan {
 public:
  struct File {
    std::string name;
    std::vector<safetensors::Tensor> tensors;
    bool moments = false;
  };

  explicit ShardPlan(engine::Engine& engine);

  [[nodiscard]] const std::vector<File>& files() const { return files_; }
  /// Of all tensors of this rank.
  [[nodiscard]] std::int64_t elements() const;

  /// Where the next `count` elements of a file (its number in files()) are to be put. Called on the rank that writes
  /// them, in the order of its files' bytes.
  using Room = std::function<float*(std::size_t file, std::int64_t count)>;
  /// They are there.
  using Filled = std::function<void(std::size_t file, const float* values, std::int64_t count)>;
  /// Collective: reads every element out of the engine, in pieces of at most files::file_piece bytes.
  void read(engine::Engine& engine, const Room& room, const Filled& filled) const;

 private:
  /// The weights that one rank writes, as every rank works it out.
  struct Weights {
    std::vector<safetensors::Tensor> tensors;
    std::vector<std::int64_t> begins;  ///< in the flat space
  };
  /// Where a moment's elements come from.
  struct Source {
    std::string buffer;
    std::int64_t begin = 0;  ///< in the flat space
  };
  void plan_weights(engine::Engine& engine);
  void plan_moments(engine::Engine& engine);

  std::vector<File> files_;
  std::vector<Weights> weights_;  ///< by rank
  std::vector<Source> moments_;   ///< of the tensors of the file with moments
};

/// The fp32 numbers that a rank writes of a checkpoint (ShardPlan::elements), from the model's shapes alone: what a
/// ShardSnapshot takes. `own` are the runs of the flat space that the rank saves of each of so many moments.
[[nodiscard]] std::int64_t shard_elements(const std::vector<nn::ParameterSpec>& specs, const engine::FlatLayout& layout,
                                          const std::vector<engine::FlatRange>& own, std::int64_t moments, int rank,
                                          int ranks);

/// This rank's part of a checkpoint's tensors, on its way from the engine into the folder `path` without a copy.
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
  std::vector<Shard> shards_;
};

/// This rank's part of a checkpoint as it was at one moment, in memory of its own that is used again and again. Holding
/// it, a rank trains on while another thread writes.
class ShardSnapshot {
 public:
  /// Takes the memory: bytes().
  explicit ShardSnapshot(engine::Engine& engine);
  [[nodiscard]] std::size_t bytes() const { return values_.size() * sizeof(float); }

  /// Collective: copies the engine's state as it is now.
  void take(engine::Engine& engine);
  /// Writes what was taken as ShardWriter would have then, to the byte, and flushes it. Rank-local, on any thread;
  /// nobody else may use the snapshot meanwhile. `unflushed` is called when all bytes have gone to the system and none
  /// is flushed. ErrorKind::checkpoint as soon as `cancelled` is true.
  [[nodiscard]] std::vector<FileEntry> write(const std::string& path, files::FileSystem& fs,
                                             const std::function<void()>& unflushed,
                                             const std::atomic<bool>& cancelled) const;

 private:
  ShardPlan plan_;
  std::vector<float> values_;  ///< file after file
};

}  // namespace lockstep::run
