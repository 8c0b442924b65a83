#include "kernels/convolution/convolution_onednn.hpp"
#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/threads.hpp"
#include "kernels/cpu/vector_math.hpp"
#include "kernels/declare.hpp"

// The convolutions themselves are oneDNN's, in fp32. Compiled per instruction set are the passes that widen 16-bit
// operands and round 16-bit results.
namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

std::int64_t input_elements(const ConvolutionShape& s) { return s.pixels() * s.in; }
std::int64_t output_elements(const ConvolutionShape& s) { return s.pixels() * s.out; }
std::int64_t weight_elements(const ConvolutionShape& s) { return s.taps() * s.in * s.out; }

/// Floats of a buffer that the library reads or writes, on a 64-byte boundary.
std::int64_t padded(std::int64_t elements) { return (elements + 15) / 16 * 16; }

std::size_t widened_bytes(DType dtype, std::int64_t floats) {
  return dtype == DType::f32 ? 0 : static_cast<std::size_t>(floats) * sizeof(float);
}

constexpr std::int64_t chunk = 65536;

/// body(begin, count) for pieces of so many elements.
template <class Body>
void for_chunks(const Exec& exec, std::int64_t elements, const Body& body) {
  for_pieces(exec.threads, (elements + chunk - 1) / chunk, [&](std::int64_t piece) {
    const std::int64_t begin = piece * chunk;
    body(begin, elements - begin < chunk ? elements - begin : chunk);
  });
}

/// An operand in fp32: itself, or its copy at `scratch`, which moves on behind it.
const float* widened(const Exec& exec, DType dtype, const void* from, std::int64_t elements, float*& scratch) {
  if (dtype == DType::f32) return static_cast<const float*>(from);
  float* const to = scratch;
  scratch += padded(elements);
  with_element_type(dtype, [&]<class T>(T*) {
    const T* const source = static_cast<const T*>(from);
    for_chunks(exec, elements, [&](std::int64_t begin, std::int64_t count) {
      for_lanes(count, [&](std::int64_t i, auto n) { store(to + begin + i, load(source + begin + i, n), n); });
    });
  });
  return to;
}

void round_to(const Exec& exec, DType dtype, const float* from, std::int64_t elements, void* to) {
  with_element_type(dtype, [&]<class T>(T*) {
    T* const target = static_cast<T*>(to);
    for_chunks(exec, elements, [&](std::int64_t begin, std::int64_t count) {
      for_lanes(count, [&](std::int64_t i, auto n) { store(target + begin + i, load(from + begin + i, n), n); });
    });
  });
}

/// The library may cut sums where it likes, and does so by the number of threads.
int library_threads(const Exec& exec) { return exec.invariant ? 1 : exec.threads; }

}  // namespace

std::size_t convolution_forward_scratch(const ConvolutionForwardArgs& args) noexcept {
  const ConvolutionShape& s = args.shape;
  return widened_bytes(args.dtype, padded(input_elements(s)) + padded(weight_elements(s)) + padded(output_elements(s)));
}
std::size_t convolution_input_grad_scratch(const ConvolutionInputGradArgs& args) noexcept {
  const ConvolutionShape& s = args.shape;
  return widened_bytes(args.dtype, padded(input_elements(s)) + padded(weight_elements(s)) + padded(output_elements(s)));
}
std::size_t convolution_weight_grad_scratch(const ConvolutionWeightGradArgs& args) noexcept {
  return widened_bytes(args.dtype, padded(input_elements(args.shape)) + padded(output_elements(args.shape)));
}

void convolution_forward(const Exec& exec, const ConvolutionForwardArgs& args) {
  const ConvolutionShape& s = args.shape;
  auto* scratch = static_cast<float*>(args.scratch);
  const float* const x = widened(exec, args.dtype, args.x, input_elements(s), scratch);
  const float* const weight = widened(exec, args.dtype, args.weight, weight_elements(s), scratch);
  const bool plain = args.dtype == DType::f32;
  float* const y = plain ? static_cast<float*>(args.y) : scratch;
  onednn_convolution_forward(s, x, weight, y, library_threads(exec));
  if (!plain) round_to(exec, args.dtype, y, output_elements(s), args.y);
}

void convolution_input_grad(const Exec& exec, const ConvolutionInputGradArgs& args) {
  const ConvolutionShape& s = args.shape;
  auto* scratch = static_cast<float*>(args.scratch);
  const float* const dy = widened(exec, args.dtype, args.dy, output_elements(s), scratch);
  const float* const weight = widened(exec, args.dtype, args.weight, weight_elements(s), scratch);
  const bool plain = args.dtype == DType::f32;
  float* const dx = plain ? static_cast<float*>(args.dx) : scratch;
  onednn_convolution_input_grad(s, dy, weight, dx, library_threads(exec));
  if (!plain) round_to(exec, args.dtype, dx, input_elements(s), args.dx);
}

void convolution_weight_grad(const Exec& exec, const ConvolutionWeightGradArgs& args) {
  const ConvolutionShape& s = args.shape;
  if (s.batch == 0) {
    if (args.accumulate == 0)
      for (std::int64_t i = 0; i < weight_elements(s); ++i) args.dweight[i] = 0.0F;
    return;
  }
  auto* scratch = static_cast<float*>(args.scratch);
  const float* const x = widened(exec, args.dtype, args.x, input_elements(s), scratch);
  const float* const dy = widened(exec, args.dtype, args.dy, output_elements(s), scratch);
  onednn_convolution_weight_grad(s, x, dy, args.dweight, args.accumulate != 0, library_threads(exec));
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
