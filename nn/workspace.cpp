#include "nn/workspace.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace lockstep::nn {

std::size_t Workspace::allocate(std::size_t bytes) {
  constexpr std::size_t piece = 256;
  const std::size_t size = std::max(piece, (bytes + piece - 1) / piece * piece);
  std::size_t offset = 0;
  for (const auto& [begin, length] : used_) {
    if (begin - offset >= size) break;
    offset = begin + length;
  }
  if (size > capacity_ || offset > capacity_ - size)
    fail(
        ErrorKind::internal,
        "workspace: {} bytes at offset {} do not fit into {} bytes; the step differs from its plan (batch shape, dtype "
        "or sequence of operations): plan it again",
        size, offset, capacity_);
  used_.emplace(offset, size);
  in_use_ += size;
  peak_ = std::max(peak_, offset + size);
  return offset;
}

void Workspace::free(std::size_t offset) {
  const auto found = used_.find(offset);
  require(found != used_.end(), "workspace: freed an offset that is not in use");
  in_use_ -= found->second;
  used_.erase(found);
}

}  // namespace lockstep::nn
