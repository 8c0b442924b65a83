#include "kernels/attention/flash_attention.hpp"

#include "core/error.hpp"

namespace lockstep::kernels {

void check_flash_attention(std::int64_t batch, std::int64_t heads, std::int64_t length, std::int64_t head_size,
                           std::int64_t tiles) {
  constexpr std::int64_t most = 0x7fffffff;  // blocks of a launch, and what the kernels count in ints
  if (head_size > flash_attention_widest_head)
    fail(ErrorKind::config,
         "attention on a GPU without cuDNN takes heads of at most {} columns, and these have {}: set a larger "
         "model.n_head, make cuDNN 9 available, or use device: cpu",
         flash_attention_widest_head, head_size);
  if (length > most || batch > most / heads || batch * heads > most / tiles)
    fail(ErrorKind::config,
         "attention on a GPU: {} sequences of {} tokens with {} heads are more than one launch takes: use a smaller "
         "micro-batch",
         batch, length, heads);
}

}  // namespace lockstep::kernels
