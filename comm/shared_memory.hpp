#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace lockstep::comm {

/// Where a process's block can be found by another one of its host.
struct SharedHandle {
  std::uint64_t bytes = 0;  ///< of the file; 0: there is none
  std::uint64_t mark = 0;   ///< stands in the file's last page: a process of the same number may be another one
  std::int32_t pid = 0;
  std::int32_t file = -1;
};

/// A block of memory of each process of a group on one host, all of them mapped by every process.
///
/// The blocks are files without a name (memfd_create), which peers open through /proc: nothing stands in /dev/shm that
/// a killed job could leave behind or that its size could limit (a container's is 64 MiB), the kernel frees a block
/// with its last process, and large blocks are made of huge pages where
/// /sys/kernel/mm/transparent_hugepage/shmem_enabled allows them.
///
/// Made in two steps, between which the group exchanges handles in a way of its own: make, map_peers. A block is zero
/// at first, and all of it is there: no later access can fail for want of memory.
class SharedMemory {
 public:
  /// This process's block. Null where the system does not give it; `why` then says what it said.
  [[nodiscard]] static std::unique_ptr<SharedMemory> make(std::size_t bytes, std::string& why);
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory();

  [[nodiscard]] const SharedHandle& handle() const { return handle_; }
  /// Maps the others' blocks: `handles` by place in the group, `own` is this process's. False where one of them cannot
  /// be opened or is not what its handle says.
  [[nodiscard]] bool map_peers(std::span<const SharedHandle> handles, int own, std::string& why);
  /// From here on no other process can find the block; who has it mapped keeps it. To be called when all have.
  void close_file();

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  /// The block of a member of the group, valid after map_peers.
  [[nodiscard]] std::byte* of(int place) const { return peers_[static_cast<std::size_t>(place)].data; }

 private:
  struct Mapping {
    std::byte* data = nullptr;
    std::size_t bytes = 0;
  };
  SharedMemory() = default;
  [[nodiscard]] static Mapping map(int file, std::size_t bytes);

  SharedHandle handle_;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  Mapping own_;
  std::vector<Mapping> peers_;
};

}  // namespace lockstep::comm
