#include "run/free_memory.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>

#include "core/text.hpp"

namespace lockstep::run {
namespace {

/// The first number of a text; nothing for "max" or no text.
std::optional<std::uint64_t> number_in(const std::string& text) {
  const std::size_t at = text.find_first_not_of(" \t");
  std::uint64_t number = 0;
  if (at == std::string::npos) return std::nullopt;
  const auto [stop, error] = std::from_chars(text.data() + at, text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  return number;
}

std::optional<std::uint64_t> number_of(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return number_in(line);
}

/// The number behind a word at the start of a line: "MemAvailable:  123 kB", "inactive_file 456".
std::uint64_t entry_of(const std::string& path, const std::string& word) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(word)) return number_in(line.substr(word.size())).value_or(0);
  return 0;
}

std::uint64_t minus(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

/// How a version of control groups writes its numbers down.
struct Files {
  const char* folder;
  const char* limit;
  const char* usage;
  const char* reclaimable[2];
};
constexpr Files version1 = {"/sys/fs/cgroup/memory",
                            "/memory.limit_in_bytes",
                            "/memory.usage_in_bytes",
                            {"total_inactive_file ", "total_active_file "}};
constexpr Files version2 = {"/sys/fs/cgroup", "/memory.max", "/memory.current", {"inactive_file ", "active_file "}};

/// A group and all above it: each has a limit of its own. Inside a container the topmost stands for the container's.
void take_groups(const std::string& root, const Files& files, std::string group, FreeMemory& free) {
  while (group.ends_with('/')) group.pop_back();
  while (true) {
    const std::string folder = root + files.folder + group;
    const auto limit = number_of(folder + files.limit), usage = number_of(folder + files.usage);
    if (limit && usage) {
      std::uint64_t held = *usage;
      for (const char* word : files.reclaimable) held = minus(held, entry_of(folder + "/memory.stat", word));
      if (const std::uint64_t left = minus(*limit, held); left < free.host) {
        free.host = left;
        free.host_limit = "the control group " + printable(group.empty() ? "/" : group);
      }
    }
    if (group.empty()) return;
    group.erase(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
}

/// Lines "4:memory:/a" (version 1) and "0::/a" (version 2).
void take_control_groups(const std::string& root, FreeMemory& free) {
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") take_groups(root, version2, group, free);
    if (controllers.find(",memory,") != std::string::npos) take_groups(root, version1, group, free);
  }
}

}  // namespace

std::uint64_t FreeMemory::of_rank(int host_ranks, int process_ranks) const {
  const std::uint64_t of_host = host == unlimited ? unlimited : host / static_cast<std::uint64_t>(host_ranks);
  const std::uint64_t own = process == unlimited ? unlimited : process / static_cast<std::uint64_t>(process_ranks);
  return std::min(of_host, own);
}

std::string FreeMemory::limit(int host_ranks, int process_ranks) const {
  if (process != unlimited && of_rank(host_ranks, process_ranks) == process / static_cast<std::uint64_t>(process_ranks))
    return "the limit of this process's address space (ulimit -v)";
  return host_limit;
}

FreeMemory free_memory(const std::string& root) {
  FreeMemory free;
  if (const std::uint64_t kib = entry_of(root + "/proc/meminfo", "MemAvailable:"); kib > 0) {
    free.host = kib * 1024;
    free.host_limit = "the machine";
  }
  take_control_groups(root, free);
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    const std::uint64_t pages = number_of("/proc/self/statm").value_or(0);
    free.process = minus(limit.rlim_cur, pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)));
  }
  return free;
}

FreeMemory free_memory_of(DeviceApi& device) {
  FreeMemory free;
  free.host = device.memory_info().free;
  free.host_limit = device.name();
  return free;
}

}  // namespace lockstep::run
