#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "core/failure.hpp"

namespace lockstep::run {

// How a job with several ranks tells of its end: once, by rank 0, if all ranks met the same; else each different text
// with the rank and the host that met it. No rank guesses from the kind of an error whether the others have it too:
// they exchange what they have, on a communicator that nothing else uses.
//
// Some errors leave nobody to exchange with, and whoever meets one tells it, with rank and host: a peer that hangs,
// ranks that disagree, an error that only some ranks met (the others do not come to the exchange, which has a
// deadline), and whatever goes wrong before MPI is up.

/// Collective: every rank says what ended it, if anything did. Nothing if all are well; else one Failure to be told by
/// rank 0: the common text, or every different one with rank and host, and the kind of the lowest rank that failed. The
/// same on every rank. `hosts` by rank.
[[nodiscard]] std::optional<Failure> gather_failures(comm::Communicator& control, const std::optional<Failure>& own,
                                                     const std::vector<std::string>& hosts);

/// On standard error: "lockstep: checkpoint error: ...".
void print_failure(const Failure& failure);

}  // namespace lockstep::run
