#include "run/checkpoint.hpp"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "core/text.hpp"
#include "files/durable_folder.hpp"
#include "run/hf_model.hpp"

namespace lockstep::run {
namespace {

constexpr std::size_t longest_manifest = std::size_t{256} << 20;

std::string manifest_path(const std::string& path) { return path + "/manifest.json"; }

bool is_shard(const std::string& name) { return name.ends_with(".safetensors"); }

[[noreturn]] void damaged_file(const std::string& file) {
  throw Damaged(printable(file) + ": is damaged: its size or hash differs from the manifest");
}

/// The elements [begin, end) of a tensor that an entry of a shard holds.
struct Piece {
  const TensorEntry* tensor = nullptr;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// Tensors of a manifest by the names of their entries.
class Pieces {
 public:
  explicit Pieces(const Manifest& manifest) {
    for (const TensorEntry& tensor : manifest.tensors) by_name_[{tensor.kind, tensor.name}] = &tensor;
  }

  /// What an entry holds, counted as found. Damaged if it is none of this checkpoint's.
  Piece found(const safetensors::Tensor& entry, const std::string& file) {
    const auto damaged = [&](const char* what) {
      throw Damaged(fmt::format("{}: {} {}", printable(file), printable(entry.name), what));
    };
    if (entry.type != safetensors::Type::f32) damaged("is not F32");
    Piece piece = named(entry.name);
    if (piece.tensor == nullptr) damaged("is no tensor of this checkpoint");
    const std::vector<std::int64_t>& whole = piece.tensor->shape;
    const bool fits = is_weight(piece)
                          ? std::equal(entry.shape.begin(), entry.shape.end(), whole.begin(), whole.end(),
                                       [](std::uint64_t a, std::int64_t b) { return std::cmp_equal(a, b); })
                          : entry.shape.size() == 1 && std::cmp_equal(entry.shape[0], piece.end - piece.begin);
    if (!fits) damaged("has another shape than its name or the manifest says");
    if (piece.end > piece.tensor->elements()) damaged("ends behind the tensor's last element");
    covered_[piece.tensor].emplace_back(piece.begin, piece.end);
    return piece;
  }

  /// Each tensor's pieces must tile it.
  void require_whole(const std::string& path) {
    for (const auto& [name, tensor] : by_name_) {
      auto& ranges = covered_[tensor];
      std::sort(ranges.begin(), ranges.end());
      std::int64_t end = 0;
      for (const auto& [from, to] : ranges) {
        if (from != end) break;
        end = to;
      }
      if (end != tensor->elements() || (!ranges.empty() && ranges.back().second != end))
        throw Damaged(
            fmt::format("{}: the pieces of {} of {} do not make it up: elements from {} on are missing or there twice",
                        printable(path), printable(tensor->kind), printable(tensor->name), end));
    }
  }

 private:
  static bool is_weight(const Piece& piece) { return piece.tensor->kind == "master"; }

  /// "NAME", or "KIND/NAME@BEGIN:END" in the one spelling that is written.
  Piece named(const std::string& name) const {
    if (const auto weight = by_name_.find({"master", name}); weight != by_name_.end())
      return {weight->second, 0, weight->second->elements()};
    const std::size_t slash = name.find('/'), at = name.rfind('@');
    if (slash == std::string::npos || at == std::string::npos || at < slash) return {};
    const auto moment = by_name_.find({name.substr(0, slash), name.substr(slash + 1, at - slash - 1)});
    if (moment == by_name_.end() || moment->second->kind == "master") return {};
    Piece piece{.tensor = moment->second};
    const char* end = name.data() + name.size();
    const auto first = std::from_chars(name.data() + at + 1, end, piece.begin);
    if (first.ec != std::errc() || first.ptr == end || *first.ptr != ':') return {};
    const auto second = std::from_chars(first.ptr + 1, end, piece.end);
    const bool same = second.ec == std::errc() && piece.begin >= 0 && piece.begin < piece.end &&
                      name.substr(at) == fmt::format("@{}:{}", piece.begin, piece.end);
    return same ? piece : Piece{};
  }

