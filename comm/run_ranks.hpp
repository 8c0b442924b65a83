#pragma once

#include <functional>
#include <memory>

#include "comm/local.hpp"

namespace lockstep::comm {

/// Runs body(communicator) on `ranks` threads, one a rank, and returns when all are done.
///
/// A rank that throws ends the others (their waits fail). The first exception is thrown here; those that only report
/// another rank's end (AbortedByPeer) count last. The body's buffers: see make_local. options.device is the same object
/// for all ranks and so only right for one rank or for none; the form below makes one for each.
void run_ranks(int ranks, const std::function<void(Communicator&)>& body, const LocalOptions& options = {});

/// The same with body(group, rank), which makes what its rank needs, then its communicator (make_local, run_as_rank).
void run_rank_threads(int ranks, const std::function<void(const std::shared_ptr<LocalGroup>&, int)>& body);

/// For such a body: makes the rank's communicator and runs body(communicator). The others hear the reason of an
/// exception, and not just that this rank is gone.
void run_as_rank(const std::shared_ptr<LocalGroup>& group, int rank, const LocalOptions& options,
                 const std::function<void(Communicator&)>& body);

}  // namespace lockstep::comm
