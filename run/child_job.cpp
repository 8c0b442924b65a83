#include "run/child_job.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <thread>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* mark_name = "LOCKSTEP_REHEARSAL=";
constexpr const char* shared_memory = "/dev/shm/";

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// The entries of a process's environment; none of one that is over.
std::vector<std::string> environment_of(pid_t process) {
  const std::string text = text_of(fmt::format("/proc/{}/environ", process));
  std::vector<std::string> entries;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\0', at), text.size());
    entries.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return entries;
}

std::optional<std::string> value_in(const std::vector<std::string>& environment, std::string_view name) {
  for (const std::string& entry : environment)
    if (entry.size() > name.size() && entry[name.size()] == '=' && entry.starts_with(name))
      return entry.substr(name.size() + 1);
  return std::nullopt;
}

/// This process's environment with the changes, and the mark.
std::vector<std::string> changed_environment(const std::map<std::string, std::optional<std::string>>& changes,
                                             const std::string& mark) {
  std::vector<std::string> result = {mark};
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string name(text.substr(0, text.find('=')));
    if (!changes.contains(name) && !text.starts_with(mark_name)) result.emplace_back(text);
  }
  for (const auto& [name, value] : changes)
    if (value) result.push_back(name + "=" + *value);
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

/// mpirun's folder of a job, from the one that it names to its ranks: `.../pid.4711/...`. Nothing if it is not of this
/// mpirun.
std::optional<std::string> session_folder(const std::string& named, pid_t launcher) {
  const std::string part = fmt::format("/pid.{}", launcher);
  const std::size_t at = (named + "/").find(part + "/");
  if (at == std::string::npos) return std::nullopt;
  return named.substr(0, at + part.size());
}

/// When a process was started, in the clock ticks of /proc; 0 of one that is over.
std::uint64_t start_of(pid_t process) {
  const std::string text = text_of(fmt::format("/proc/{}/stat", process));
  const std::size_t name_end = text.rfind(')');  // a name may hold anything
  if (name_end == std::string::npos) return 0;
  std::stringstream fields(text.substr(name_end + 1));
  std::string field;
  for (int number = 3; number <= 22; ++number) fields >> field;
  return std::strtoull(field.c_str(), nullptr, 10);
}

/// Whether SIGKILL waits for the process to come out of the system: it dies with the end of what it does there, such as
/// a flush to a slow disk.
bool is_dying(pid_t process) {
  std::stringstream status(text_of(fmt::format("/proc/{}/status", process)));
  constexpr std::uint64_t kill_bit = std::uint64_t{1} << (SIGKILL - 1);
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"))
      if ((std::strtoull(line.c_str() + 7, nullptr, 16) & kill_bit) != 0) return true;
  return false;
}

}  // namespace

std::optional<std::string> program_in_path(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::stringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = folder + "/" + name;
    if (!folder.empty() && access(file.c_str(), X_OK) == 0 && !fs::is_directory(file)) return file;
  }
  return std::nullopt;
}

ChildJob::Leftovers& ChildJob::Leftovers::operator+=(const Leftovers& other) {
  library_blocks += other.library_blocks;
  library_folders += other.library_folders;
  lockstep_blocks += other.lockstep_blocks;
  if (first_own.empty()) first_own = other.first_own;
  return *this;
}

