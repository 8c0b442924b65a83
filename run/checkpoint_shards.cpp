#include "run/checkpoint_shards.hpp"

#include <algorithm>
#include <map>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::run {
namespace {

constexpr auto most_elements = static_cast<std::int64_t>(files::file_piece / sizeof(float));

/// "pt": whose layout it is; transformers asks for it.
std::map<std::string, std::string> metadata() { return {{"format", "pt"}}; }

/// For each parameter the rank that writes it: the largest first, each to the rank with the fewest bytes so far.
std::vector<int> weight_writers(const std::vector<nn::ParameterSpec>& specs, int world) {
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

/// visit(parameter, its first element, the one behind its last) of what lies in `own`, padding left out.
template <class Visit>
void for_own(const std::vector<nn::ParameterSpec>& specs, const engine::FlatLayout& layout,
             const engine::FlatRange& own, const Visit& visit) {
  for (std::size_t p = 0; p < specs.size(); ++p) {
    const std::int64_t start = layout.of(static_cast<nn::ParamId>(p)).begin;
    const std::int64_t begin = std::max(own.begin, start) - start;
    const std::int64_t end = std::min(own.end, start + specs[p].elements()) - start;
    if (begin < end) visit(p, begin, end);
  }
}

std::vector<std::uint64_t> unsigned_shape(const std::vector<std::int64_t>& shape) {
  return {shape.begin(), shape.end()};
}

std::int64_t elements_of(const safetensors::Tensor& tensor) {
  return static_cast<std::int64_t>(tensor.bytes() / sizeof(float));
}

}  // namespace

ShardPlan::ShardPlan(engine::Engine& engine) {
  plan_weights(engine);
  plan_moments(engine);
}

void ShardPlan::plan_weights(engine::Engine& engine) {
  const std::vector<nn::ParameterSpec>& specs = engine.model().parameters();
  const int world = engine.comm().size(), own = engine.comm().rank();
  const std::vector<int> writers = weight_writers(specs, world);
  weights_.resize(static_cast<std::size_t>(world));
  std::map<std::string, std::int64_t> begins;
  for (std::size_t p = 0; p < specs.size(); ++p) {
    begins[specs[p].name] = engine.layout().of(static_cast<nn::ParamId>(p)).begin;
    weights_[static_cast<std::size_t>(writers[p])].tensors.push_back(
        {.name = specs[p].name, .shape = unsigned_shape(specs[p].shape)});
  }
  int shards = 0, number = 0;
  for (int r = 0; r < world; ++r) {
    Weights& of = weights_[static_cast<std::size_t>(r)];
    (void)safetensors::lay_out(of.tensors, {});
    for (const safetensors::Tensor& tensor : of.tensors) of.begins.push_back(begins.at(tensor.name));
    if (of.tensors.empty()) continue;
    ++shards;
    if (r == own) number = shards;
  }
  if (number > 0)
    files_.push_back({.name = fmt::format("model-{:05}-of-{:05}.safetensors", number, shards),
                      .tensors = weights_[static_cast<std::size_t>(own)].tensors});
}

void ShardPlan::plan_moments(engine::Engine& engine) {
  const std::vector<nn::ParameterSpec>& specs = engine.model().parameters();
  std::map<std::string, Source> sources;
  std::vector<safetensors::Tensor> tensors;
  for (const std::string& buffer : engine.buffer_names()) {
    if (buffer == "master") continue;
    for (const engine::FlatRange& own : engine.own_ranges(buffer))
      for_own(specs, engine.layout(), own, [&](std::size_t p, std::int64_t begin, std::int64_t end) {
        std::string name = fmt::format("{}/{}@{}:{}", buffer, specs[p].name, begin, end);
        sources[name] = {buffer, engine.layout().of(static_cast<nn::ParamId>(p)).begin + begin};
        tensors.push_back({.name = std::move(name), .shape = {static_cast<std::uint64_t>(end - begin)}});
      });
  }
  if (tensors.empty()) return;
  (void)safetensors::lay_out(tensors, {});
  for (const safetensors::Tensor& tensor : tensors) moments_.push_back(sources.at(tensor.name));
  files_.push_back(
      {.name = fmt::format("optimizer-{:05}-of-{:05}.safetensors", engine.comm().rank() + 1, engine.comm().size()),
       .tensors = std::move(tensors),
       .moments = true});
}

std::int64_t ShardPlan::elements() const {
  std::int64_t count = 0;
  for (const File& file : files_)
    for (const safetensors::Tensor& tensor : file.tensors) count += elements_of(tensor);
  return count;
}

void ShardPlan::read(engine::Engine& engine, const Room& room, const Filled& filled) const {
  const int own = engine.comm().rank();
  struct Place {
    std::size_t tensor = 0;
    std::int64_t element = 0;
  };
  std::vector<Place> places(weights_.size());
  // A piece for each writer in turn, so that all disks are busy.
  for (bool more = true; more;) {
    more = false;
    for (std::size_t r = 0; r < weights_.size(); ++r) {
      Place& at = places[r];
      if (at.tensor == weights_[r].tensors.size()) continue;
      more = true;
      const std::int64_t elements = elements_of(weights_[r].tensors[at.tensor]);
      const std::int64_t count = std::min(most_elements, elements - at.element);
      const bool mine = std::cmp_equal(r, own);
      float* const to = mine ? room(0, count) : nullptr;
      engine.gather_range("master", weights_[r].begins[at.tensor] + at.element, count, to, static_cast<int>(r));
      if (mine) filled(0, to, count);
      at.element += count;
      if (at.element < elements) continue;
      at.element = 0;
      ++at.tensor;
    }
  }
  if (moments_.empty()) return;
  const std::size_t file = files_.size() - 1;
  for (std::size_t t = 0; t < moments_.size(); ++t) {
    const std::int64_t elements = elements_of(files_[file].tensors[t]);
    for (std::int64_t at = 0; at < elements; at += most_elements) {
      const std::int64_t count = std::min(most_elements, elements - at);
      float* const to = room(file, count);
      engine.read_range(moments_[t].buffer, moments_[t].begin + at, count, to);
      filled(file, to, count);
    }
  }
}

std::int64_t shard_elements(const std::vector<nn::ParameterSpec>& specs, const engine::FlatLayout& layout,
                            const std::vector<engine::FlatRange>& own, std::int64_t moments, int rank, int ranks) {
  const std::vector<int> writers = weight_writers(specs, ranks);
  std::int64_t count = 0;
  for (std::size_t p = 0; p < specs.size(); ++p)
    if (writers[p] == rank) count += specs[p].elements();
  for (const engine::FlatRange& range : own)
    for_own(specs, layout, range,
            [&](std::size_t, std::int64_t begin, std::int64_t end) { count += moments * (end - begin); });
  return count;
}

ShardWriter::ShardWriter(const std::string& path, engine::Engine& engine, FirstError& error, files::FileSystem& fs) {
  const ShardPlan plan(engine);
  for (const ShardPlan::File& file : plan.files())
    error.unless_failed([&] {
      shards_.push_back(
          {file.name, std::make_unique<safetensors::Writer>(path + "/" + file.name, file.tensors, metadata(), fs)});
    });
  std::vector<float> values(static_cast<std::size_t>(most_elements));
  plan.read(
      engine, [&](std::size_t, std::int64_t) { return values.data(); },
      [&](std::size_t file, const float* from, std::int64_t count) {
        error.unless_failed(
            [&] { shards_[file].writer->write(from, static_cast<std::size_t>(count) * sizeof(float)); });
      });
}

std::vector<FileEntry> ShardWriter::finish() {
  std::vector<FileEntry> entries;
  for (Shard& shard : shards_) entries.push_back({.name = shard.name, .sum = shard.writer->finish()});
  return entries;
}

ShardSnapshot::ShardSnapshot(engine::Engine& engine)
    : plan_(engine), values_(static_cast<std::size_t>(plan_.elements())) {}

void ShardSnapshot::take(engine::Engine& engine) {
  // Each file has its part of the memory, whichever is read first.
  std::vector<float*> next;
  float* begin = values_.data();
  for (const ShardPlan::File& file : plan_.files()) {
    next.push_back(begin);
    for (const safetensors::Tensor& tensor : file.tensors) begin += elements_of(tensor);
  }
  plan_.read(
      engine, [&](std::size_t file, std::int64_t) { return next[file]; },
      [&](std::size_t file, const float*, std::int64_t count) { next[file] += count; });
}

std::vector<FileEntry> ShardSnapshot::write(const std::string& path, files::FileSystem& fs,
                                            const std::function<void()>& unflushed,
                                            const std::atomic<bool>& cancelled) const {
  std::vector<std::unique_ptr<safetensors::Writer>> writers;
  const float* from = values_.data();
  for (const ShardPlan::File& file : plan_.files()) {
    writers.push_back(std::make_unique<safetensors::Writer>(path + "/" + file.name, file.tensors, metadata(), fs));
    for (const safetensors::Tensor& tensor : file.tensors)
      for (std::int64_t left = elements_of(tensor); left > 0;) {
        if (cancelled)
          fail(ErrorKind::checkpoint, "{}: was not written to its end, since the run ends", printable(path));
        const std::int64_t count = std::min(most_elements, left);
        writers.back()->write(from, static_cast<std::size_t>(count) * sizeof(float));
        from += count;
        left -= count;
      }
  }
  if (unflushed) unflushed();
  std::vector<FileEntry> entries;
  for (std::size_t f = 0; f < writers.size(); ++f)
    entries.push_back({.name = plan_.files()[f].name, .sum = writers[f]->finish()});
  return entries;
}

}  // namespace lockstep::run
