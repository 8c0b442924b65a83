#pragma once

#include "config/schema.hpp"

namespace lockstep::job {

/// The description of every key of a job file: what the reader, `lockstep explain`, the reference page and the JSON
/// Schema are made from.
[[nodiscard]] const config::Section& job_section();

/// Part of it: what people write by mistake, and what to write instead.
void add_advice(config::Section& root);

}  // namespace lockstep::job
