#include "kernels/declare.hpp"
#include "kernels/emu/emu_device.hpp"

// On a device this is a vendor library's; under the emulator it is the reference in stream order.
namespace lockstep::kernels::emu {

void attention_forward(const Exec& exec, const AttentionForwardArgs& args) {
  run_in_stream_order(exec, [exec, args] { reference::attention_forward(exec, args); });
}

std::size_t attention_backward_scratch(const AttentionBackwardArgs& /*args*/) noexcept { return 0; }

void attention_backward(const Exec& exec, const AttentionBackwardArgs& args) {
  run_in_stream_order(exec, [exec, args] { reference::attention_backward(exec, args); });
}

}  // namespace lockstep::kernels::emu
