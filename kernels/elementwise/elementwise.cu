// Bytes an element, one pass each: cast from + to, axpy x + 2 y, ordered_sum that of every source + to.
#include "kernels/declare.hpp"
#include "kernels/device/gradient.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned block_size = 256;
constexpr unsigned blocks_each = 8;  ///< of a multiprocessor

/// Elements that a thread moves at once: 16 bytes of the narrower type.
template <class A, class B>
constexpr int vector_of = sizeof(A) < sizeof(B) ? pack_of<A> : pack_of<B>;

/// body(N, i) for the elements [i, i + N) of count, divided over the grid: N is V where `packs`, and 1 for the rest.
template <int V>
struct Count {};
template <int V, class Body>
__device__ __forceinline__ void for_vectors(std::size_t count, bool packs, const Body& body) {
  const std::size_t thread = std::size_t{blockIdx.x} * block_size + threadIdx.x;
  const std::size_t threads = std::size_t{gridDim.x} * block_size;
  const std::size_t vectors = packs ? count / V : 0;
  for (std::size_t i = thread; i < vectors; i += threads) body(Count<V>{}, i * V);
  for (std::size_t i = vectors * V + thread; i < count; i += threads) body(Count<1>{}, i);
}

template <class From, class To>
__global__ void __launch_bounds__(block_size) cast_kernel(CastArgs args, bool packs) {
  for_vectors<vector_of<From, To>>(args.count, packs, [&]<int N>(Count<N>, std::size_t i) {
    store_pack<N>(static_cast<To*>(args.to) + i, load_pack<N>(static_cast<const From*>(args.from) + i));
  });
}

template <class X, class Y>
__global__ void __launch_bounds__(block_size) axpy_kernel(AxpyArgs args, float a, bool packs) {
  for_vectors<vector_of<X, Y>>(args.count, packs, [&]<int N>(Count<N>, std::size_t i) {
    auto product = load_pack<N>(static_cast<const X*>(args.x) + i);
    for (int k = 0; k < N; ++k) product.v[k] = a * product.v[k];
    Y* const y = static_cast<Y*>(args.y) + i;
    store_pack<N>(y, load_pack<N>(y) + product);
  });
}

template <class Y>
__global__ void __launch_bounds__(block_size) scale_kernel(ScaleArgs args, float a, bool packs) {
  for_vectors<pack_of<Y>>(args.count, packs, [&]<int N>(Count<N>, std::size_t i) {
    Y* const y = static_cast<Y*>(args.y) + i;
    auto product = load_pack<N>(y);
    for (int k = 0; k < N; ++k) product.v[k] = a * product.v[k];
    store_pack<N>(y, product);
  });
}

/// Sources that are read are read before what they may overlap is written.
template <class X, class To>
__global__ void __launch_bounds__(block_size) ordered_sum_kernel(OrderedSumArgs args, bool packs) {
  for_vectors<pack_of<X>>(args.count, packs, [&]<int N>(Count<N>, std::size_t i) {
    store_pack<N>(static_cast<To*>(args.to) + i, gradient_pack<N, any_number, X>(args.sources, i));
  });
}

template <class Body>
void with_types(DType a, DType b, const Body& body) {
  with_element_type(a,
                    [&]<class A>(A* first) { with_element_type(b, [&]<class B>(B* second) { body(first, second); }); });
}

[[nodiscard]] dim3 grid_for(std::size_t count, int vector, bool packs) {
  const std::size_t turns = packs ? count / static_cast<std::size_t>(vector) : count;
  return dim3(persistent_blocks((turns + block_size - 1) / block_size, blocks_each));
}

}  // namespace

void cast(const Exec& exec, const CastArgs& args) {
  const bool packs = is_aligned({args.from, args.to});
  with_types(args.from_dtype, args.to_dtype, [&]<class From, class To>(From*, To*) {
    launch(exec, cast_kernel<From, To>, grid_for(args.count, vector_of<From, To>, packs), dim3(block_size), 0, args,
           packs);
  });
}

void axpy(const Exec& exec, const AxpyArgs& args) {
  const bool packs = is_aligned({args.x, args.y});
  with_types(args.x_dtype, args.y_dtype, [&]<class X, class Y>(X*, Y*) {
    launch(exec, axpy_kernel<X, Y>, grid_for(args.count, vector_of<X, Y>, packs), dim3(block_size), 0, args,
           static_cast<float>(args.a), packs);
  });
}

void scale(const Exec& exec, const ScaleArgs& args) {
  const bool packs = is_aligned({args.y});
  with_element_type(args.dtype, [&]<class Y>(Y*) {
    launch(exec, scale_kernel<Y>, grid_for(args.count, pack_of<Y>, packs), dim3(block_size), 0, args,
           static_cast<float>(args.a), packs);
  });
}

void ordered_sum(const Exec& exec, const OrderedSumArgs& args) {
  const bool packs = is_aligned(args.sources) && is_aligned({args.to});
  with_types(args.sources.dtype, args.to_dtype, [&]<class X, class To>(X*, To*) {
    launch(exec, ordered_sum_kernel<X, To>, grid_for(args.count, pack_of<X>, packs), dim3(block_size), 0, args, packs);
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
