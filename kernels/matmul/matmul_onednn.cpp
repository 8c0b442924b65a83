#include "kernels/matmul/matmul_onednn.hpp"

#include <algorithm>
#include <atomic>
#include <unordered_map>

#include "core/error.hpp"
#include "core/isa.hpp"
#include "kernels/cpu/thread_limit.hpp"
#include "kernels/matmul/host_memory.hpp"
#include "kernels/matmul/onednn_context.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {
namespace {

dnnl_status_t call_sgemm(const Sgemm& args) {
  limit_onednn();
  return dnnl_sgemm(args.transpose_a ? 'T' : 'N', args.transpose_b ? 'T' : 'N', args.m, args.n, args.k, 1.0F, args.a,
                    args.lda, args.b, args.ldb, args.beta, args.c, args.ldc);
}

}  // namespace

void onednn_sgemm(const Sgemm& args, int threads) {
  const ThreadLimit limit(threads);
  check_onednn(call_sgemm(args), "dnnl_sgemm");
}

void onednn_sgemm_in_pieces(const Sgemm& args, int threads) {
  const std::int64_t down = (args.m + piece_rows - 1) / piece_rows;
  const std::int64_t across = (args.n + piece_columns - 1) / piece_columns;
  std::atomic<dnnl_status_t> status{dnnl_success};
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1 && down * across > 1)
  for (std::int64_t piece = 0; piece < down * across; ++piece) {
    const std::int64_t i = piece / across * piece_rows, j = piece % across * piece_columns;
    Sgemm part = args;
    part.m = std::min(piece_rows, args.m - i);
    part.n = std::min(piece_columns, args.n - j);
    part.a += args.transpose_a ? i : i * args.lda;
    part.b += args.transpose_b ? j * args.ldb : j;
    part.c += i * args.ldc + j;
    const ThreadLimit limit(1);
    // An exception must not leave the parallel region.
    if (const dnnl_status_t own = call_sgemm(part); own != dnnl_success) status = own;
  }
  check_onednn(status, "dnnl_sgemm");
}

bool onednn_matmul_bf16(const Exec& exec, const MatmulArgs& args) {
  if (current_bf16_products() == Bf16Products::widened) return false;
  // A caller without a context (a unit test) gets no packed weights: their life would outlast its buffers.
  thread_local OnednnContext fallback;
  OnednnContext& context = exec.context != nullptr ? *static_cast<OnednnContext*>(exec.context) : fallback;
  MatmulArgs call = args;
  if (exec.context == nullptr) call.b_param = -1;

  const ThreadLimit limit(exec.threads);
  try {
    OnednnContext::Product* product = &context.product(call, exec.threads);
    if (!product->supported) return false;
    dnnl::memory b = product->b;
    if (product->packed_b) {
      b = context.packed_weight(call, *product);
      if (b.get(true) == nullptr) {
        call.b_param = -1;
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

std::size_t packed_weight_bytes(const Exec& exec, const std::vector<MatmulArgs>& products) {
  // As in matmul: only this table has bf16 products, and not invariant ones.
  if (exec.context == nullptr || exec.invariant || current_bf16_products() == Bf16Products::widened ||
      exec.table != &cpu_table(Isa::avx512))
    return 0;
  const ThreadLimit limit(exec.threads);
  try {
    return static_cast<OnednnContext*>(exec.context)->packed_bytes_of(products, exec.threads);
  } catch (const dnnl::error& error) {
    fail(ErrorKind::environment, "packed weights of {} products in bf16: oneDNN: {}", products.size(), error.what());
  }
}

float* matmul_scratch(std::int64_t floats) {
  thread_local HostMemory scratch;
  thread_local std::int64_t capacity = 0;
  if (floats > capacity) {
    const std::size_t bytes = static_cast<std::size_t>(floats) * sizeof(float);
    scratch.reset();
    scratch = host_memory(bytes);
    capacity = scratch ? floats : 0;
    if (!scratch) fail(ErrorKind::environment, "matmul: no memory for {} bytes of scratch", bytes);
  }
  return reinterpret_cast<float*>(scratch.get());
}

}  // namespace lockstep::kernels
