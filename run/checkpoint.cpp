#include "run/checkpoint.hpp"

#include <algorithm>
#include <map>

#include "core/text.hpp"
#include "run/durable_folder.hpp"

namespace lockstep::run {
namespace {

constexpr std::size_t longest_manifest = std::size_t{256} << 20;
constexpr std::size_t piece_elements = file_piece / sizeof(float);

std::string manifest_path(const std::string& path) { return path + "/manifest.json"; }
std::string tensors_path(const std::string& path) { return path + "/tensors.bin"; }

[[noreturn]] void damaged_tensors(const std::string& path) {
  throw Damaged(printable(tensors_path(path)) + ": is damaged: its size or hash differs from the manifest");
}

/// Writes every tensor of every buffer, in the order in which the manifest then lists them.
Manifest write_tensors(engine::Engine& engine, const RunState& state, const std::string& path) {
  Manifest manifest{.state = state, .tensors_file = {}, .tensors = {}};
  FileWriter file(path);
  std::vector<float> piece(piece_elements);
  std::uint64_t end = 0;
  for (const std::string& buffer : engine.buffer_names()) {
    for (std::size_t p = 0; p < engine.model().parameters().size(); ++p) {
      const nn::ParameterSpec& spec = engine.model().parameters()[p];
      const std::int64_t begin = engine.layout().of(static_cast<nn::ParamId>(p)).begin;
      for (std::int64_t at = 0; at < spec.elements(); at += static_cast<std::int64_t>(piece.size())) {
        const std::int64_t count = std::min(static_cast<std::int64_t>(piece.size()), spec.elements() - at);
        engine.read_range(buffer, begin + at, count, piece.data());
        file.write(piece.data(), static_cast<std::size_t>(count) * sizeof(float));
      }
      const std::uint64_t bytes = static_cast<std::uint64_t>(spec.elements()) * sizeof(float);
      manifest.tensors.push_back(
          {.name = spec.name, .kind = buffer, .shape = spec.shape, .begin = end, .bytes = bytes});
      end += bytes;
    }
  }
  manifest.tensors_file = file.finish();
  return manifest;
}

}  // namespace

std::string read_manifest_text(const std::string& path) {
  if (!path_exists(path)) fail(ErrorKind::checkpoint, "{}: there is no such checkpoint", printable(path));
  if (!is_folder(path) || !path_exists(manifest_path(path)))
    throw Damaged(printable(path) + ": has no manifest.json, so it is no complete checkpoint");
  return read_text_file(manifest_path(path), longest_manifest);
}

Manifest read_manifest(const std::string& path) {
  return parse_manifest(read_manifest_text(path), manifest_path(path));
}

void verify_tensors(const std::string& path, const Manifest& manifest) {
  if (!path_exists(tensors_path(path))) throw Damaged(printable(tensors_path(path)) + ": is missing");
  FileReader file(tensors_path(path));
  std::vector<char> piece(file_piece);
  while (file.read(piece.data(), piece.size()) > 0) {
  }
  if (file.sum() != manifest.tensors_file) damaged_tensors(path);
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

void load_checkpoint(const std::string& path, const Manifest& manifest, engine::Engine& engine) {
  require_same_tensors(path, manifest, engine.model(), engine.buffer_names());
  std::map<std::string, std::int64_t> begins;
  for (std::size_t p = 0; p < engine.model().parameters().size(); ++p)
    begins[engine.model().parameters()[p].name] = engine.layout().of(static_cast<nn::ParamId>(p)).begin;
  FileReader file(tensors_path(path));
  std::vector<float> piece(piece_elements);
  for (const TensorEntry& tensor : manifest.tensors) {
    const auto elements = static_cast<std::int64_t>(tensor.bytes / sizeof(float));
    for (std::int64_t at = 0; at < elements; at += static_cast<std::int64_t>(piece.size())) {
      const std::int64_t count = std::min(static_cast<std::int64_t>(piece.size()), elements - at);
      const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(float);
      if (file.read(piece.data(), bytes) != bytes) damaged_tensors(path);
      engine.write_range(tensor.kind, begins.at(tensor.name) + at, count, piece.data());
    }
  }
  char more = 0;
  if (file.read(&more, 1) != 0 || file.sum() != manifest.tensors_file) damaged_tensors(path);
  engine.write_state(manifest.state.step);
}

void write_checkpoint(const std::string& path, engine::Engine& engine, const RunState& state,
                      const std::function<void()>& under_way) {
  const Manifest manifest = write_tensors(engine, state, tensors_path(path));
  if (under_way) under_way();
  const std::string text = manifest_text(manifest);
  FileWriter file(manifest_path(path));
  file.write(text.data(), text.size());
  (void)file.finish();
  sync_folder(path);
}

}  // namespace lockstep::run
