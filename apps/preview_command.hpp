#pragma once

#include <string>

#include "job/job.hpp"
#include "run/preview.hpp"

namespace lockstep {

/// What `lockstep preview` says of a job: batch, bytes of a rank by part and by stage of ZeRO, bytes on the wire, the
/// time of a step with what it is known from, and the curve of the learning rate. Needs no MPI.
[[nodiscard]] std::string preview_text(const job::LoadedJob& job, const run::Preview& preview);

/// The same numbers as one JSON object, with its line end. Bytes and seconds; null for what is not known.
[[nodiscard]] std::string preview_json(const job::LoadedJob& job, const run::Preview& preview);

/// Prints one of them. `ranks` 0: comm.ranks, else one. Returns the exit code; mistakes in the job file are thrown,
/// those of data and machine told as `lockstep train` tells them.
int preview_command(const job::LoadedJob& job, std::int64_t ranks, bool json);

}  // namespace lockstep
