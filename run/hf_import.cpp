#include "run/hf_import.hpp"

#include <filesystem>

#include "core/error.hpp"
#include "core/isa.hpp"
#include "core/text.hpp"
#include "files/durable_folder.hpp"
#include "run/checkpoint_store.hpp"
#include "run/hf_model.hpp"
#include "run/job_changes.hpp"
#include "run/micro_batch.hpp"
#include "run/resume_proof.hpp"
#include "run/run_folder.hpp"
#include "run/setup.hpp"

namespace lockstep::run {
namespace {

/// Refuses a job whose model is not the folder's: a run that goes on would be another model.
void require_model_of(const std::string& folder, const job::LoadedJob& loaded, const job::LoadedJob& there,
                      const data::Dataset& dataset) {
  job::JobConfig theirs = there.config;
  theirs.model.gpt2.init_from = loaded.config.model.gpt2.init_from;
  // Without the key the data say it.
  if (!loaded.config.model.gpt2.vocab_size && theirs.model.gpt2.vocab_size == dataset.classes())
    theirs.model.gpt2.vocab_size = std::nullopt;
  std::string text;
  for (const JobChange& change : changes_between(loaded.config, theirs)) text += "\n    " + to_text(change);
  if (!text.empty())
    fail(ErrorKind::config,
         "{}: its model is not that of {}. Change in the job, or with --set, both here and for `train` (job -> "
         "folder):{}",
         loaded.path, printable(folder), text);
}

}  // namespace

std::string import_hf(const std::string& folder, const std::string& job_file, const std::vector<std::string>& overrides,
                      std::int64_t ranks, RankContext& rank) {
  job::LoadedJob loaded = job::load_job(job_file, overrides);
  const job::JobConfig& job = loaded.config;
  if (job.model.type != "gpt2")
    fail(ErrorKind::config, "{}: model.type is {}; only a gpt2 has a form in which Hugging Face keeps it", job_file,
         job.model.type);
  std::vector<std::string> with_folder = overrides;
  with_folder.push_back("model.init_from=" + std::filesystem::absolute(folder).string());
  const std::string run = run_folder(job);
  const RunLock lock(run);
  if (!files::names_in(run).empty())
    fail(ErrorKind::config, "{} exists already; give the run another name with --set run.name=NAME, or move it away",
         printable(run));
  const auto dataset = make_dataset(job);
  require_model_of(folder, loaded, job::load_job(job_file, with_folder), *dataset);

  const auto model = make_model(job, dataset->shape());
  const std::int64_t world = ranks > 0 ? ranks : job.comm.ranks;
  const std::string source = ranks > 0 ? "--ranks" : "comm.ranks";
  (void)settle_micro_batch(loaded, *model, *rank.place.kernels, *rank.place.device, static_cast<int>(world), source);
  const job::BatchSizes batch = batch_sizes(job, world, source);
  if (job.micro_batch_is_auto()) loaded.config.train_micro_batch_size_per_gpu = batch.micro;
  engine::EngineOptions options = engine_options(loaded, *model, batch, 0, rank.place.device->immediate());
  options.leaves = 0;  // no step is taken
  engine::Engine engine(*model, rank.comm, rank.place, options);
  load_hf_weights(folder, engine);

  files::make_folders(run + "/checkpoints");
  files::replace_text_file(run + "/job.yaml", job::effective_yaml(job));
  const CheckpointStore store({.folder = run + "/checkpoints", .run_id = lock.run_id()});
  const Saved saved = store.save(engine, {.step = engine.read_state(),
                                          .sample_position = 0,
                                          .seed = options.seed,
                                          .train_batch = batch.train,
                                          .micro_batch = batch.micro,
                                          .world = 1,
                                          .threads = rank.place.threads,
                                          .isa = isa_for_bits(engine.multiplies_bf16()),
                                          .job = job::effective_yaml(job),
                                          .metric = engine.metric_state(),
                                          .data = data_fingerprint(*dataset),
                                          .next_loss = next_loss(engine, *dataset, 0, batch.train)});
  if (!saved.trouble.empty()) throw files::DiskTrouble(saved.trouble);
  return fmt::format("{}: {} from {}\n", printable(saved.path), model->describe(), printable(folder));
}

}  // namespace lockstep::run
