#include "comm/shared_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>
#include <string_view>

namespace lockstep::comm {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr std::size_t page = 4096;

// Page tables of a peer's block are filled at once, so that no step pays for them; beyond so many peers they would take
// more memory than they are worth.
constexpr std::size_t peers_filled_at_once = 16;

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

std::uint64_t random_mark() {
  std::random_device source;
  return (static_cast<std::uint64_t>(source()) << 32 | source()) | 1U;
}

std::string what_the_system_says(const char* call) { return fmt::format("{}: {}", call, std::strerror(errno)); }

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/// True unless there is no memory for it. Kernels before 5.14 cannot be asked and are touched page by page.
bool populate(std::byte* data, std::size_t bytes) {
  if (madvise(data, bytes, MADV_POPULATE_WRITE) == 0) return true;
  if (errno != EINVAL) return false;
  for (std::size_t at = 0; at < bytes; at += page) {
    volatile std::byte& first = data[at];
    first = first;
  }
  return true;
}

}  // namespace

SharedMemory::Mapping SharedMemory::map(int file, std::size_t bytes) {
  // A large block starts on a huge page: room for one more is reserved, and what is in front and behind given back.
  const std::size_t alignment = bytes >= huge_page ? huge_page : page;
  const std::size_t reserved = bytes + alignment;
  void* const room = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) return {};
  auto* const begin = static_cast<std::byte*>(room);
  const std::size_t skip =
      round_up(reinterpret_cast<std::uintptr_t>(begin), alignment) - reinterpret_cast<std::uintptr_t>(begin);
  std::byte* const data = begin + skip;
  if (mmap(data, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
    const int error = errno;
    munmap(room, reserved);
    errno = error;
    return {};
  }
  if (skip > 0) munmap(begin, skip);
  if (skip < alignment) munmap(data + bytes, alignment - skip);
  if (bytes >= huge_page) (void)madvise(data, bytes, MADV_HUGEPAGE);
  return {data, bytes};
}

std::unique_ptr<SharedMemory> SharedMemory::make(std::size_t bytes, std::string& why) {
  std::unique_ptr<SharedMemory> memory(new SharedMemory);
  if (bytes > SIZE_MAX / 2) {
    why = fmt::format("{} bytes are no size", bytes);
    return nullptr;
  }
  // The mark's page comes after the data, so that these begin on a huge page.
  const std::size_t data_bytes = round_up(bytes == 0 ? 1 : bytes, bytes >= huge_page ? huge_page : page);
  const std::size_t whole = data_bytes + page;
  const int file = memfd_create("lockstep", MFD_CLOEXEC);
  if (file < 0) {
    why = what_the_system_says("memfd_create");
    return nullptr;
  }
  memory->handle_ = {.bytes = whole, .mark = random_mark(), .pid = getpid(), .file = file};
  if (ftruncate(file, static_cast<off_t>(whole)) != 0) {
    why = what_the_system_says("ftruncate");
    return nullptr;
  }
  memory->own_ = map(file, whole);
  if (memory->own_.data == nullptr) {
    why = what_the_system_says("mmap");
    return nullptr;
  }
  memory->data_ = memory->own_.data;
  memory->bytes_ = bytes;
  if (!populate(memory->own_.data, whole)) {
    why = fmt::format("{} bytes of memory: {}", whole, std::strerror(errno));
    return nullptr;
  }
  std::memcpy(memory->data_ + data_bytes, &memory->handle_.mark, sizeof(memory->handle_.mark));
  return memory;
}

bool SharedMemory::map_peers(std::span<const SharedHandle> handles, int own, std::string& why) {
  peers_.resize(handles.size());
  for (std::size_t i = 0; i < handles.size(); ++i) {
    if (static_cast<int>(i) == own) {
      peers_[i] = {own_.data, own_.bytes};
      continue;
    }
    const SharedHandle& handle = handles[i];
    const std::string path = fmt::format("/proc/{}/fd/{}", handle.pid, handle.file);
    // Looked at before it is opened: under that number there may be anything of another process.
    char target[64] = {};
    if (readlink(path.c_str(), target, sizeof(target) - 1) < 0) {
      why = what_the_system_says(path.c_str());
      return false;
    }
    if (!std::string_view(target).starts_with("/memfd:lockstep")) {
      why = fmt::format("{} is {}: the ranks are in different process namespaces", path, target);
      return false;
    }
    const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
    struct stat status {};
    if (file < 0 || fstat(file, &status) != 0) {
      why = what_the_system_says(path.c_str());
      if (file >= 0) close(file);
      return false;
    }
    Mapping mapping;
    if (static_cast<std::uint64_t>(status.st_size) == handle.bytes) mapping = map(file, handle.bytes);
    close(file);
    std::uint64_t mark = 0;
    if (mapping.data != nullptr) std::memcpy(&mark, mapping.data + mapping.bytes - page, sizeof(mark));
    peers_[i] = mapping;
    if (mark != handle.mark) {
      why = fmt::format("{} is another process's memory: the ranks are in different process namespaces", path);
      return false;
    }
    if (handles.size() <= peers_filled_at_once) (void)populate(mapping.data, mapping.bytes);
  }
  return true;
}

void SharedMemory::close_file() {
  if (handle_.file >= 0) close(handle_.file);
  handle_.file = -1;
}

SharedMemory::~SharedMemory() {
  for (const Mapping& peer : peers_)
    if (peer.data != nullptr && peer.data != own_.data) munmap(peer.data, peer.bytes);
  if (own_.data != nullptr) munmap(own_.data, own_.bytes);
  close_file();
}

}  // namespace lockstep::comm
