#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "run/launch.hpp"

namespace lockstep::run {

/// Makes a run of `job_file`, with `overrides` as --set, that begins with the weights of a Hugging Face GPT-2 in
/// `folder` (load_hf_weights): its folder with job.yaml and checkpoints/step-0, moments 0, from which `train` goes on
/// and `generate` writes. For `ranks` ranks where the job leaves a micro-batch to their number; 0: comm.ranks. On one
/// rank. Returns what was made, for people.
///
/// ErrorKind::config if the job's model is another one than the folder's, with the keys that differ, or if the run has
/// a folder already; ErrorKind::checkpoint as load_hf_weights.
[[nodiscard]] std::string import_hf(const std::string& folder, const std::string& job_file,
                                    const std::vector<std::string>& overrides, std::int64_t ranks, RankContext& rank);

}  // namespace lockstep::run
