#include <algorithm>

#include "kernels/attention/cudnn_attention.hpp"
#include "kernels/attention/flash_attention.hpp"
#include "kernels/cuda/cuda_context.hpp"
#include "kernels/declare.hpp"

// cuDNN's where it can be opened and takes the sizes, our own else.
namespace lockstep::kernels::cuda {

void attention_forward(const Exec& exec, const AttentionForwardArgs& args) {
  CudnnAttention* cudnn = cuda_context(exec).attention();
  if (cudnn != nullptr && cudnn->forward(exec, args)) return;
  flash_attention_forward(exec, args);
}

std::size_t attention_backward_scratch(const AttentionBackwardArgs& args) noexcept {
  return std::max(flash_attention_backward_scratch(args), cudnn_backward_bytes(args));
}

void attention_backward(const Exec& exec, const AttentionBackwardArgs& args) {
  CudnnAttention* cudnn = cuda_context(exec).attention();
  if (cudnn != nullptr && cudnn->backward(exec, args, attention_backward_scratch(args))) return;
  flash_attention_backward(exec, args);
}

}  // namespace lockstep::kernels::cuda
