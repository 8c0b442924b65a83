#include "kernels/embedding/embedding.hpp"

#include "core/error.hpp"
#include "kernels/element.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {
namespace {

/// Where the host can read the tokens. (Device kernels give NaN for a token outside instead of reading out of bounds.)
void check_tokens(const Exec& exec, const std::int32_t* tokens, std::int64_t count, std::int64_t vocabulary) {
  if (exec.device == nullptr || exec.device->memory() != Memory::host) return;
  for (std::int64_t i = 0; i < count; ++i)
    if (tokens[i] < 0 || tokens[i] >= vocabulary)
      fail(ErrorKind::data, "token {} at position {} is outside the vocabulary of {}: the data and the model disagree",
           tokens[i], i, vocabulary);
}

}  // namespace

void embedding_forward(const Exec& exec, const EmbeddingForwardArgs& args) {
  require(is_compute_dtype(args.dtype), "embedding_forward: dtype must be f32, bf16 or f16");
  require(args.batch >= 0 && args.length >= 0 && args.cols >= 0, "embedding_forward: sizes must be >= 0");
  if (args.batch * args.length * args.cols == 0) return;
  require(args.tokens != nullptr && args.wte != nullptr && args.y != nullptr,
          "embedding_forward: tokens, wte and y are needed");
  check_tokens(exec, args.tokens, args.batch * args.length, args.vocabulary);
  check(exec.table->embedding_forward(exec, args));
}

void embedding_backward(const Exec& exec, const EmbeddingBackwardArgs& args) {
  require(is_compute_dtype(args.dtype), "embedding_backward: dtype must be f32, bf16 or f16");
  require(args.batch >= 0 && args.length >= 0 && args.cols >= 0, "embedding_backward: sizes must be >= 0");
  require(args.batch * args.length < (std::int64_t{1} << 31), "embedding_backward: more than 2^31 - 1 positions");
  require(args.wte_rows >= args.vocabulary, "embedding_backward: dwte has fewer rows than the vocabulary");
  require(args.dwpe == nullptr || args.wpe_rows >= args.length, "embedding_backward: dwpe has fewer rows than length");
  if (args.cols == 0) return;
  require(args.dwte != nullptr && has_scratch(exec, args), "embedding_backward: dwte and scratch are needed");
  require(args.batch * args.length == 0 || (args.tokens != nullptr && args.dy != nullptr),
          "embedding_backward: tokens and dy are needed");
  check_tokens(exec, args.tokens, args.batch * args.length, args.vocabulary);
  check(exec.table->embedding_backward(exec, args));
}

}  // namespace lockstep::kernels
