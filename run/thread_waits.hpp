#pragma once

namespace lockstep::run {

/// Lets waiting OpenMP threads look for their work for a moment and then sleep. Call it first in main: libgomp reads
/// its settings when it is loaded, so the program sets the variable and starts itself anew, once. A user's
/// OMP_WAIT_POLICY or GOMP_SPINCOUNT is kept.
///
/// By default libgomp's threads look for about 12 ms, longer than the scheduler's time slice. Where another process
/// wants a CPU, a thread that waits holds the one that its late sibling could run on, and a step takes several times as
/// long. Threads that always sleep pay some 60 microseconds for every parallel loop, of which a step has hundreds.
/// bench/threads/waiting.sh measures both sides.
///
/// If the program cannot be started anew (its file was replaced), it goes on with libgomp's default.
void bound_thread_waits(char** arguments);

}  // namespace lockstep::run
