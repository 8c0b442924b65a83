#include "kernels/declare.hpp"
#include "kernels/device/simt.hpp"
#include "kernels/grad_sum.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned block_size = 256;
constexpr std::size_t max_blocks = 4096;

[[nodiscard]] dim3 grid_for(std::size_t count) {
  const std::size_t blocks = (count + block_size - 1) / block_size;
  return dim3(static_cast<unsigned>(blocks < max_blocks ? blocks : max_blocks));
}

[[nodiscard]] __device__ std::size_t first_index() { return std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; }
[[nodiscard]] __device__ std::size_t index_step() { return std::size_t{gridDim.x} * blockDim.x; }

__global__ void cast_kernel(CastArgs args) {
  for (std::size_t i = first_index(); i < args.count; i += index_step())
    store_element(args.to, args.to_dtype, i, load_element(args.from, args.from_dtype, i));
}

__global__ void axpy_kernel(AxpyArgs args, float a) {
  for (std::size_t i = first_index(); i < args.count; i += index_step()) {
    const float product = a * load_element(args.x, args.x_dtype, i);
    store_element(args.y, args.y_dtype, i, load_element(args.y, args.y_dtype, i) + product);
  }
}

__global__ void scale_kernel(ScaleArgs args, float a) {
  for (std::size_t i = first_index(); i < args.count; i += index_step())
    store_element(args.y, args.dtype, i, a * load_element(args.y, args.dtype, i));
}

__global__ void ordered_sum_kernel(OrderedSumArgs args) {
  for (std::size_t i = first_index(); i < args.count; i += index_step())
    store_element(args.to, args.to_dtype, i, gradient_at(args.sources, i));
}

}  // namespace

void cast(const Exec& exec, const CastArgs& args) {
  launch(exec, cast_kernel, grid_for(args.count), dim3(block_size), 0, args);
}

void axpy(const Exec& exec, const AxpyArgs& args) {
  launch(exec, axpy_kernel, grid_for(args.count), dim3(block_size), 0, args, static_cast<float>(args.a));
}

void scale(const Exec& exec, const ScaleArgs& args) {
  launch(exec, scale_kernel, grid_for(args.count), dim3(block_size), 0, args, static_cast<float>(args.a));
}

void ordered_sum(const Exec& exec, const OrderedSumArgs& args) {
  launch(exec, ordered_sum_kernel, grid_for(args.count), dim3(block_size), 0, args);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
