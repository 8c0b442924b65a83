#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/exec.hpp"

namespace lockstep {

/// A device for tests, in host memory: streams whose work is put off and then runs in a random permitted order, so
/// that a missing event wait, a host buffer that is reused too early or a read before a synchronisation gives a wrong
/// answer under some seed. Kernels run under the SIMT emulator (simt_emu.hpp).
///
/// Nothing runs when it is enqueued. synchronize() runs, in random order, work that is permitted until the event or
/// stream is finished; done() runs at most one piece of work, so that polling ends. A task given to call_host may block
/// until another rank's thread does its part: it runs only when what is waited for depends on it, and such tasks run in
/// the order in which they were enqueued.
/// It can capture the work of one stream; no other stream can join the capture. What a GPU refuses during one
/// (allocation, synchronisation, questions, waits across its edge) is an error here too.
/// One device a rank, used by that rank's thread. Memory given back while work is pending is freed once none is.
class EmuDevice : public DeviceApi {
 public:
  /// Puts any work in stream order; the null stream is a stream of its own.
  virtual void enqueue(StreamRef stream, std::function<void()> work) = 0;
};

/// @param seed picks the order among the permitted ones
[[nodiscard]] std::unique_ptr<DeviceApi> make_emulated_device(std::uint64_t seed);

namespace kernels {
/// Runs `work` at once, or in stream order if the device of `exec` is an EmuDevice. Everything that `work` needs must
/// be in it by value, except memory of the device.
void run_in_stream_order(const Exec& exec, std::function<void()> work);
}  // namespace kernels

}  // namespace lockstep
