#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace lockstep::kernels {

struct FreeHostMemory {
  void operator()(char* data) const noexcept { std::free(data); }
};
using HostMemory = std::unique_ptr<char, FreeHostMemory>;

/// Host memory that is not yet there: pages come when they are touched. From 2 MiB on it lies on huge pages, which a
/// product streams through 4 to 7 % faster (docs/performance.md). Null: no memory.
[[nodiscard]] inline HostMemory host_memory(std::size_t bytes) {
  constexpr std::size_t huge_page = std::size_t{2} << 20, page = 4096;
  const std::size_t alignment = bytes >= huge_page ? huge_page : page;
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  HostMemory memory(static_cast<char*>(std::aligned_alloc(alignment, rounded)));
  if (memory && alignment == huge_page) (void)madvise(memory.get(), rounded, MADV_HUGEPAGE);
  return memory;
}

}  // namespace lockstep::kernels
