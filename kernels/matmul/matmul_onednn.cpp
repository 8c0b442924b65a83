#include "kernels/matmul/matmul_onednn.hpp"

#include <omp.h>

#include <cstdlib>
#include <memory>
#include <unordered_map>

#include "core/error.hpp"
#include "core/isa.hpp"
#include "kernels/matmul/onednn_context.hpp"

namespace lockstep::kernels {
namespace {

/// oneDNN asks OpenMP how many threads the calling thread may use.
class ThreadLimit {
 public:
  explicit ThreadLimit(int threads) : before_(omp_get_max_threads()) {
    if (threads != before_) omp_set_num_threads(threads);
  }
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;
  ~ThreadLimit() { omp_set_num_threads(before_); }

 private:
  int before_;
};

}  // namespace

void onednn_sgemm(const Sgemm& args, int threads) {
  const ThreadLimit limit(threads);
  check_onednn(dnnl_sgemm(args.transpose_a ? 'T' : 'N', args.transpose_b ? 'T' : 'N', args.m, args.n, args.k, 1.0F,
                          args.a, args.lda, args.b, args.ldb, args.beta, args.c, args.ldc),
               "dnnl_sgemm");
}

bool onednn_matmul_bf16(const Exec& exec, const MatmulArgs& args) {
  static const bool tiles = has_amx_bf16();
  if (!tiles) return false;
  // A caller without a context (a unit test) gets no packed weights: their life would outlast its buffers.
  thread_local OnednnContext fallback;
  OnednnContext& context = exec.context != nullptr ? *static_cast<OnednnContext*>(exec.context) : fallback;
  MatmulArgs call = args;
  if (exec.context == nullptr) call.b_version = 0;

  const ThreadLimit limit(exec.threads);
  try {
    OnednnContext::Product* product = &context.product(call, exec.threads);
    if (!product->supported) return false;
    dnnl::memory b = product->b;
    if (product->packed_b) {
      b = context.packed_weight(call, *product);
      if (b.get(true) == nullptr) {
        call.b_version = 0;
        product = &context.product(call, exec.threads);
        if (!product->supported) return false;
        b = product->b;
      }
    }
    if (!product->packed_b) b.set_data_handle(const_cast<void*>(call.b));
    product->a.set_data_handle(const_cast<void*>(call.a));
    product->c.set_data_handle(call.c);
    std::unordered_map<int, dnnl::memory> handles{
        {DNNL_ARG_SRC, product->a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, product->c}};
    if (call.bias != nullptr) {
      product->bias.set_data_handle(const_cast<void*>(call.bias));
      handles.emplace(DNNL_ARG_BIAS, product->bias);
    }
    product->primitive.execute(context.stream(), handles);
    context.stream().wait();
  } catch (const dnnl::error& error) {
    fail(ErrorKind::environment, "matmul {} x {} x {} in bf16: oneDNN: {}", args.m, args.n, args.k, error.what());
  }
  return true;
}

float* matmul_scratch(std::int64_t floats) {
  struct Release {
    void operator()(float* data) const noexcept { std::free(data); }
  };
  thread_local std::unique_ptr<float, Release> scratch;
  thread_local std::int64_t capacity = 0;
  if (floats > capacity) {
    const std::size_t bytes = (static_cast<std::size_t>(floats) * sizeof(float) + 4095) / 4096 * 4096;
    scratch.reset(static_cast<float*>(std::aligned_alloc(4096, bytes)));
    capacity = scratch ? floats : 0;
    if (!scratch) fail(ErrorKind::environment, "matmul: no memory for {} bytes of scratch", bytes);
  }
  return scratch.get();
}

}  // namespace lockstep::kernels
