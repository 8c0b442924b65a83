#pragma once

#include <memory>

#include "comm/communicator.hpp"

namespace lockstep::comm {

/// Collectives on the memory of `device`, by way of the host: a buffer is copied to host memory, goes through `host`, a
/// communicator of host memory, and is copied back. Slow, and it waits for the device: what remains where no library
/// moves device memory itself, and what shows that a result is right where one does.
///
/// Sums are those of `host`. Collectives on host memory go to it as well, behind those on device memory that were
/// started before: all of them keep the order in which they were started, which is the same on every rank. wait()
/// blocks until the device has produced what the collective needs and the other ranks have answered, then orders
/// `stream` behind the copy back. Nothing moves unless progress(), test() or wait() is called.
///
/// Both must outlive the result; `device` has memory of its own.
[[nodiscard]] std::unique_ptr<Communicator> make_staged(Communicator& host, DeviceApi& device);

}  // namespace lockstep::comm
