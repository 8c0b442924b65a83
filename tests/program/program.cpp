#include "tests/program/program.hpp"

#include <fcntl.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "core/error.hpp"

namespace lockstep::testing {
namespace {

namespace fs = std::filesystem;

constexpr const char* mark_name = "LOCKSTEP_TEST_MARK";

std::string whole(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// The value of a variable in another process's environment; empty if it has none or is gone.
std::string variable_of(const fs::path& process, const std::string& name) {
  std::istringstream environment(whole(process / "environ"));
  for (std::string entry; std::getline(environment, entry, '\0');)
    if (entry.starts_with(name + "=")) return entry.substr(name.size() + 1);
  return {};
}

bool until(Seconds patience, const std::function<bool()>& holds) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace

Program::Program(const std::string& command, const Options& options) {
  std::string pattern = (fs::temp_directory_path() / "lockstep-program-XXXXXX").string();
  require(mkdtemp(pattern.data()) != nullptr, "Program: mkdtemp failed");
  output_ = pattern;
  mark_ = output_;
  // The words are functions, so that a command reads as a user types it. exec: signals reach the command itself.
  const std::string last = options.redirect.empty() ? "exec " : "";
  std::string line = command;
  for (const auto& [word, meaning] :
       std::map<std::string, std::string>{{"mpirun", "mpirun --oversubscribe"}, {"lockstep", LOCKSTEP_PROGRAM}})
    for (std::size_t at = line.find(word + " "); at != std::string::npos; at = line.find(word + " ", at)) {
      const bool whole_word = at == 0 || line[at - 1] == ' ';
      if (whole_word) line.replace(at, word.size(), meaning);
      at += whole_word ? meaning.size() : word.size();
    }
  line = last + line + " " + options.redirect;

  int outside = -1, inside = -1;
  winsize size{};
  size.ws_col = static_cast<unsigned short>(options.columns);
  if (options.columns > 0)
    require(openpty(&outside, &inside, nullptr, nullptr, &size) == 0 && fcntl(outside, F_SETFD, FD_CLOEXEC) == 0,
            "Program: no pseudo terminal");
  pid_ = fork();
  require(pid_ >= 0, "Program: fork failed");
  if (pid_ > 0) {
    if (outside < 0) return;
    close(inside);
    recorder_ = std::thread([this, outside] { record(outside); });
    return;
  }
  // In the child: only what is safe there, then exec.
  setsid();
  setenv(mark_name, mark_.c_str(), 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  for (const auto& [name, value] : options.environment) setenv(name.c_str(), value.c_str(), 1);
  if (chdir(options.folder.c_str()) != 0) _exit(120);
  dup2(open("/dev/null", O_RDONLY), 0);
  const auto file = [&](const char* name) {
    return open((output_ + "/" + name).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  };
  dup2(inside >= 0 ? inside : file("out"), 1);
  dup2(inside >= 0 ? inside : file("err"), 2);
  if (inside >= 0) close(inside);
  execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
  _exit(121);
}

void Program::record(int terminal) const {
  std::ofstream out(output_ + "/out", std::ios::binary | std::ios::app);
  std::array<char, 4096> piece{};
  for (ssize_t n = 0; (n = read(terminal, piece.data(), piece.size())) > 0;) out.write(piece.data(), n).flush();
  close(terminal);
}

Program::~Program() {
  for (const pid_t pid : marked()) kill(pid, SIGKILL);
  if (!over_) waitpid(pid_, nullptr, 0);
  if (recorder_.joinable()) recorder_.join();
  std::error_code ignored;
  fs::remove_all(output_, ignored);
}

std::string Program::text_of(const char* stream) const { return whole(fs::path(output_) / stream); }

bool Program::wait_for(const std::string& text, Seconds patience) const {
  return until(patience, [&] { return output().find(text) != std::string::npos; });
}

void Program::signal(int number) const { kill(pid_, number); }

std::vector<pid_t> Program::marked() const {
  std::vector<pid_t> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const int pid = std::atoi(entry.path().filename().c_str());
    if (pid > 0 && variable_of(entry.path(), mark_name) == mark_) found.push_back(pid);
  }
  return found;
}

std::map<int, pid_t> Program::ranks() const {
  std::map<int, pid_t> by_rank;
  for (const pid_t pid : marked()) {
    const fs::path process = fs::path("/proc") / std::to_string(pid);
    std::error_code ignored;
    if (fs::read_symlink(process / "exe", ignored) != fs::path(LOCKSTEP_PROGRAM)) continue;
    const std::string rank = variable_of(process, "OMPI_COMM_WORLD_RANK");
    by_rank[rank.empty() ? 0 : std::atoi(rank.c_str())] = pid;
  }
  return by_rank;
}

Outcome Program::finish(Seconds patience) {
  int status = 0;
  const bool ended = until(patience, [&] { return waitpid(pid_, &status, WNOHANG) == pid_; });
  if (ended) over_ = true;
  if (ended && recorder_.joinable()) recorder_.join();
  Outcome outcome{.exit_code = -1, .out = text_of("out"), .err = text_of("err")};
  if (!ended) outcome.err += "\n(killed by the test: it did not end)";
  if (ended && WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  if (ended && WIFSIGNALED(status)) outcome.exit_code = 128 + WTERMSIG(status);
  return outcome;
}

bool Program::all_gone(Seconds patience) const {
  return until(patience, [&] { return marked().empty(); });
}

bool Program::ranks_gone(Seconds patience) const {
  return until(patience, [&] { return ranks().empty(); });
}

std::string program_path() { return LOCKSTEP_PROGRAM; }

Outcome run_program(const std::string& command, const Program::Options& options, Seconds patience) {
  return Program(command, options).finish(patience);
}

}  // namespace lockstep::testing
