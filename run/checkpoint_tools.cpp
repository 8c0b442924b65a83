#include "run/checkpoint_tools.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "core/text.hpp"
#include "files/durable_folder.hpp"
#include "run/checkpoint_store.hpp"
#include "run/run_folder.hpp"

namespace lockstep::run {
namespace {

/// The checkpoints that are meant: one itself, or all of a run, lowest step first.
std::vector<std::string> checkpoints_of(const std::string& source) {
  if (files::path_exists(source + "/manifest.json")) return {source};
  if (!files::path_exists(source + "/checkpoints"))
    fail(ErrorKind::config, "{} is neither a checkpoint nor a run's folder", printable(source));
  return checkpoint_paths(source + "/checkpoints");
}

CheckpointReport report_on(const std::string& source, bool read_everything) {
  CheckpointReport report;
  const std::vector<std::string> paths = checkpoints_of(source);
  if (paths.empty()) report.text = printable(source) + ": no checkpoint yet\n";
  for (const std::string& path : paths) {
    try {
      const Manifest manifest = read_manifest(path);
      std::uint64_t bytes = 0;
      for (const FileEntry& file : manifest.files) bytes += file.sum.bytes;
      if (read_everything) verify_files(path, manifest);
      report.text += fmt::format("{}: step {}, {} in {}, written by {}{}\n", printable(path),
                                 manifest.state.step.attempted, human_bytes(static_cast<double>(bytes)),
                                 counted(static_cast<std::int64_t>(manifest.files.size()), "file"),
                                 counted(manifest.state.world, "rank"), read_everything ? ": whole" : "");
    } catch (const Damaged& damage) {
      report.text += std::string(damage.what()) + "\n";
      report.good = false;
    }
  }
  return report;
}

/// Reads any run of elements of a checkpoint's tensors.
class Elements {
 public:
  explicit Elements(const std::string& path) : manifest(read_manifest(path)) {
    verify_files(path, manifest);
    for (const FileEntry& entry : manifest.files) {
      if (!entry.name.ends_with(".safetensors")) continue;
      const auto& file = files_.emplace_back(std::make_unique<safetensors::File>(path + "/" + entry.name, false));
      for (const safetensors::Tensor& tensor : file->header().tensors) {
        const std::size_t at = tensor.name.rfind('@');
        const bool moment = entry.name.starts_with("optimizer-") && at != std::string::npos;
        const std::int64_t begin = moment ? std::stoll(tensor.name.substr(at + 1)) : 0;
        pieces_[moment ? tensor.name.substr(0, at) : "master/" + tensor.name].push_back({begin, file.get(), &tensor});
      }
    }
  }
  void read(const TensorEntry& tensor, std::int64_t begin, std::vector<float>& to) const {
    const std::int64_t end = begin + static_cast<std::int64_t>(to.size());
    for (const Piece& piece : pieces_.at(tensor.kind + "/" + tensor.name)) {
      const auto size = static_cast<std::int64_t>(piece.tensor->bytes() / sizeof(float));
      const std::int64_t from = std::max(begin, piece.begin), till = std::min(end, piece.begin + size);
      if (from < till)
        piece.file->read(*piece.tensor, static_cast<std::uint64_t>(from - piece.begin) * sizeof(float),
                         &to[static_cast<std::size_t>(from - begin)],
                         static_cast<std::size_t>(till - from) * sizeof(float));
    }
  }

  Manifest manifest;

