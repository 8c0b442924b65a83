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

/// For each parameter the rank that writes it: the largest first, each to the rank with the fewest bytes so far.
std::vector<int> weight_writers(const nn::Model& model, int world) {
  const std::vector<nn::ParameterSpec>& specs = model.parameters();
  std::vector<std::size_t> order(specs.size());
  for (std::size_t p = 0; p < order.size(); ++p) order[p] = p;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return specs[a].elements() > specs[b].elements(); });
  std::vector<std::int64_t> load(static_cast<std::size_t>(world), 0);
  std::vector<int> writers(specs.size());
  for (const std::size_t p : order) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += specs[p].elements();
    writers[p] = static_cast<int>(least - load.begin());
  }
  return writers;
}

std::vector<std::uint64_t> unsigned_shape(const std::vector<std::int64_t>& shape) {
  return {shape.begin(), shape.end()};
}

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
  return files::read_text_file(manifest_path(path), longest_manifest, fs);
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

void FirstError::rethrow(const std::string& before) const {
  if (!failed()) return;
  if (trouble_) throw files::DiskTrouble(before + text_);
  throw Error(kind_, before + text_);
}

void FirstError::agree(comm::Communicator& comm) {
  struct Told {
    std::int32_t kind = 0;  // 0: well
    std::int32_t trouble = 0;
  };
  std::vector<Told> all(static_cast<std::size_t>(comm.size()));
  if (failed()) all[static_cast<std::size_t>(comm.rank())] = {static_cast<std::int32_t>(kind_), trouble_ ? 1 : 0};
  comm.all_gather_values(std::span(all));
  for (std::size_t r = 0; r < all.size(); ++r) {
    if (all[r].kind == 0) continue;
    comm.broadcast_text(text_, static_cast<int>(r));
    *this = {static_cast<ErrorKind>(all[r].kind), all[r].trouble != 0, text_};
    if (all.size() > 1 && r > 0) text_ = fmt::format("rank {}: {}", r, text_);
    return;
  }
}

ShardWriter::ShardWriter(const std::string& path, engine::Engine& engine, FirstError& error, files::FileSystem& fs)
    : path_(path), fs_(fs) {
  write_weights(engine, error);
  write_moments(engine, error);
}

void ShardWriter::begin_shard(const std::string& name, std::vector<safetensors::Tensor> tensors) {
  // "pt": whose layout it is; transformers asks for it.
  const std::map<std::string, std::string> metadata = {{"format", "pt"}};
  shards_.push_back(
      {name, std::make_unique<safetensors::Writer>(path_ + "/" + name, std::move(tensors), metadata, fs_)});
}

void ShardWriter::write_weights(engine::Engine& engine, FirstError& error) {
  const std::vector<nn::ParameterSpec>& specs = engine.model().parameters();
  const int world = engine.comm().size(), own = engine.comm().rank();
  const std::vector<int> writers = weight_writers(engine.model(), world);
  // What each rank writes, in the order of its file, as every rank works it out.
  struct Work {
    std::vector<safetensors::Tensor> tensors;
    std::size_t tensor = 0;
    std::int64_t element = 0;
  };
  std::vector<Work> work(static_cast<std::size_t>(world));
  std::map<std::string, std::int64_t> begins;
  for (std::size_t p = 0; p < specs.size(); ++p) {
    begins[specs[p].name] = engine.layout().of(static_cast<nn::ParamId>(p)).begin;
    work[static_cast<std::size_t>(writers[p])].tensors.push_back(
        {.name = specs[p].name, .shape = unsigned_shape(specs[p].shape)});
  }
  int shards = 0, number = 0;
  for (int r = 0; r < world; ++r) {
    Work& of = work[static_cast<std::size_t>(r)];
    (void)safetensors::lay_out(of.tensors, {});
    if (of.tensors.empty()) continue;
    ++shards;
    if (r == own) number = shards;
  }
  if (number > 0)
    error.unless_failed([&] {
      begin_shard(fmt::format("model-{:05}-of-{:05}.safetensors", number, shards),
                  work[static_cast<std::size_t>(own)].tensors);
    });
  // A piece for each writer in turn, so that all disks are busy.
  std::vector<float> values(files::file_piece / sizeof(float));
  for (bool more = true; more;) {
    more = false;
    for (int r = 0; r < world; ++r) {
      Work& of = work[static_cast<std::size_t>(r)];
      if (of.tensor == of.tensors.size()) continue;
      more = true;
      const safetensors::Tensor& tensor = of.tensors[of.tensor];
      const auto elements = static_cast<std::int64_t>(tensor.bytes() / sizeof(float));
      const std::int64_t count = std::min(static_cast<std::int64_t>(values.size()), elements - of.element);
      engine.gather_range("master", begins.at(tensor.name) + of.element, count, values.data(), r);
      if (r == own)
        error.unless_failed(
            [&] { shards_.back().writer->write(values.data(), static_cast<std::size_t>(count) * sizeof(float)); });
      of.element += count;
      if (of.element < elements) continue;
      of.element = 0;
      ++of.tensor;
    }
  }
}

void ShardWriter::write_moments(engine::Engine& engine, FirstError& error) {
  const std::vector<nn::ParameterSpec>& specs = engine.model().parameters();
  struct Source {
    std::string buffer;
    std::int64_t begin = 0;  ///< in the flat space
  };
  std::map<std::string, Source> sources;
  std::vector<safetensors::Tensor> tensors;
  for (const std::string& buffer : engine.buffer_names()) {
    if (buffer == "master") continue;
    for (const engine::FlatRange& own : engine.own_ranges(buffer)) {
      for (std::size_t p = 0; p < specs.size(); ++p) {
        const std::int64_t start = engine.layout().of(static_cast<nn::ParamId>(p)).begin;
        const std::int64_t begin = std::max(own.begin, start) - start;
        const std::int64_t end = std::min(own.end, start + specs[p].elements()) - start;
        if (begin >= end) continue;
        std::string name = fmt::format("{}/{}@{}:{}", buffer, specs[p].name, begin, end);
        sources[name] = {buffer, start + begin};
        tensors.push_back({.name = std::move(name), .shape = {static_cast<std::uint64_t>(end - begin)}});
      }
    }
  }
  if (tensors.empty()) return;
  error.unless_failed([&] {
    begin_shard(fmt::format("optimizer-{:05}-of-{:05}.safetensors", engine.comm().rank() + 1, engine.comm().size()),
                std::move(tensors));
    safetensors::Writer& writer = *shards_.back().writer;
    std::vector<float> values(files::file_piece / sizeof(float));
    for (const safetensors::Tensor& tensor : writer.tensors()) {
      const Source& source = sources.at(tensor.name);
      const auto elements = static_cast<std::int64_t>(tensor.shape[0]);
      for (std::int64_t at = 0; at < elements; at += static_cast<std::int64_t>(values.size())) {
        const std::int64_t count = std::min(static_cast<std::int64_t>(values.size()), elements - at);
        engine.read_range(source.buffer, source.begin + at, count, values.data());
        writer.write(values.data(), static_cast<std::size_t>(count) * sizeof(float));
      }
    }
  });
}

std::vector<FileEntry> ShardWriter::finish() {
  std::vector<FileEntry> entries;
  for (Shard& shard : shards_) entries.push_back({.name = shard.name, .sum = shard.writer->finish()});
  return entries;
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
