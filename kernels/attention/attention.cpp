#include "kernels/attention/attention.hpp"

#include "core/error.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {
namespace {

template <class Args>
bool check_common(const Exec& exec, const Args& args) {
  require(exec.table != nullptr && exec.threads >= 1, "attention: exec has no kernel table or fewer than 1 thread");
  require(args.batch >= 0 && args.length >= 0 && args.heads >= 0 && args.head_size >= 1,
          "attention: a size is negative, or head_size is 0");
  require(args.dtype == DType::f32 || args.dtype == DType::bf16 || args.dtype == DType::f16,
          "attention: dtype must be f32, bf16 or f16");
  return args.batch > 0 && args.length > 0 && args.heads > 0;
}

}  // namespace

void attention_forward(const Exec& exec, const AttentionForwardArgs& args) {
  if (!check_common(exec, args)) return;
  require(args.qkv != nullptr && args.y != nullptr && args.lse != nullptr, "attention_forward: a buffer is null");
  check(exec.table->attention_forward(exec, args));
}

void attention_backward(const Exec& exec, const AttentionBackwardArgs& args) {
  if (!check_common(exec, args)) return;
  require(args.dy != nullptr && args.qkv != nullptr && args.y != nullptr && args.lse != nullptr &&
              args.dqkv != nullptr && has_scratch(exec, args),
          "attention_backward: a buffer is null");
  require(args.dqkv != args.qkv, "attention_backward: dqkv must not overlap qkv");
  check(exec.table->attention_backward(exec, args));
}

}  // namespace lockstep::kernels
