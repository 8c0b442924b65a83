#include "run/setup.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "core/error.hpp"
#include "data/tokens.hpp"
#include "nn/convnet.hpp"
#include "nn/gpt2.hpp"
#include "nn/mlp.hpp"

namespace lockstep::run {
namespace {

std::vector<int> narrow(const std::vector<std::int64_t>& numbers) { return {numbers.begin(), numbers.end()}; }

char separator_of(const std::string& word) { return word == "tab" ? '\t' : word == "semicolon" ? ';' : ','; }

}  // namespace

data::ImageOptions image_options(const job::JobConfig& job) {
  return {.path = job.data.images.path,
          .validation_fraction = job.data.images.validation_fraction,
          .seed = static_cast<std::uint64_t>(job.run.seed)};
}

std::unique_ptr<data::Dataset> make_dataset(const job::JobConfig& job) {
  if (job.data.type == "custom")
    fail(ErrorKind::config,
         "data.type custom: the data are those of a program of your own, which lockstep itself does not have. Start "
         "that "
         "program, or name data that lockstep reads (`lockstep explain data`)");
  const auto seed = static_cast<std::uint64_t>(job.run.seed);
  if (job.data.type == "clusters") {
    const job::ClustersDataConfig& c = job.data.clusters;
    return data::make_clusters({.classes = static_cast<int>(c.classes),
                                .features = static_cast<int>(c.features),
                                .samples = c.samples,
                                .noise = c.noise,
                                .validation_fraction = c.validation_fraction,
                                .seed = seed});
  }
  if (job.data.type == "tokens") {
    const job::TokensDataConfig& t = job.data.tokens;
    using Format = data::TokenFormat;
    return data::make_tokens(
        {.path = t.path,
         .validation_path = t.validation_path.value_or(""),
         .format = t.format == "auto" ? Format::detect : (t.format == "llm.c" ? Format::llm_c : Format::bare),
         .vocab_size = static_cast<int>(t.vocab_size),
         .validation_fraction = t.validation_fraction,
         .validation_targets = t.validation_tokens,
         .length = sample_length(job),
         .seed = seed});
  }
  if (job.data.type == "images") return data::make_images(image_options(job));
  if (job.data.type == "csv") {
    const job::CsvDataConfig& c = job.data.csv;
    return data::make_csv({.path = c.path,
                           .target = c.target,
                           .features = c.features,
                           .regression = c.task == "regression",
                           .standardize = c.standardize,
                           .separator = separator_of(c.separator),
                           .validation_fraction = c.validation_fraction,
                           .seed = seed});
  }
  const job::TextDataConfig& t = job.data.text;
  return data::make_text({.path = t.path,
                          .tokenizer = t.tokenizer,
                          .vocab = t.vocab.value_or(""),
                          .merges = t.merges.value_or(""),
                          .validation_fraction = t.validation_fraction,
                          .length = sample_length(job),
                          .seed = seed});
}

data::DataShape data_shape(const job::JobConfig& job) {
  if (job.data.type == "clusters")
    return {.classes = static_cast<int>(job.data.clusters.classes),
            .features = static_cast<int>(job.data.clusters.features)};
  if (job.data.type == "tokens") return {.classes = static_cast<int>(job.data.tokens.vocab_size)};
  return make_dataset(job)->shape();
}

std::string data_fingerprint(const data::Dataset& dataset) { return fmt::format("{:016x}", dataset.fingerprint()); }

void require_same_data(const std::string& checkpoint, const std::string& trained_on, const data::Dataset& dataset) {
  const std::string now = data_fingerprint(dataset);
  if (trained_on == now) return;
  fail(ErrorKind::checkpoint,
       "{} was trained on other data (fingerprint {}) than the job has now (fingerprint {}): {}\n"
       "  Bring back the file and data.validation_fraction of then, or start a new run with --resume never",
       checkpoint, trained_on, now, dataset.describe());
}

std::unique_ptr<nn::Model> make_model(const job::JobConfig& job, int classes, int features) {
  return make_model(job, data::DataShape{.classes = classes, .features = features});
}

std::unique_ptr<nn::Model> make_model(const job::JobConfig& job, const data::DataShape& data) {
  if (job.model.type == "custom")
    fail(ErrorKind::config,
         "model.type custom: the model is that of a program of your own, which lockstep itself does not have. Start "
         "that "
         "program, or name a model that lockstep has (`lockstep explain model`)");
  if (job.model.type == "mlp")
    return nn::make_mlp({.features = data.features,
                         .hidden = narrow(job.model.mlp.hidden),
                         .classes = data.classes,
                         .regression = data.regression,
                         .dropout = job.model.mlp.dropout});
  if (job.model.type == "convnet") {
    const job::ConvnetConfig& c = job.model.convnet;
    return nn::make_convnet({.height = data.height,
                             .width = data.width,
                             .channels = data.channels,
                             .filters = narrow(c.filters),
                             .kernel = static_cast<int>(c.kernel),
                             .pool = static_cast<int>(c.pool),
                             .hidden = narrow(c.hidden),
                             .classes = data.classes,
                             .dropout = c.dropout});
  }
  const job::Gpt2Config& g = job.model.gpt2;
  const std::int64_t vocabulary = g.vocab_size.value_or(data.classes);
  if (vocabulary < data.classes)
    fail(ErrorKind::config, "model.vocab_size is {}, but the data has {} different tokens{}", vocabulary, data.classes,
         g.init_from ? "; they cannot be those of model.init_from" : "");
  return nn::make_gpt2({.n_layer = static_cast<int>(g.n_layer),
                        .n_head = static_cast<int>(g.n_head),
                        .n_embd = static_cast<int>(g.n_embd),
                        .block_size = static_cast<int>(g.block_size),
                        .vocab_size = static_cast<int>(vocabulary),
                        .embd_pdrop = g.embd_pdrop,
                        .resid_pdrop = g.resid_pdrop,
                        .recompute = g.recompute == "block"       ? nn::Recompute::block
                                     : g.recompute == "selective" ? nn::Recompute::selective
                                                                  : nn::Recompute::none,
                        .padded_vocab = 0});
}

std::int64_t sample_length(const job::JobConfig& job) {
  return job.model.type == "gpt2" ? job.model.gpt2.block_size : 1;
}

std::vector<int> assign_groups(const job::JobConfig& job, const nn::Model& model) {
  std::vector<int> group_of(model.parameters().size(), 0);
  std::vector<std::vector<bool>> used;
  for (const job::ParameterGroupConfig& group : job.parameter_groups) used.emplace_back(group.match.size(), false);
  for (std::size_t p = 0; p < group_of.size(); ++p) {
    const std::string& name = model.parameters()[p].name;
    for (std::size_t g = 0; g < job.parameter_groups.size(); ++g) {
      const std::vector<std::string>& patterns = job.parameter_groups[g].match;
      for (std::size_t i = 0; i < patterns.size(); ++i) {
        if (fnmatch(patterns[i].c_str(), name.c_str(), 0) != 0) continue;
        used[g][i] = true;
        if (group_of[p] == 0) group_of[p] = static_cast<int>(g) + 1;
      }
    }
  }
  for (std::size_t g = 0; g < used.size(); ++g)
    for (std::size_t i = 0; i < used[g].size(); ++i)
      if (!used[g][i])
        fail(ErrorKind::config,
             "parameter_groups[{}].match: '{}' matches no parameter; this model has names such as {} and {}", g,
             job.parameter_groups[g].match[i], model.parameters().front().name, model.parameters().back().name);
  return group_of;
}

DType compute_dtype(const job::JobConfig& job) {
  if (job.fp16.enabled) return DType::f16;
  return job.bf16.enabled ? DType::bf16 : DType::f32;
}

optim::OptimizerOptions optimizer_options(const job::OptimizerConfig& optimizer,
                                          const std::vector<sched::GroupInitial>& groups) {
  using Kind = optim::OptimizerOptions::Kind;
  if (optimizer.type == "SGD")
    return {
        .kind = Kind::sgd,
        .bias_correction = false,
        .momentum = std::any_of(groups.begin(), groups.end(), [](const auto& group) { return group.momentum != 0; }),
        .dampening = optimizer.sgd.dampening,
        .nesterov = optimizer.sgd.nesterov};
  if (optimizer.type == "Lion") return {.kind = Kind::lion, .bias_correction = false};
  if (optimizer.type == "Adagrad")
    return {.kind = Kind::adagrad,
            .eps = optimizer.adagrad.eps,
            .bias_correction = false,
            .initial_accumulator = optimizer.adagrad.initial_accumulator_value};
  if (optimizer.type == "Muon")
    return {.kind = Kind::muon,
            .eps = optimizer.muon.eps,
            .nesterov = optimizer.muon.nesterov,
            .ns_steps = static_cast<int>(optimizer.muon.ns_steps)};
  if (optimizer.type == "Lamb")
    return {.kind = Kind::lamb,
            .eps = optimizer.lamb.eps,
            .bias_correction = optimizer.lamb.bias_correction,
            .min_coeff = optimizer.lamb.min_coeff,
            .max_coeff = optimizer.lamb.max_coeff};
  return {.kind = Kind::adam,
          .eps = optimizer.adam.eps,
          .decoupled = optimizer.type == "AdamW" || optimizer.adam.adam_w_mode,
          .bias_correction = optimizer.adam.bias_correction};
}

job::BatchSizes batch_sizes(const job::JobConfig& job, std::int64_t world, const std::string& world_source) {
  const auto resolve = job.run.determinism == "invariant" ? job::resolve_leaves : job::resolve_batch;
  job::BatchSizes sizes = resolve(job.train_batch_size, job.train_micro_batch_size_per_gpu,
                                  job.gradient_accumulation_steps, world, world_source);
  constexpr std::int64_t most_positions = std::numeric_limits<std::int32_t>::max(), most_micro_batches = 1'000'000;
  if (sizes.micro > most_positions / sample_length(job))
    fail(ErrorKind::config,
         "a micro-batch of {} samples of length {} is more than the {} positions that a rank takes at once: {}. Give a "
         "smaller train_micro_batch_size_per_gpu",
         sizes.micro, sample_length(job), most_positions, sizes.text);
  if (sizes.accumulation > most_micro_batches)
    fail(ErrorKind::config,
         "{} micro-batches a step for each rank, at most {} are possible: {}. Give a larger "
         "train_micro_batch_size_per_gpu or a smaller train_batch_size",
         sizes.accumulation, most_micro_batches, sizes.text);
  return sizes;
}

engine::EngineOptions engine_options(const job::LoadedJob& loaded, const nn::Model& model, const job::BatchSizes& batch,
                                     int rank, bool immediate, bool one_memory) {
  const job::JobConfig& job = loaded.config;
  engine::EngineOptions options;
  options.micro_batch = {.batch = batch.micro, .length = sample_length(job)};
  options.grad_accum = static_cast<int>(batch.micro_batches_of(rank).size());
  options.leaves = batch.leaves;
  options.compute = compute_dtype(job);
  options.gradient_clipping = job.gradient_clipping;
  options.prescale_gradients = job.prescale_gradients;
  options.gradient_predivide_factor = job.gradient_predivide_factor;
  if (job.fp16.enabled) {
    const bool dynamic = job.fp16.loss_scale == 0;
    options.scaler = {
        .on_overflow = ScalerConfig::OnOverflow::scaled,
        .dynamic = dynamic ? 1 : 0,
        .initial_scale = dynamic ? std::exp2(static_cast<double>(job.fp16.initial_scale_power)) : job.fp16.loss_scale,
        .min_scale = static_cast<double>(job.fp16.min_loss_scale),
        .window = job.fp16.loss_scale_window,
        .hysteresis = job.fp16.hysteresis,
        .consecutive_hysteresis = job.fp16.consecutive_hysteresis ? 1 : 0};
  } else if (job.bf16.enabled) {
    options.scaler.on_overflow = ScalerConfig::OnOverflow::skip;
  }
  options.groups = loaded.schedule->initial();
  options.group_of = assign_groups(job, model);
  options.optimizer = optimizer_options(job.optimizer, options.groups);
  options.schedule = loaded.schedule;
  options.seed = static_cast<std::uint64_t>(job.run.seed);
  // A GPU's collectives cost more to start than their bytes: a bucket is a whole unit there.
  constexpr std::int64_t whole_units = std::int64_t{1} << 40;
  options.bucket_elements =
      job.zero_optimization.reduce_bucket_size.value_or(immediate ? options.bucket_elements : whole_units);
  options.zero_stage = static_cast<int>(job.zero_optimization.stage);
  options.one_copy = one_memory && immediate && job.comm.one_copy == "auto" && job.zero_optimization.stage < 3;
  options.wait_timeout_s = job.comm.timeout_s;
  options.tune = job.run.determinism == "fast";
  return options;
}

Capture choose_capture(const job::JobConfig& job, const DeviceApi& device) {
  if (device.immediate()) return {};
  if (job.run.cuda_graph == "off") return {.captured = false, .why_not = "run.cuda_graph: off"};
  if (job.run.determinism == "invariant")
    return {.captured = false, .why_not = "run.determinism: invariant adds micro-batches one by one"};
  if (!device.can_capture()) return {.captured = false, .why_not = device.name() + " cannot capture"};
  return {.captured = true};
}

}  // namespace lockstep::run
