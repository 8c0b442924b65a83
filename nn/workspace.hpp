#pragma once

#include <cstddef>
#include <map>

namespace lockstep::nn {

/// Hands out offsets in one block of memory: first fit, 256-byte pieces, a pure function of the sequence of calls. So
/// a dry run of a step (no memory behind it) gives the exact peak, and the real step gets the same offsets again.
/// Reuse is safe because all work that touches the block is ordered on one stream.
class Workspace {
 public:
  explicit Workspace(std::byte* base = nullptr, std::size_t capacity = ~std::size_t{0})
      : base_(base), capacity_(capacity) {}

  /// ErrorKind::internal if the block is too small: the step then differs from its plan.
  [[nodiscard]] std::size_t allocate(std::size_t bytes);
  void free(std::size_t offset);
  [[nodiscard]] void* at(std::size_t offset) const { return base_ == nullptr ? nullptr : base_ + offset; }
  [[nodiscard]] std::size_t peak() const { return peak_; }
  [[nodiscard]] std::size_t in_use() const { return in_use_; }

 private:
  std::byte* base_;
  std::size_t capacity_;
  std::map<std::size_t, std::size_t> used_;  ///< offset -> bytes
  std::size_t peak_ = 0;
  std::size_t in_use_ = 0;
};

}  // namespace lockstep::nn
