#pragma once

// The one list of kernels. A kernel `x` is a folder kernels/x, where
//
//   - x.hpp has struct XArgs (a POD: pointers, sizes, options) and kernels::x(exec, args), which checks and dispatches;
//   - x_reference.cpp has reference::x: plain loops that accumulate in double, the definition of right;
//   - x_cpu.cpp is compiled once per instruction set, into cpu_baseline::x, cpu_avx2::x and cpu_avx512::x;
//   - x.cu is compiled twice: into emu::x by g++ with the SIMT emulator, into cuda::x by nvcc. Where a GPU has a
//     library for it, cuda::x is in x_cuda.cpp, which is compiled into the module alone, and emu::x is the reference in
//     stream order (x_emu.cpp); x.cu then has what the library does not do, under names of its own.
//
// Adding a kernel is adding its line here and its folder.
#define LOCKSTEP_KERNELS(K)                             \
  K(adam, AdamArgs)                                     \
  K(sgd, SgdArgs)                                       \
  K(lion, LionArgs)                                     \
  K(adagrad, AdagradArgs)                               \
  K(lamb, LambArgs)                                     \
  K(muon_direction, MuonDirectionArgs)                  \
  K(muon_normalize, MuonNormalizeArgs)                  \
  K(muon_polynomial, MuonPolynomialArgs)                \
  K(muon_apply, MuonApplyArgs)                          \
  K(grad_leaf_sums, GradLeafSumsArgs)                   \
  K(grad_norm, GradNormArgs)                            \
  K(decide, DecideArgs)                                 \
  K(cast, CastArgs)                                     \
  K(axpy, AxpyArgs)                                     \
  K(scale, ScaleArgs)                                   \
  K(ordered_sum, OrderedSumArgs)                        \
  K(layernorm_forward, LayernormForwardArgs)            \
  K(layernorm_backward, LayernormBackwardArgs)          \
  K(gelu_forward, GeluForwardArgs)                      \
  K(gelu_backward, GeluBackwardArgs)                    \
  K(embedding_forward, EmbeddingForwardArgs)            \
  K(embedding_backward, EmbeddingBackwardArgs)          \
  K(cross_entropy, CrossEntropyArgs)                    \
  K(accuracy, AccuracyArgs)                             \
  K(matmul, MatmulArgs)                                 \
  K(bias_grad, BiasGradArgs)                            \
  K(attention_forward, AttentionForwardArgs)            \
  K(attention_backward, AttentionBackwardArgs)          \
  K(convolution_forward, ConvolutionForwardArgs)        \
  K(convolution_input_grad, ConvolutionInputGradArgs)   \
  K(convolution_weight_grad, ConvolutionWeightGradArgs) \
  K(relu_pool_forward, ReluPoolForwardArgs)             \
  K(relu_pool_backward, ReluPoolBackwardArgs)           \
  K(dropout, DropoutArgs)                               \
  K(squared_error, SquaredErrorArgs)

// Those of them that get memory to work in: XArgs has `void* scratch`, of kernels::scratch_bytes(exec, args) bytes. How
// much is the implementation's choice, and so are the blocks that it works in; beside each x of the namespaces above
// stands x_scratch. The reference implementations need none.
#define LOCKSTEP_KERNELS_WITH_SCRATCH(K)              \
  K(layernorm_backward, LayernormBackwardArgs)        \
  K(gelu_backward, GeluBackwardArgs)                  \
  K(embedding_backward, EmbeddingBackwardArgs)        \
  K(bias_grad, BiasGradArgs)                          \
  K(attention_backward, AttentionBackwardArgs)        \
  K(convolution_forward, ConvolutionForwardArgs)      \
  K(convolution_input_grad, ConvolutionInputGradArgs) \
  K(convolution_weight_grad, ConvolutionWeightGradArgs)

#include "core/isa.hpp"
#include "kernels/accuracy/accuracy.hpp"
#include "kernels/adagrad/adagrad.hpp"
#include "kernels/adam/adam.hpp"
#include "kernels/attention/attention.hpp"
#include "kernels/bias_grad/bias_grad.hpp"
#include "kernels/convolution/convolution.hpp"
#include "kernels/cross_entropy/cross_entropy.hpp"
#include "kernels/decide/decide.hpp"
#include "kernels/dropout/dropout.hpp"
#include "kernels/elementwise/elementwise.hpp"
#include "kernels/embedding/embedding.hpp"
#include "kernels/exec.hpp"
#include "kernels/gelu/gelu.hpp"
#include "kernels/grad_norm/grad_norm.hpp"
#include "kernels/lamb/lamb.hpp"
#include "kernels/layernorm/layernorm.hpp"
#include "kernels/lion/lion.hpp"
#include "kernels/matmul/matmul.hpp"
#include "kernels/muon/muon.hpp"
#include "kernels/relu_pool/relu_pool.hpp"
#include "kernels/sgd/sgd.hpp"
#include "kernels/squared_error/squared_error.hpp"

namespace lockstep {

/// One implementation of every kernel. Crosses the boundary to the CUDA module, so: plain function pointers only.
struct KernelTable {
  const char* name;
  void* (*create_context)(DeviceApi* device);
  void (*destroy_context)(void* context);
  std::size_t context_bytes;  ///< that create_context allocates on the device
#define LOCKSTEP_ENTRY(kernel, Args) Status (*kernel)(const Exec&, const Args&);
  LOCKSTEP_KERNELS(LOCKSTEP_ENTRY)
#undef LOCKSTEP_ENTRY
  /// Bytes of scratch: a function of the sizes and the dtype alone, so that it can be asked before there is any memory.
#define LOCKSTEP_ENTRY(kernel, Args) std::size_t (*kernel##_scratch)(const Args&) noexcept;
  LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_ENTRY)
#undef LOCKSTEP_ENTRY
};

namespace kernels {

[[nodiscard]] const KernelTable& reference_table();
/// The table of current_isa().
[[nodiscard]] const KernelTable& cpu_table();
/// The table of one instruction set, which the CPU must have.
[[nodiscard]] const KernelTable& cpu_table(Isa isa);
/// Our own .cu sources under the SIMT emulator; matmul and attention are reference calls in stream order.
[[nodiscard]] const KernelTable& emulated_table();

/// Bytes of args.scratch for a run of the kernel on exec.table. Only the table of `exec` and the sizes and dtype of
/// `args` are read: a plan asks before there are pointers.
#define LOCKSTEP_SCRATCH_BYTES(kernel, Args)                                           \
  [[nodiscard]] inline std::size_t scratch_bytes(const Exec& exec, const Args& args) { \
    return exec.table->kernel##_scratch(args);                                         \
  }
LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_SCRATCH_BYTES)
#undef LOCKSTEP_SCRATCH_BYTES
/// Whether `args` bring the scratch that their kernel needs.
template <class Args>
[[nodiscard]] bool has_scratch(const Exec& exec, const Args& args) {
  return args.scratch != nullptr || scratch_bytes(exec, args) == 0;
}

/// Owns a table's context for one rank.
class Context {
 public:
  Context(const KernelTable& table, DeviceApi& device)
      : table_(table), context_(table.create_context != nullptr ? table.create_context(&device) : nullptr) {}
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() {
    if (table_.destroy_context != nullptr) table_.destroy_context(context_);
  }
  [[nodiscard]] void* get() const { return context_; }

 private:
  const KernelTable& table_;
  void* context_;
};

}  // namespace kernels
}  // namespace lockstep
