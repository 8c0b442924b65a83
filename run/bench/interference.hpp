#pragma once

namespace lockstep::run::bench {

/// Seconds that threads of this process have been ready to run while their CPU ran something else, all threads and the
/// time since the start taken together: what a busy machine takes away from a measurement. Where the kernel does not
/// say (no /proc/self/task/*/schedstat), a few milliseconds for each involuntary switch.
[[nodiscard]] double seconds_kept_waiting();

}  // namespace lockstep::run::bench
