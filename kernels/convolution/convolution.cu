#include "kernels/convolution/direct_convolution.hpp"
#include "kernels/device/pack.hpp"
#include "kernels/element.hpp"
namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned block_size = 256;
constexpr unsigned weight_lanes = 32;  ///< threads of a block along the output channels
constexpr unsigned pixel_lanes = 8;    ///< and along the pixels

/// Row and column of a pixel.
struct Place {
  std::int64_t image, row, column;
};
__device__ __forceinline__ Place place_of(const ConvolutionShape& s, std::int64_t pixel) {
  return {pixel / (s.height * s.width), pixel / s.width % s.height, pixel % s.width};
}
__device__ __forceinline__ bool inside(const ConvolutionShape& s, std::int64_t row, std::int64_t column) {
  return row >= 0 && row < s.height && column >= 0 && column < s.width;
}
__device__ __forceinline__ std::int64_t pixel_at(const ConvolutionShape& s, std::int64_t image, std::int64_t row,
                                                 std::int64_t column) {
  return (image * s.height + row) * s.width + column;
}

template <class T>
__global__ void __launch_bounds__(block_size) forward_kernel(ConvolutionForwardArgs args) {
  const ConvolutionShape& s = args.shape;
  const std::int64_t radius = s.kernel / 2, count = s.pixels() * s.out;
  for (std::int64_t index = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; index < count;
       index += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t o = index % s.out;
    const Place at = place_of(s, index / s.out);
    float sum = 0.0F;
    for (std::int64_t a = 0; a < s.kernel; ++a)
      for (std::int64_t b = 0; b < s.kernel; ++b) {
        const std::int64_t row = at.row + a - radius, column = at.column + b - radius;
        if (!inside(s, row, column)) continue;
        const T* const x = static_cast<const T*>(args.x) + pixel_at(s, at.image, row, column) * s.in;
        const T* const weight = static_cast<const T*>(args.weight) + (a * s.kernel + b) * s.in * s.out + o;
        for (std::int64_t c = 0; c < s.in; ++c) sum += static_cast<float>(x[c]) * static_cast<float>(weight[c * s.out]);
      }
    static_cast<T*>(args.y)[index] = T(sum);
  }
}

template <class T>
__global__ void __launch_bounds__(block_size) input_grad_kernel(ConvolutionInputGradArgs args) {
  const ConvolutionShape& s = args.shape;
  const std::int64_t radius = s.kernel / 2, count = s.pixels() * s.in;
  for (std::int64_t index = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; index < count;
       index += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t c = index % s.in;
    const Place at = place_of(s, index / s.in);
    float sum = 0.0F;
    for (std::int64_t a = 0; a < s.kernel; ++a)
      for (std::int64_t b = 0; b < s.kernel; ++b) {
        const std::int64_t row = at.row - a + radius, column = at.column - b + radius;
        if (!inside(s, row, column)) continue;
        const T* const dy = static_cast<const T*>(args.dy) + pixel_at(s, at.image, row, column) * s.out;
        const T* const weight = static_cast<const T*>(args.weight) + ((a * s.kernel + b) * s.in + c) * s.out;
        for (std::int64_t o = 0; o < s.out; ++o) sum += static_cast<float>(dy[o]) * static_cast<float>(weight[o]);
      }
    static_cast<T*>(args.dx)[index] = T(sum);
  }
}

