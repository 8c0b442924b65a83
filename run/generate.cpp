#include "run/generate.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "comm/communicator.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "core/rng.hpp"
#include "core/text.hpp"
#include "run/checkpoint_store.hpp"
#include "run/setup.hpp"

namespace lockstep::run {
namespace {

/// Draws from softmax(logits / temperature), restricted to the top_k likeliest.
std::int32_t draw(const std::vector<float>& logits, const GenerateOptions& options, std::uint64_t position) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  if (options.temperature <= 0) return order.front();
  if (options.top_k > 0 && static_cast<std::size_t>(options.top_k) < order.size())
    order.resize(static_cast<std::size_t>(options.top_k));
  const double top = logits[static_cast<std::size_t>(order.front())];
  std::vector<double> weights;
  for (const std::int32_t c : order)
    weights.push_back(std::exp((static_cast<double>(logits[static_cast<std::size_t>(c)]) - top) / options.temperature));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double target = uniform_from(random_at(options.seed, RngStream::sampling, 0, position).word[0]) * total;
  for (std::size_t i = 0; i < order.size(); ++i) {
    target -= weights[i];
    if (target <= 0) return order[i];
  }
  return order.back();
}

}  // namespace

void generate(const std::string& run_folder, const GenerateOptions& options, RankContext& rank,
              const std::function<void(const std::string&)>& emit) {
  const job::LoadedJob loaded = job::load_job(run_folder + "/job.yaml");
  const job::JobConfig& job = loaded.config;
  if (job.model.type != "gpt2")
    fail(ErrorKind::config, "generate: {} trained a {}; only language models generate text", run_folder,
         job.model.type);
  const Newest newest = newest_checkpoint(run_folder + "/checkpoints");
  for (const std::string& damage : newest.passed_over) log::warning("{}", damage);
  if (!newest.path) fail(ErrorKind::checkpoint, "generate: no checkpoint in {}/checkpoints yet", printable(run_folder));

  const auto dataset = make_dataset(job);
  require_same_data(*newest.path, newest.manifest.state.data, *dataset);
  const auto model = make_model(job, dataset->classes(), 0);
  engine::EngineOptions engine_setup =
      engine_options(loaded, *model, {.train = 1, .micro = 1, .accumulation = 1, .world = 1, .text = ""}, 0,
                     rank.place.device->immediate());
  // One rank generates, however many were started: what an engine makes together with others, it makes alone.
  const auto alone = comm::make_single(rank.place.device);
  engine::Engine engine(*model, *alone, rank.place, engine_setup);
  load_checkpoint(*newest.path, newest.manifest, engine);

  std::vector<std::int32_t> tokens = dataset->encode(options.prompt);
  if (tokens.empty()) tokens = dataset->encode("\n");
  const auto context = static_cast<std::size_t>(sample_length(job));
  for (std::int64_t i = 0; i < options.tokens; ++i) {
    const std::size_t length = std::min(tokens.size(), context);
    data::HostBatch batch;
    batch.batch = 1;
    batch.length = static_cast<std::int64_t>(length);
    batch.tokens.assign(tokens.end() - static_cast<std::ptrdiff_t>(length), tokens.end());
    const std::int32_t next = draw(engine.last_logits(batch), options, static_cast<std::uint64_t>(i));
    tokens.push_back(next);
    emit(dataset->decode({next}));
  }
}

}  // namespace lockstep::run
