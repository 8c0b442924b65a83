#include "run/checkpoint.hpp"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int format_version = 1;

std::string checksum(const void* data, std::size_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits(data, bytes);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

void sync_path(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  if (fd < 0) fail(ErrorKind::checkpoint, "{}: cannot be opened: {}", path.string(), std::strerror(errno));
  const int result = ::fsync(fd);
  ::close(fd);
  if (result != 0)
    fail(ErrorKind::checkpoint, "{}: cannot be flushed to disk: {}", path.string(), std::strerror(errno));
}

void write_file(const fs::path& path, const std::string& content) {
  std::ofstream out(path, std::ios::binary);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  out.close();
  if (!out)
    fail(ErrorKind::checkpoint, "{}: cannot be written ({} bytes): {}; is the disk full?", path.string(),
         content.size(), std::strerror(errno));
  sync_path(path);
}

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(ErrorKind::checkpoint, "{}: cannot be read: {}", path.string(), std::strerror(errno));
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

json to_json(const StepState& s) {
  return {{"applied", s.applied},       {"attempted", s.attempted}, {"scale", s.scale},
          {"hysteresis", s.hysteresis}, {"iteration", s.iteration}, {"last_overflow", s.last_overflow},
          {"first_bad", s.first_bad}};
}

StepState step_state_from(const json& j) {
  StepState s;
  s.applied = j.at("applied");
  s.attempted = j.at("attempted");
  s.scale = j.at("scale");
  s.hysteresis = j.at("hysteresis");
  s.iteration = j.at("iteration");
  s.last_overflow = j.at("last_overflow");
  s.first_bad = j.at("first_bad");
  return s;
}

class FolderStore final : public CheckpointStore {
 public:
  FolderStore(fs::path folder, std::int64_t keep_last) : folder_(std::move(folder)), keep_last_(keep_last) {}

  std::string save(engine::Engine& engine, const RunState& state) override {
    try {
      return write(engine, state);
    } catch (const fs::filesystem_error& error) {
      fail(ErrorKind::checkpoint, "{}: the checkpoint of step {} cannot be saved: {}", folder_.string(),
           state.step.attempted, error.what());
    }
  }

  [[nodiscard]] std::optional<std::string> newest() const override {
    std::vector<std::int64_t> steps = all_steps();
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
      const fs::path path = folder_ / fmt::format("step-{}", *step);
      if (fs::exists(path / "manifest.json")) return path.string();
    }
    return std::nullopt;
  }

  [[nodiscard]] RunState read_state(const std::string& path) const override {
    const json manifest = read_manifest(path);
    try {
      RunState state;
      state.step = step_state_from(manifest.at("step_state"));
      state.sample_position = manifest.at("sample_position");
      state.seed = manifest.at("seed");
      state.train_batch = manifest.at("train_batch_size");
      state.micro_batch = manifest.at("micro_batch");
      state.world = manifest.at("world_size");
      state.threads = manifest.at("threads");
      state.isa = manifest.at("isa");
      state.job = manifest.at("job");
      state.data = manifest.at("data");
      return state;
    } catch (const json::exception& error) {
      fail(ErrorKind::checkpoint, "{}/manifest.json: {}", path, error.what());
    }
  }

  void load(const std::string& path, engine::Engine& engine) const override {
    const json manifest = read_manifest(path);
    const std::string bytes = read_file(fs::path(path) / "tensors.bin");
    try {
      const json& file = manifest.at("files").at(0);
      if (bytes.size() != file.at("bytes").get<std::size_t>() ||
          checksum(bytes.data(), bytes.size()) != file.at("xxh3_128").get<std::string>())
        fail(ErrorKind::checkpoint,
             "{}/tensors.bin is damaged: its size or checksum differs from the manifest. Move this folder away to "
             "resume from "
             "the checkpoint before it",
             path);
      for (const std::string& buffer : engine.buffer_names()) {
        std::vector<float> values(static_cast<std::size_t>(engine.layout().size()), 0.0F);
        for (std::size_t p = 0; p < engine.model().parameters().size(); ++p) {
          const nn::ParameterSpec& spec = engine.model().parameters()[p];
          const json& tensor = find(manifest.at("tensors"), spec.name, buffer, path);
          if (tensor.at("shape").get<std::vector<std::int64_t>>() != spec.shape)
            fail(ErrorKind::checkpoint,
                 "{}: {} has another shape there than in this model; use the job file the run was started with", path,
                 spec.name);
          const auto begin = tensor.at("begin").get<std::size_t>(), size = tensor.at("bytes").get<std::size_t>();
          if (size != static_cast<std::size_t>(spec.elements()) * sizeof(float) || begin + size > bytes.size())
            fail(ErrorKind::checkpoint, "{}/manifest.json: the range of {} is outside tensors.bin", path, spec.name);
          std::memcpy(values.data() + engine.layout().of(static_cast<nn::ParamId>(p)).begin, bytes.data() + begin,
                      size);
        }
        engine.write_buffer(buffer, values);
      }
    } catch (const json::exception& error) {
      fail(ErrorKind::checkpoint, "{}/manifest.json: {}", path, error.what());
    }
    engine.write_state(read_state(path).step);
  }

 private:
  std::string write(engine::Engine& engine, const RunState& state) {
    const fs::path final_path = folder_ / fmt::format("step-{}", state.step.attempted);
    const fs::path temporary = folder_ / fmt::format(".step-{}.partial", state.step.attempted);
    fs::remove_all(temporary);
    fs::create_directories(temporary);

    std::string bytes;
    json tensors = json::array();
    for (const std::string& buffer : engine.buffer_names()) {
      const std::vector<float> values = engine.read_buffer(buffer);
      for (std::size_t p = 0; p < engine.model().parameters().size(); ++p) {
        const nn::ParameterSpec& spec = engine.model().parameters()[p];
        const engine::FlatLayout::Slice& slice = engine.layout().of(static_cast<nn::ParamId>(p));
        const auto size = static_cast<std::size_t>(spec.elements()) * sizeof(float);
        tensors.push_back({{"name", spec.name},
                           {"kind", buffer},
                           {"shape", spec.shape},
                           {"dtype", "fp32"},
                           {"begin", bytes.size()},
                           {"bytes", size}});
        bytes.append(reinterpret_cast<const char*>(values.data() + slice.begin), size);
      }
    }
    write_file(temporary / "tensors.bin", bytes);
    const json manifest = {
        {"format_version", format_version},
        {"step_state", to_json(state.step)},
        {"sample_position", state.sample_position},
        {"seed", state.seed},
        {"train_batch_size", state.train_batch},
        {"micro_batch", state.micro_batch},
        {"world_size", state.world},
        {"threads", state.threads},
        {"isa", state.isa},
        {"job", state.job},
        {"data", state.data},
        {"files",
         {{{"name", "tensors.bin"}, {"bytes", bytes.size()}, {"xxh3_128", checksum(bytes.data(), bytes.size())}}}},
        {"tensors", tensors}};
    write_file(temporary / "manifest.json", manifest.dump(1));
    sync_path(temporary);
    fs::remove_all(final_path);
    fs::rename(temporary, final_path);
    sync_path(folder_);

    const std::vector<std::int64_t> steps = all_steps();
    for (std::size_t i = 0; i + static_cast<std::size_t>(std::max<std::int64_t>(keep_last_, 1)) < steps.size(); ++i)
      fs::remove_all(folder_ / fmt::format("step-{}", steps[i]));
    return final_path.string();
  }

  [[nodiscard]] std::vector<std::int64_t> all_steps() const {
    std::vector<std::int64_t> steps;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
      // Only what save() makes: a folder somebody called "step-40.bak" or "step-old" is theirs.
      const std::string name = entry.path().filename().string();
      std::int64_t step = 0;
      const char* end = name.data() + name.size();
      if (name.rfind("step-", 0) != 0) continue;
      const auto [stop, error] = std::from_chars(name.data() + 5, end, step);
      if (error == std::errc() && stop == end && step >= 0) steps.push_back(step);
    }
    std::sort(steps.begin(), steps.end());
    return steps;
  }

  static json read_manifest(const std::string& path) {
    const json manifest = json::parse(read_file(fs::path(path) / "manifest.json"), nullptr, false);
    if (!manifest.is_object() || !manifest.contains("format_version"))
      fail(ErrorKind::checkpoint, "{}/manifest.json is not a manifest; the checkpoint is damaged", path);
    const json& version = manifest.at("format_version");
    if (version != format_version)
      fail(ErrorKind::checkpoint, "{}: format version {}; this program reads version {}", path, version.dump(),
           format_version);
    return manifest;
  }

  static const json& find(const json& tensors, const std::string& name, const std::string& kind,
                          const std::string& path) {
    for (const json& tensor : tensors)
      if (tensor.at("name") == name && tensor.at("kind") == kind) return tensor;
    fail(ErrorKind::checkpoint, "{}: no {} of {}; the run was started with another model or optimizer", path, kind,
         name);
  }

  fs::path folder_;
  std::int64_t keep_last_;
};

}  // namespace

std::unique_ptr<CheckpointStore> make_checkpoint_store(const std::string& folder, std::int64_t keep_last) {
  return std::make_unique<FolderStore>(folder, keep_last);
}

}  // namespace lockstep::run