 private:
  struct Piece {
    std::int64_t begin = 0;
    const safetensors::File* file = nullptr;
    const safetensors::Tensor* tensor = nullptr;
  };
  std::vector<std::unique_ptr<safetensors::File>> files_;
  std::map<std::string, std::vector<Piece>> pieces_;
};

}  // namespace

CheckpointReport list_checkpoints(const std::string& source) { return report_on(source, false); }

CheckpointReport verify_checkpoints(const std::string& source) { return report_on(source, true); }

CheckpointReport diff_checkpoints(const std::string& a, const std::string& b) {
  const Elements left(a), right(b);
  CheckpointReport report;
  std::map<std::string, const TensorEntry*> there;
  for (const TensorEntry& tensor : right.manifest.tensors) there[tensor.kind + "/" + tensor.name] = &tensor;
  const auto say = [&](const std::string& line) {
    report.text += line + "\n";
    report.good = false;
  };
  constexpr auto most = static_cast<std::int64_t>(files::file_piece / sizeof(float));
  std::vector<float> x, y;
  for (const TensorEntry& tensor : left.manifest.tensors) {
    const std::string name = tensor.kind + "/" + tensor.name;
    const auto other = there.find(name);
    if (other == there.end()) {
      say(printable(name) + ": only in " + printable(a));
      continue;
    }
    const bool same_shape = other->second->shape == tensor.shape;
    there.erase(other);
    if (!same_shape) {
      say(printable(name) + ": of another shape");
      continue;
    }
    std::int64_t differing = 0;
    double largest = 0;
    for (std::int64_t at = 0; at < tensor.elements(); at += most) {
      x.resize(static_cast<std::size_t>(std::min(most, tensor.elements() - at)));
      y.resize(x.size());
      left.read(tensor, at, x);
      right.read(tensor, at, y);
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (std::bit_cast<std::uint32_t>(x[i]) == std::bit_cast<std::uint32_t>(y[i])) continue;
        ++differing;
        largest = std::max(largest, std::fabs(static_cast<double>(x[i]) - static_cast<double>(y[i])));
      }
    }
    if (differing > 0)
      say(fmt::format("{}: {} of {} elements differ, by at most {:.3g}", printable(name), differing, tensor.elements(),
                      largest));
  }
  for (const auto& [name, tensor] : there) say(printable(name) + ": only in " + printable(b));
  if (report.good)
    report.text =
        fmt::format("the same bits: {}\n", counted(static_cast<std::int64_t>(left.manifest.tensors.size()), "tensor"));
  return report;
}

CheckpointReport prune_checkpoints(const std::string& run_folder, const Keep& keep) {
  const std::string folder = run_folder + "/checkpoints";
  if (!files::is_folder(folder)) fail(ErrorKind::config, "{} is no run's folder", printable(run_folder));
  std::optional<RunLock> lock;
  if (!keep.only_tell) lock.emplace(run_folder);
  const CheckpointStore store({.folder = folder, .run_id = lock ? lock->run_id() : ""});
  CheckpointReport report;
  std::int64_t newest = 0, kept = 0, removed = 0, damaged = 0;
  std::vector<std::string> paths = checkpoint_paths(folder);
  std::ranges::reverse(paths);
  for (const std::string& path : paths) {
    try {
      const Manifest manifest = read_manifest(path);
      const std::int64_t step = manifest.state.step.attempted;
      if (path != fmt::format("{}/step-{}", folder, step))
        throw Damaged(fmt::format("{}: is of step {}", printable(path), step));
      const bool stays = newest < keep.last || (keep.every > 0 && step % keep.every == 0);
      if (stays) {
        verify_files(path, manifest);
        newest += newest < keep.last ? 1 : 0;
        ++kept;
        continue;
      }
      std::uint64_t bytes = 0;
      for (const FileEntry& file : manifest.files) bytes += file.sum.bytes;
      if (!keep.only_tell) store.remove(path, step);
      report.text += fmt::format("{}{}: {}\n", keep.only_tell ? "would remove " : "removed ", printable(path),
                                 human_bytes(static_cast<double>(bytes)));
      ++removed;
    } catch (const Damaged& damage) {
      report.text += std::string(damage.what()) + "; it stays\n";
      report.good = false;
      ++damaged;
    }
  }
  report.text += fmt::format("{}: {} {}, {} {}{}\n", printable(run_folder), counted(kept, "checkpoint"),
                             kept == 1 ? "stays" : "stay", removed, keep.only_tell ? "would go" : "removed",
                             damaged == 0 ? "" : fmt::format(", {} damaged", damaged));
  return report;
}

}  // namespace lockstep::run