  std::map<std::pair<std::string, std::string>, const TensorEntry*> by_name_;
  std::map<const TensorEntry*, std::vector<std::pair<std::int64_t, std::int64_t>>> covered_;
};

/// A file of the checkpoint, read to its end: what it holds and its hash must be the manifest's.
class CheckedFile {
 public:
  CheckedFile(const std::string& path, const FileEntry& entry, files::FileSystem& fs)
      : path_(path + "/" + entry.name), entry_(entry) {
    if (!files::path_exists(path_, fs)) throw Damaged(printable(path_) + ": is missing");
    reader_ = std::make_unique<files::FileReader>(path_, false, fs);
    if (reader_->size() != entry.sum.bytes) damaged_file(path_);
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  void read(void* to, std::size_t bytes) {
    if (reader_->read(to, bytes) != bytes) damaged_file(path_);
  }
  [[nodiscard]] safetensors::Header read_header() {
    try {
      unsigned char first[8] = {};
      read(first, std::min<std::size_t>(sizeof first, entry_.sum.bytes));
      std::string text(static_cast<std::size_t>(safetensors::header_length(first, entry_.sum.bytes, path_)), '\0');
      read(text.data(), text.size());
      return safetensors::parse_header(text, entry_.sum.bytes - sizeof first - text.size(), path_);
    } catch (const files::DiskTrouble&) {
      throw;
    } catch (const Error& error) {
      throw Damaged(error.what());
    }
  }
  void finish() {
    std::vector<char> piece(std::min<std::size_t>(files::file_piece, entry_.sum.bytes + 1));
    while (reader_->read(piece.data(), piece.size()) > 0) {
    }
    if (reader_->sum() != entry_.sum) damaged_file(path_);
  }

 private:
  std::string path_;
  const FileEntry& entry_;
  std::unique_ptr<files::FileReader> reader_;
};

std::string index_json(const std::string& path, const std::vector<FileEntry>& shards, files::FileSystem& fs) {
  nlohmann::json weights = nlohmann::json::object();
  std::uint64_t bytes = 0;
  for (const FileEntry& shard : shards) {
    if (!shard.name.starts_with("model-")) continue;
    const safetensors::File file(path + "/" + shard.name, false, fs);
    for (const safetensors::Tensor& tensor : file.header().tensors) {
      weights[tensor.name] = shard.name;
      bytes += tensor.bytes();
    }
  }
  return nlohmann::json({{"metadata", {{"total_size", bytes}}}, {"weight_map", weights}}).dump(2) + "\n";
}

}  // namespace

std::string read_manifest_text(const std::string& path, files::FileSystem& fs) {
  if (!files::path_exists(path, fs)) fail(ErrorKind::checkpoint, "{}: there is no such checkpoint", printable(path));
  if (!files::is_folder(path, fs) || !files::path_exists(manifest_path(path), fs))
    throw Damaged(printable(path) + ": has no manifest.json, so it is no complete checkpoint");
  // No link: what a checkpoint says of itself lies in it.
  return files::read_text_file(manifest_path(path), longest_manifest, fs, false);
}

Manifest read_manifest(const std::string& path, files::FileSystem& fs) {
  return parse_manifest(read_manifest_text(path, fs), manifest_path(path));
}

void visit_tensors(const std::string& path, const Manifest& manifest, const Visit& visit, files::FileSystem& fs) {
  Pieces pieces(manifest);
  constexpr auto most = static_cast<std::int64_t>(files::file_piece / sizeof(float));
  std::vector<float> values;
  for (const FileEntry& entry : manifest.files) {
    CheckedFile file(path, entry, fs);
    if (is_shard(entry.name)) {
      const safetensors::Header header = file.read_header();
      for (const safetensors::Tensor& tensor : header.tensors) {
        const Piece piece = pieces.found(tensor, file.path());
        for (std::int64_t at = piece.begin; at < piece.end; at += most) {
          const std::int64_t count = std::min(most, piece.end - at);
          if (std::cmp_less(values.size(), count)) values.resize(static_cast<std::size_t>(count));
          file.read(values.data(), static_cast<std::size_t>(count) * sizeof(float));
          if (visit) visit(*piece.tensor, at, count, values.data());
        }
      }
    }
    file.finish();
  }
  pieces.require_whole(path);
}

void verify_files(const std::string& path, const Manifest& manifest, files::FileSystem& fs) {
  visit_tensors(path, manifest, {}, fs);
}

void require_same_tensors(const std::string& path, const Manifest& manifest, const nn::Model& model,
                          const std::vector<std::string>& buffers) {
  std::map<std::pair<std::string, std::string>, const TensorEntry*> there;
  for (const TensorEntry& tensor : manifest.tensors) there[{tensor.kind, tensor.name}] = &tensor;
  for (const std::string& buffer : buffers) {
    for (const nn::ParameterSpec& spec : model.parameters()) {
      const auto found = there.find({buffer, spec.name});
      if (found == there.end())
        fail(ErrorKind::checkpoint, "{}: no {} of {}; the run was started with another model or optimizer",
             printable(path), buffer, spec.name);
      if (found->second->shape != spec.shape)
        fail(ErrorKind::checkpoint,
             "{}: {} has the shape [{}] there and [{}] in this model; use the job file the run was "
             "started with",
             printable(path), spec.name, fmt::join(found->second->shape, ", "), fmt::join(spec.shape, ", "));
      there.erase(found);
    }
  }
  if (!there.empty())
    fail(ErrorKind::checkpoint,
         "{}: has {} of {}, which this job does not; the run was started with another model or "
         "optimizer",
         printable(path), printable(there.begin()->first.first), printable(there.begin()->first.second));
}

void load_checkpoint(const std::string& path, const Manifest& manifest, engine::Engine& engine, files::FileSystem& fs) {
  require_same_tensors(path, manifest, engine.model(), engine.buffer_names());
  std::map<std::string, std::int64_t> begins;
  for (std::size_t p = 0; p < engine.model().parameters().size(); ++p)
    begins[engine.model().parameters()[p].name] = engine.layout().of(static_cast<nn::ParamId>(p)).begin;
  visit_tensors(
      path, manifest,
      [&](const TensorEntry& tensor, std::int64_t begin, std::int64_t count, const float* values) {
        engine.write_range(tensor.kind, begins.at(tensor.name) + begin, count, values);
      },
      fs);
  engine.write_state(manifest.state.step);
}

std::vector<TensorEntry> tensors_of(engine::Engine& engine) {
  std::vector<TensorEntry> tensors;
  for (const std::string& buffer : engine.buffer_names())
    for (const nn::ParameterSpec& spec : engine.model().parameters())
      tensors.push_back({.name = spec.name, .kind = buffer, .shape = spec.shape});
  return tensors;
}

std::uint64_t checkpoint_bytes(engine::Engine& engine) {
  std::uint64_t bytes = 0;
  for (const TensorEntry& tensor : tensors_of(engine))
    bytes += static_cast<std::uint64_t>(tensor.elements()) * sizeof(float) + tensor.name.size() + 256;
  return bytes;
}

void finish_checkpoint(const std::string& path, Manifest manifest, files::FileSystem& fs) {
  const auto add = [&](const std::string& name, const std::string& text) {
    manifest.files.push_back({.name = name, .sum = files::write_text_file(path + "/" + name, text, fs)});
  };
  add("model.safetensors.index.json", index_json(path, manifest.files, fs));
  if (const auto config = hf_config_of(manifest)) add("config.json", *config);
  std::sort(manifest.files.begin(), manifest.files.end(),
            [](const FileEntry& a, const FileEntry& b) { return a.name < b.name; });
  (void)files::write_text_file(manifest_path(path), manifest_text(manifest), fs);
  files::sync_folder(path, fs);
}

}  // namespace lockstep::run
