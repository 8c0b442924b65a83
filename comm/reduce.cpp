#include "comm/reduce.hpp"

#include <algorithm>
#include <array>
#include <type_traits>

#include "core/error.hpp"

namespace lockstep::comm {
namespace {

// 4 KiB of sums stay in the first-level cache while every source streams past once.
constexpr std::size_t block = 1024;

/// The type that elements are summed in.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, bf16> || std::is_same_v<T, f16>, float, T>;

template <Reduce op, class W>
W combine(W a, W b) {
  if constexpr (op == Reduce::max) return b > a ? b : a;
  if constexpr (op == Reduce::min) return b < a ? b : a;
  if constexpr (std::is_integral_v<W>) {
    using U = std::make_unsigned_t<W>;
    return static_cast<W>(static_cast<U>(a) + static_cast<U>(b));
  } else {
    return a + b;
  }
}

template <Reduce op, class T>
void reduce_typed(std::span<void* const> sources, std::span<void* const> targets, std::size_t begin,
                  std::size_t count) {
  std::array<Wide<T>, block> sum;
  for (std::size_t at = begin; at < begin + count; at += block) {
    const std::size_t n = std::min(block, begin + count - at);
    const T* first = static_cast<const T*>(sources[0]) + at;
    for (std::size_t i = 0; i < n; ++i) sum[i] = static_cast<Wide<T>>(first[i]);
    for (const void* source : sources.subspan(1)) {
      const T* next = static_cast<const T*>(source) + at;
      for (std::size_t i = 0; i < n; ++i) sum[i] = combine<op>(sum[i], static_cast<Wide<T>>(next[i]));
    }
    for (void* target : targets) {
      T* out = static_cast<T*>(target) + at;
      for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<T>(sum[i]);
    }
  }
}

template <class T>
void reduce_by_op(Reduce op, std::span<void* const> sources, std::span<void* const> targets, std::size_t begin,
                  std::size_t count) {
  switch (op) {
    case Reduce::sum:
      return reduce_typed<Reduce::sum, T>(sources, targets, begin, count);
    case Reduce::max:
      return reduce_typed<Reduce::max, T>(sources, targets, begin, count);
    case Reduce::min:
      return reduce_typed<Reduce::min, T>(sources, targets, begin, count);
  }
}

}  // namespace

std::string_view to_string(Reduce op) noexcept {
  switch (op) {
    case Reduce::sum:
      return "sum";
    case Reduce::max:
      return "max";
    case Reduce::min:
      return "min";
  }
  return "unknown";
}

void reduce_in_order(DType dtype, Reduce op, std::span<void* const> sources, std::span<void* const> targets,
                     std::size_t begin, std::size_t count) {
  switch (dtype) {
    case DType::f32:
      return reduce_by_op<float>(op, sources, targets, begin, count);
    case DType::bf16:
      return reduce_by_op<bf16>(op, sources, targets, begin, count);
    case DType::f16:
      return reduce_by_op<f16>(op, sources, targets, begin, count);
    case DType::f64:
      return reduce_by_op<double>(op, sources, targets, begin, count);
    case DType::i32:
      return reduce_by_op<std::int32_t>(op, sources, targets, begin, count);
    case DType::i64:
      return reduce_by_op<std::int64_t>(op, sources, targets, begin, count);
    case DType::u8:
      break;
  }
  fail(ErrorKind::internal, "reduce: bytes cannot be reduced");
}

}  // namespace lockstep::comm
