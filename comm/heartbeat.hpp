#pragma once

#include <functional>
#include <string_view>

#include "comm/communicator.hpp"

namespace lockstep::comm {

/// Work that may take longer than a collective may, such as writing a checkpoint: every rank calls this, each with its
/// own `work` (empty: nothing to do here), and it returns on all ranks when all of them are done.
///
/// `work` runs on a thread of its own while the calling thread tells the others every `period` that it is alive, so
/// the communicator's deadline holds for a sign of life and not for the work. A rank that is gone, stopped or cut off
/// ends the wait in ErrorKind::hang as anywhere else; the exception then leaves as soon as this rank's own work is
/// over. `work` must not use `comm`, and must not use a device that another thread uses at the time.
///
/// An exception of any rank's work is thrown on every rank, with its kind and text: the one of the lowest rank that
/// failed, which is named with its host if rank 0 is well. `what` ("saving step 40") names the work in messages. With
/// one rank `work` runs in the caller.
void run_with_heartbeat(Communicator& comm, std::string_view what, const std::function<void()>& work,
                        Seconds period = Seconds(1));

}  // namespace lockstep::comm