/// A block for each input channel of each tap (x) and each 32 output channels (y). Lanes of pixels are added in order.
template <class T>
__global__ void __launch_bounds__(weight_lanes* pixel_lanes) weight_grad_kernel(ConvolutionWeightGradArgs args) {
  LOCKSTEP_SHARED(float, lanes, [pixel_lanes][weight_lanes]);
  const ConvolutionShape& s = args.shape;
  const std::int64_t radius = s.kernel / 2, tap = blockIdx.x / s.in, c = blockIdx.x % s.in;
  const std::int64_t o = std::int64_t{blockIdx.y} * weight_lanes + threadIdx.x;
  float sum = 0.0F;
  if (o < s.out)
    for (std::int64_t pixel = threadIdx.y; pixel < s.pixels(); pixel += pixel_lanes) {
      const Place at = place_of(s, pixel);
      const std::int64_t row = at.row + tap / s.kernel - radius, column = at.column + tap % s.kernel - radius;
      if (!inside(s, row, column)) continue;
      sum += static_cast<float>(static_cast<const T*>(args.x)[pixel_at(s, at.image, row, column) * s.in + c]) *
             static_cast<float>(static_cast<const T*>(args.dy)[pixel * s.out + o]);
    }
  lanes[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || o >= s.out) return;
  for (unsigned lane = 1; lane < pixel_lanes; ++lane) sum += lanes[lane][threadIdx.x];
  float& to = args.dweight[(tap * s.in + c) * s.out + o];
  to = args.accumulate != 0 ? to + sum : sum;
}

/// Weights [taps, in, out] and filters [out, taps, in]: index is the weight's, the result the filter's.
__device__ __forceinline__ std::int64_t filter_index(const ConvolutionShape& s, std::int64_t index) {
  const std::int64_t o = index % s.out, tap_and_channel = index / s.out;
  return o * s.taps() * s.in + tap_and_channel;
}

template <class T>
__global__ void __launch_bounds__(block_size) filter_kernel(ConvolutionFilterArgs args) {
  const std::int64_t count = args.shape.taps() * args.shape.in * args.shape.out;
  for (std::int64_t index = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; index < count;
       index += std::int64_t{gridDim.x} * blockDim.x)
    static_cast<T*>(args.filter)[filter_index(args.shape, index)] = static_cast<const T*>(args.weight)[index];
}

template <class T>
__global__ void __launch_bounds__(block_size) filter_grad_kernel(ConvolutionFilterGradArgs args) {
  const std::int64_t count = args.shape.taps() * args.shape.in * args.shape.out;
  for (std::int64_t index = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; index < count;
       index += std::int64_t{gridDim.x} * blockDim.x) {
    const auto value = static_cast<float>(static_cast<const T*>(args.dfilter)[filter_index(args.shape, index)]);
    args.dweight[index] = args.accumulate != 0 ? args.dweight[index] + value : value;
  }
}

}  // namespace

void convolution_filter(const Exec& exec, const ConvolutionFilterArgs& args) {
  const ConvolutionShape& s = args.shape;
  with_element_type(args.dtype, [&]<class T>(T*) {
    launch(exec, filter_kernel<T>, dim3(blocks_for(s.taps() * s.in * s.out, block_size)), dim3(block_size), 0, args);
  });
}

void convolution_filter_grad(const Exec& exec, const ConvolutionFilterGradArgs& args) {
  const ConvolutionShape& s = args.shape;
  with_element_type(args.dtype, [&]<class T>(T*) {
    launch(exec, filter_grad_kernel<T>, dim3(blocks_for(s.taps() * s.in * s.out, block_size)), dim3(block_size), 0,
           args);
  });
}

void direct_convolution_forward(const Exec& exec, const ConvolutionForwardArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) {
    launch(exec, forward_kernel<T>, dim3(blocks_for(args.shape.pixels() * args.shape.out, block_size)),
           dim3(block_size), 0, args);
  });
}

void direct_convolution_input_grad(const Exec& exec, const ConvolutionInputGradArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) {
    launch(exec, input_grad_kernel<T>, dim3(blocks_for(args.shape.pixels() * args.shape.in, block_size)),
           dim3(block_size), 0, args);
  });
}

void direct_convolution_weight_grad(const Exec& exec, const ConvolutionWeightGradArgs& args) {
  const ConvolutionShape& s = args.shape;
  const dim3 grid(static_cast<unsigned>(s.taps() * s.in),
                  static_cast<unsigned>((s.out + weight_lanes - 1) / weight_lanes));
  with_element_type(args.dtype, [&]<class T>(T*) {
    launch(exec, weight_grad_kernel<T>, grid, dim3(weight_lanes, pixel_lanes), 0, args);
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
