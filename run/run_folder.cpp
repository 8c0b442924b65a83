#include "run/run_folder.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "core/error.hpp"
#include "core/host.hpp"
#include "core/text.hpp"
#include "files/durable_folder.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;

std::string time_text() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[64] = {};
  (void)std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &utc);
  return text;
}

/// How this process was started: names the job better than anything else.
std::string command_line() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  std::string line = text.str().substr(0, 500);
  while (!line.empty() && line.back() == '\0') line.pop_back();
  std::replace(line.begin(), line.end(), '\0', ' ');
  return line;
}

std::string whole_text(int file) {
  char text[1024];
  const ssize_t n = ::pread(file, text, sizeof(text), 0);
  return n > 0 ? std::string(text, static_cast<std::size_t>(n)) : std::string();
}

void say_who(int file, const std::string& run_id) {
  const std::string text = fmt::format("pid {} on {} since {}, run id {}, started as `{}`\n", getpid(), host_name(),
                                       time_text(), run_id, command_line());
  // For people alone: a full disk here changes nothing about the lock.
  if (::ftruncate(file, 0) != 0 || ::pwrite(file, text.data(), text.size(), 0) < 0) return;
}

}  // namespace

std::string run_folder(const job::JobConfig& job) { return (fs::path(job.run.output_dir) / job.run.name).string(); }

std::string lock_path(const std::string& run_folder) {
  const fs::path folder(run_folder);
  return (fs::path(files::parent_of(run_folder)) / ("." + folder.filename().string() + ".lock")).string();
}

RunLock::RunLock(const std::string& run_folder, std::chrono::milliseconds patience) {
  std::random_device random;
  run_id_ = fmt::format("{:08x}", random());
  const std::string path = lock_path(run_folder);
  try {
    files::make_folders(files::parent_of(path));
  } catch (const Error& error) {
    fail(ErrorKind::environment, "{}; run.output_dir says where the run's folder {} lies", error.what(),
         printable(run_folder));
  }
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file_ < 0)
    fail(ErrorKind::environment, "{}: the lock of the run's folder cannot be opened: {}", printable(path),
         std::strerror(errno));
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    if (reason == EINTR) continue;
    if (reason != EWOULDBLOCK) {
      effective_ = false;
      return;
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      std::string holder = whole_text(file_);
      while (!holder.empty() && holder.back() == '\n') holder.pop_back();
      ::close(file_);
      fail(ErrorKind::environment,
           "the run's folder {} is in use by {}.\n"
           "  Two jobs cannot write one run: wait for that one, stop it, or give this one another run.name",
           printable(run_folder), holder.empty() ? "another job" : printable(holder));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  say_who(file_, run_id_);
}

RunLock::~RunLock() { ::close(file_); }

std::string move_folder_aside(const std::string& run_folder) {
  for (int n = 1;; ++n) {
    const std::string aside = fmt::format("{}.old-{}", run_folder, n);
    if (files::path_exists(aside)) continue;
    files::rename_path(run_folder, aside);
    files::sync_folder(files::parent_of(run_folder));
    return aside;
  }
}

}  // namespace lockstep::run
