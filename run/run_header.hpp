#pragma once

#include <string>

#include "data/dataset.hpp"
#include "engine/engine.hpp"
#include "job/batch.hpp"
#include "job/job.hpp"
#include "run/launch.hpp"
#include "run/resume.hpp"
#include "run/setup.hpp"

namespace lockstep::run {

/// What a run is made of, when it begins.
struct RunParts {
  const job::LoadedJob& job;
  const RankContext& rank;
  const data::Dataset& dataset;
  const job::BatchSizes& batch;
  engine::Engine& engine;
  const Beginning& beginning;
  Capture capture = {};
};

/// The lines that a run begins with on standard output, behind the memory line (run/memory.hpp): model, data, ranks,
/// batch, numbers, schedule, and from where it goes on. Warnings about the job are not among them: whoever read its
/// file has told them, with their places.
void print_run_header(const RunParts& parts);

/// Instead of them, when nothing is left to do; also where the job differs from the one that was run.
void print_complete(const Beginning& beginning, const job::JobConfig& job);

}  // namespace lockstep::run
