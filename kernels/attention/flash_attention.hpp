#pragma once

// Our own attention on a GPU, which needs no library: what the CUDA module computes with where cuDNN cannot be opened
// or does not take the sizes. Under the emulator the tests run it beside the table's reference.

#include "kernels/attention/attention.hpp"

#define LOCKSTEP_DECLARE_FLASH_ATTENTION                                              \
  void flash_attention_forward(const Exec& exec, const AttentionForwardArgs& args);   \
  void flash_attention_backward(const Exec& exec, const AttentionBackwardArgs& args); \
  std::size_t flash_attention_backward_scratch(const AttentionBackwardArgs& args) noexcept;

namespace lockstep::kernels {

/// Heads are at most so wide.
inline constexpr std::int64_t flash_attention_widest_head = 128;
/// Throws unless its launches, of `tiles` blocks a head, can be made: ErrorKind::config, with what to change.
void check_flash_attention(std::int64_t batch, std::int64_t heads, std::int64_t length, std::int64_t head_size,
                           std::int64_t tiles);

namespace emu {
LOCKSTEP_DECLARE_FLASH_ATTENTION
}
namespace cuda {
LOCKSTEP_DECLARE_FLASH_ATTENTION
}

}  // namespace lockstep::kernels
#undef LOCKSTEP_DECLARE_FLASH_ATTENTION
