#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "engine/engine.hpp"
#include "job/job.hpp"
#include "run/errors.hpp"

namespace lockstep::run {

// What must be equal on all ranks is compared before it can do harm. Ranks that train different things would go on
// for days: gradients of one shape add up whatever they are gradients of.

/// What one rank is about to do: "key: value" lines that must be the same on every rank.
///
/// All keys of the effective job, and the program's version. Some keys may differ: run.threads, since hosts differ, and
/// data.path and data.validation_path, since the data themselves are compared.
[[nodiscard]] std::string statement_of(const job::JobConfig& job, const std::vector<std::string>& options);

/// Collective. Nothing if every rank states the same; else ErrorKind::desync with each key that differs, the rank and
/// both values, the same on every rank.
[[nodiscard]] std::optional<Failure> compare_statements(comm::Communicator& control, const std::string& own);

/// Collective: ranks of which some took a GPU and some the CPU would train at the pace of the slower, in numbers that
/// differ. ErrorKind::environment with a rank of each, the same on every rank; nothing if all took the same kind.
/// `text` names what this rank took, `memory` is the device's, `hosts` are by rank.
[[nodiscard]] std::optional<Failure> compare_places(comm::Communicator& control, const std::string& text, Memory memory,
                                                    const std::vector<std::string>& hosts);

/// Collective: parameters must be equal after initialisation or loading. ErrorKind::desync on every rank, naming the
/// rank and the first parameter that differs.
void require_equal_parameters(comm::Communicator& comm, engine::Engine& engine);

}  // namespace lockstep::run
