#pragma once

#include <span>

#include "comm/communicator.hpp"

namespace lockstep::comm {

[[nodiscard]] std::string_view to_string(Reduce op) noexcept;

/// Elements [begin, begin + count) of every target <- reduction of the same elements of all sources, added as the tree
/// T over sources[0], sources[1], ... (core/sum_tree.hpp): the order, and so the bits, do not depend on who calls it or
/// how a buffer is cut. `merges` says how often to merge after each source where these are sums of blocks of terms
/// already (sum_tree::merges_of); empty: each source is one term.
///
/// Host memory. A target may be one of the sources (same address) and must not overlap one otherwise. f32, f64, i32
/// and i64 are reduced in their own type (integers wrap around); bf16 and f16 in fp32 with one rounding of the result.
/// The maximum or minimum of numbers with a NaN among them is unspecified.
void reduce_in_tree_order(DType dtype, Reduce op, std::span<void* const> sources, std::span<void* const> targets,
                          std::size_t begin, std::size_t count, std::span<const std::uint8_t> merges = {});

}  // namespace lockstep::comm
