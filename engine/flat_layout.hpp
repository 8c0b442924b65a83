#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/flat.hpp"
#include "nn/plan.hpp"
#include "optim/optimizer.hpp"

namespace lockstep::engine {

inline constexpr std::int64_t slice_alignment = 128;  ///< elements: 256 bytes in 16-bit, 512 in fp32

/// A run of the flat space: elements [begin, end).
struct FlatRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  [[nodiscard]] std::int64_t size() const { return end - begin; }
  bool operator==(const FlatRange&) const = default;
};

/// What one of so many ranks saves of `elements` that all of them hold: even parts, on slice_alignment.
[[nodiscard]] constexpr FlatRange even_share(std::int64_t elements, int rank, int ranks) {
  const std::int64_t pieces = elements / slice_alignment;
  return {pieces * rank / ranks * slice_alignment,
          rank + 1 == ranks ? elements : pieces * (rank + 1) / ranks * slice_alignment};
}

/// One logical space for parameters, gradients, masters and moments, identical for every number of ranks and device:
/// slices in the order in which backward completes them, so that a bucket fills from front to back. Padding between
/// slices is zero, in no tile and written by no pass.
class FlatLayout {
 public:
  struct Slice {
    nn::ParamId param = 0;
    std::int64_t begin = 0;
    std::int64_t elements = 0;  ///< stored ones
    int unit = 0;
    int group = 0;
  };
  /// A run of the flat space that is reduced at once; never crosses a unit.
  struct Bucket {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    int unit = 0;
    int first_slice = 0;  ///< slices that reach into it: [first_slice, last_slice]
    int last_slice = 0;
  };

  /// `group_of[param]` is the parameter group of each parameter.
  FlatLayout(const std::vector<nn::ParameterSpec>& parameters, const nn::Plan& plan, const std::vector<int>& group_of);

  [[nodiscard]] std::int64_t size() const { return size_; }  ///< elements, padding included
  [[nodiscard]] const std::vector<Slice>& slices() const { return slices_; }
  [[nodiscard]] const Slice& of(nn::ParamId param) const {
    return slices_[static_cast<std::size_t>(slice_of_[static_cast<std::size_t>(param)])];
  }
  [[nodiscard]] int slice_index(nn::ParamId param) const { return slice_of_[static_cast<std::size_t>(param)]; }
  /// The slice that holds a flat index, or null for padding.
  [[nodiscard]] const Slice* find(std::int64_t index) const;
  [[nodiscard]] std::vector<Tile> tiles() const;
  /// Of each slice, in their order, its tiles among tiles().
  [[nodiscard]] std::vector<TileRun> tile_runs() const;
  /// The same with what optimizers of whole matrices want to know. Hidden are matrices of all units but the first and
  /// the last, which read the input and make the output.
  [[nodiscard]] std::vector<optim::Tensor> tensors(const std::vector<nn::ParameterSpec>& parameters) const;
  /// The terms of the gradient's norm: the whole space, padding included, cut every norm_leaf_elements from the start
  /// of each unit. By this alone the norm's bits are defined.
  [[nodiscard]] std::vector<NormLeaf> norm_leaves() const;
  [[nodiscard]] std::size_t norm_leaf_count() const;
  /// By unit, its run of the space, padding included.
  [[nodiscard]] std::vector<FlatRange> units() const;
  /// Buckets of about `elements`, in completion order; a slice larger than that is cut.
  [[nodiscard]] std::vector<Bucket> buckets(std::int64_t elements) const;

 private:
  std::vector<Slice> slices_;
  std::vector<int> slice_of_;
  std::int64_t size_ = 0;
};

}  // namespace lockstep::engine
