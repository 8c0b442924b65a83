#include "kernels/declare.hpp"
#include "kernels/emu/emu_device.hpp"

// On a device this is a vendor library's; under the emulator it is the reference in stream order.
namespace lockstep::kernels::emu {

void matmul(const Exec& exec, const MatmulArgs& args) {
  run_in_stream_order(exec, [exec, args] { reference::matmul(exec, args); });
}

}  // namespace lockstep::kernels::emu