ChildJob::ChildJob(const Options& options) {
  static std::atomic<int> count = 0;
  mark_ = fmt::format("{}{}-{}", mark_name, getpid(), ++count);
  std::vector<std::string> words = {options.mpirun, "-n", std::to_string(options.ranks), "--oversubscribe"};
  words.insert(words.end(), options.command.begin(), options.command.end());
  std::vector<std::string> environment = changed_environment(options.environment, mark_);
  const std::vector<char*> argv = pointers(words), envp = pointers(environment);
  const int log = open(options.log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (log < 0) fail(ErrorKind::environment, "{}: cannot be written: {}", printable(options.log), std::strerror(errno));
  const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t parent = getpid();
  launcher_ = fork();
  if (launcher_ == 0) {
    // Between fork and exec only what signal handlers may call. The job ends with this process.
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup2(nothing, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) _exit(127);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  const int reason = errno;
  if (launcher_ > 0) started_ = start_of(launcher_);
  close(log);
  close(nothing);
  if (launcher_ < 0)
    fail(ErrorKind::environment, "{}: cannot be started: {}", printable(options.mpirun), std::strerror(reason));
}

ChildJob::~ChildJob() {
  if (!ended_) (void)::kill(launcher_, SIGKILL);
  (void)wait_gone(std::chrono::milliseconds(500));
}

bool ChildJob::ended() {
  if (ended_) return true;
  int status = 0;
  pid_t found = 0;
  while ((found = waitpid(launcher_, &status, WNOHANG)) < 0 && errno == EINTR) {
  }
  if (found == 0) return false;
  ended_ = true;
  exit_code_ = found < 0 ? -1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return true;
}

std::vector<pid_t> ChildJob::marked() const {
  std::vector<pid_t> processes;
  std::error_code error;
  for (fs::directory_iterator at("/proc", error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    pid_t process = 0;
    const auto [stop, bad] = std::from_chars(name.data(), name.data() + name.size(), process);
    if (bad != std::errc() || stop != name.data() + name.size()) continue;
    // The environment of a process that maps memory just now makes the reader wait, so nobody's is read in vain.
    const std::uint64_t start = start_of(process);
    if (start < started_ || strangers_.contains({process, start})) continue;
    const std::vector<std::string> environment = environment_of(process);
    if (std::find(environment.begin(), environment.end(), mark_) != environment.end())
      processes.push_back(process);
    else if (!environment.empty())
      strangers_.insert({process, start});
  }
  return processes;
}

std::map<int, pid_t> ChildJob::ranks() const {
  std::map<int, pid_t> ranks;
  for (const pid_t process : marked())
    if (const auto rank = value_in(environment_of(process), "OMPI_COMM_WORLD_RANK"))
      ranks[std::atoi(rank->c_str())] = process;
  return ranks;
}

void ChildJob::look() {
  for (const auto& [rank, process] : ranks()) {
    std::stringstream maps(text_of(fmt::format("/proc/{}/maps", process)));
    for (std::string line; std::getline(maps, line);) {
      const std::size_t at = line.find(shared_memory);
      // A name that is gone already has " (deleted)" behind it.
      if (at != std::string::npos && line.find(' ', at) == std::string::npos) blocks_.insert(line.substr(at));
    }
    if (const auto named = value_in(environment_of(process), "PMIX_SERVER_TMPDIR"))
      if (const auto folder = session_folder(*named, launcher_)) folders_.insert(*folder);
  }
}

bool ChildJob::kill_one(std::optional<pid_t> rank) {
  return !ended() && ::kill(rank.value_or(launcher_), SIGKILL) == 0;
}

std::vector<pid_t> ChildJob::wait_gone(std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds moment(1);
  constexpr std::chrono::seconds launcher_patience(60), disk_patience(60);
  for (const auto end = Clock::now() + launcher_patience; !ended() && Clock::now() < end;)
    std::this_thread::sleep_for(moment);
  const auto wait_for_all = [&](Clock::time_point end) {
    for (;; std::this_thread::sleep_for(moment)) {
      const bool over = ended();
      std::vector<pid_t> living = marked();
      if ((over && living.empty()) || Clock::now() > end) return living;
    }
  };
  std::vector<pid_t> late = wait_for_all(Clock::now() + patience);
  std::erase_if(late, is_dying);
  for (const pid_t process : late) (void)::kill(process, SIGKILL);
  std::vector<pid_t> stuck = wait_for_all(Clock::now() + disk_patience);
  return stuck.empty() ? late : stuck;
}

ChildJob::Leftovers ChildJob::sweep() {
  Leftovers left;
  for (const std::string& block : blocks_) {
    std::error_code error;
    if (!fs::remove(block, error)) continue;
    const bool own = block.starts_with(std::string(shared_memory) + "lockstep");
    ++(own ? left.lockstep_blocks : left.library_blocks);
    if (own && left.first_own.empty()) left.first_own = block;
  }
  for (const std::string& folder : folders_) {
    std::error_code error;
    if (!fs::exists(folder, error)) continue;
    fs::remove_all(folder, error);
    ++left.library_folders;
  }
  blocks_.clear();
  folders_.clear();
  return left;
}

}  // namespace lockstep::run
