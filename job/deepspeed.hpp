#pragma once

#include "config/document.hpp"
#include "job/job.hpp"

namespace lockstep::job {

/// Takes a DeepSpeed file's tree apart: removes keys that have no effect here (told in the report), keys set to
/// "auto" and keys that begin with '_', and reports an error for each key that asks for something this engine does
/// not do, and for each unknown key. What stays are `engine_keys`, the keys that a job file has too, whose values are
/// still to be checked.
void filter_deepspeed(config::Node& root, const std::vector<std::string>& engine_keys, DeepSpeedReport& report,
                      config::Diagnostics& diagnostics);

/// In a job file, DeepSpeed keys without effect are errors that say so, in place of "unknown key".
void refuse_deepspeed_keys(config::Node& root, config::Diagnostics& diagnostics);

/// `zero_optimization: true | false`, the old form, becomes {stage: 1 | 0}.
void expand_zero_flag(config::Node& root);

}  // namespace lockstep::job
