#pragma once

#include <memory>

#include "data/dataset.hpp"
#include "engine/engine.hpp"
#include "job/batch.hpp"
#include "job/job.hpp"
#include "nn/model.hpp"

namespace lockstep::run {

// From a job file's words to the objects of the layers below.

[[nodiscard]] std::unique_ptr<data::Dataset> make_dataset(const job::JobConfig& job);
/// What a model must fit: without reading the data, where the job says it.
[[nodiscard]] data::DataShape data_shape(const job::JobConfig& job);
[[nodiscard]] data::ImageOptions image_options(const job::JobConfig& job);
/// The data set's fingerprint as it stands in a checkpoint.
[[nodiscard]] std::string data_fingerprint(const data::Dataset& dataset);
/// ErrorKind::checkpoint if a checkpoint was trained on other data than `dataset`.
void require_same_data(const std::string& checkpoint, const std::string& trained_on, const data::Dataset& dataset);
[[nodiscard]] std::unique_ptr<nn::Model> make_model(const job::JobConfig& job, const data::DataShape& data);
/// The same where all that a model need know is how many classes and features there are.
[[nodiscard]] std::unique_ptr<nn::Model> make_model(const job::JobConfig& job, int classes, int features);
/// Positions a sample: the model's context for text, else 1.
[[nodiscard]] std::int64_t sample_length(const job::JobConfig& job);
/// Group of each parameter: the first pattern that matches its full name. ErrorKind::config for a pattern that
/// matches nothing.
[[nodiscard]] std::vector<int> assign_groups(const job::JobConfig& job, const nn::Model& model);
[[nodiscard]] DType compute_dtype(const job::JobConfig& job);
/// `groups`: values of all parameter groups; SGD keeps a momentum buffer if one of them has momentum.
[[nodiscard]] optim::OptimizerOptions optimizer_options(const job::OptimizerConfig& optimizer,
                                                        const std::vector<sched::GroupInitial>& groups);
/// How a step's samples are divided over `world` ranks, whose number comes from `world_source`. ErrorKind::config for
/// what no rank could hold or count, whatever its memory.
[[nodiscard]] job::BatchSizes batch_sizes(const job::JobConfig& job, std::int64_t world,
                                          const std::string& world_source);
/// Of one rank, whose device does its work at once (a CPU) or not. `one_memory`: all ranks reach each other's memory.
[[nodiscard]] engine::EngineOptions engine_options(const job::LoadedJob& loaded, const nn::Model& model,
                                                   const job::BatchSizes& batch, int rank, bool immediate = true,
                                                   bool one_memory = false);
/// Whether a step's work is to be captured (run.cuda_graph) with these options on this device; if not, why: empty on
/// CPUs, where there is nothing to capture.
struct Capture {
  bool captured = false;
  std::string why_not = {};
};
[[nodiscard]] Capture choose_capture(const job::JobConfig& job, const DeviceApi& device);

}  // namespace lockstep::run
