#include "comm/reduce.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <type_traits>

#include "core/error.hpp"
#include "core/sum_tree.hpp"
#include "kernels/rank_sum/rank_sum.hpp"

namespace lockstep::comm {
namespace {

// 4 KiB of each running sum stay in the first-level cache while every source streams past once.
constexpr std::size_t block = 1024;

// Running sums at a time: enough for 2^15 sources. More is not asked for, so that they fit on a thread's stack.
constexpr std::size_t max_sums = 16;

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

template <class W>
using Sums = std::array<std::array<W, block>, max_sums>;

/// to[i] <- to[i] op from[i]
template <Reduce op, class W, class T>
void combine_into(W* to, const T* from, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) to[i] = combine<op>(to[i], static_cast<W>(from[i]));
}

template <Reduce op, class T>
void reduce_typed(std::span<void* const> sources, std::span<void* const> targets, std::size_t begin, std::size_t count,
                  std::span<const std::uint8_t> merges) {
  using W = Wide<T>;
  Sums<W> sums;
  for (std::size_t at = begin; at < begin + count; at += block) {
    const std::size_t n = std::min(block, begin + count - at);
    std::size_t depth = 0;
    for (std::size_t s = 0; s < sources.size(); ++s) {
      const T* next = static_cast<const T*>(sources[s]) + at;
      int left = merges.empty() ? sum_tree::merges_after(s) : merges[s];
      if (left == 0) {
        for (std::size_t i = 0; i < n; ++i) sums[depth][i] = static_cast<W>(next[i]);
        ++depth;
        continue;
      }
      // The first merge takes the source as it streams past.
      combine_into<op>(sums[depth - 1].data(), next, n);
      for (; --left > 0; --depth) combine_into<op>(sums[depth - 2].data(), sums[depth - 1].data(), n);
    }
    for (; depth > 1; --depth) combine_into<op>(sums[depth - 2].data(), sums[depth - 1].data(), n);
    for (void* target : targets) {
      T* out = static_cast<T*>(target) + at;
      for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<T>(sums[0][i]);
    }
  }
}

template <class T>
void reduce_by_op(Reduce op, std::span<void* const> sources, std::span<void* const> targets, std::size_t begin,
                  std::size_t count, std::span<const std::uint8_t> merges) {
  switch (op) {
    case Reduce::sum:
      return reduce_typed<Reduce::sum, T>(sources, targets, begin, count, merges);
    case Reduce::max:
      return reduce_typed<Reduce::max, T>(sources, targets, begin, count, merges);
    case Reduce::min:
      return reduce_typed<Reduce::min, T>(sources, targets, begin, count, merges);
  }
}

/// What gradients are: the same additions as reduce_typed's, in this CPU's widest instructions.
void sum_floats(std::span<void* const> sources, std::span<void* const> targets, std::size_t begin, std::size_t count) {
  std::array<const float*, kernels::rank_sum_sources> from;
  for (std::size_t s = 0; s < sources.size(); ++s) from[s] = static_cast<const float*>(sources[s]);
  std::array<float*, kernels::rank_sum_sources> to;
  for (std::size_t t = 0; t < targets.size(); ++t) to[t] = static_cast<float*>(targets[t]);
  kernels::rank_sum({.sources = from.data(),
                     .source_count = sources.size(),
                     .targets = to.data(),
                     .target_count = targets.size(),
                     .begin = begin,
                     .count = count});
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

void reduce_in_tree_order(DType dtype, Reduce op, std::span<void* const> sources, std::span<void* const> targets,
                          std::size_t begin, std::size_t count, std::span<const std::uint8_t> merges) {
  require(!sources.empty() && (merges.empty() || merges.size() == sources.size()) &&
              std::bit_width(sources.size()) <= max_sums,
          "reduce: no source, more than 2^15, or merges for another number of them");
  const bool few = sources.size() <= kernels::rank_sum_sources && targets.size() <= kernels::rank_sum_sources;
  if (dtype == DType::f32 && op == Reduce::sum && merges.empty() && few)
    return sum_floats(sources, targets, begin, count);
  switch (dtype) {
    case DType::f32:
      return reduce_by_op<float>(op, sources, targets, begin, count, merges);
    case DType::bf16:
      return reduce_by_op<bf16>(op, sources, targets, begin, count, merges);
    case DType::f16:
      return reduce_by_op<f16>(op, sources, targets, begin, count, merges);
    case DType::f64:
      return reduce_by_op<double>(op, sources, targets, begin, count, merges);
    case DType::i32:
      return reduce_by_op<std::int32_t>(op, sources, targets, begin, count, merges);
    case DType::i64:
      return reduce_by_op<std::int64_t>(op, sources, targets, begin, count, merges);
    case DType::u8:
      break;
  }
  fail(ErrorKind::internal, "reduce: bytes cannot be reduced");
}

}  // namespace lockstep::comm
