#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace lockstep::testing {

using Seconds = std::chrono::duration<double>;

struct Outcome {
  int exit_code = -1;  ///< 128 + signal if one ended it
  std::string out;
  std::string err;
  [[nodiscard]] std::string all() const { return out + err; }
};

/// A command under test: the real program, alone or under a real mpirun, in a scratch folder, with its output in files
/// or on a terminal.
/// Everything it starts carries a mark in its environment, by which it is found and, at the latest when the object
/// goes, killed.
class Program {
 public:
  struct Options {
    std::map<std::string, std::string> environment = {};
    std::string folder;         ///< the current folder of the command
    std::string redirect = {};  ///< appended to the command, for a shell: "2>&1 | head -1"
    int columns = 0;  ///< both streams are a terminal so wide, what it is sent stands in Outcome::out; 0: files
  };
  /// `command`: words, quoted for a shell; `lockstep` stands for the program and `mpirun` for a launcher that is told
  /// to oversubscribe.
  Program(const std::string& command, const Options& options);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program();

  /// Waits until `text` has appeared in the output; false after `patience`.
  [[nodiscard]] bool wait_for(const std::string& text, Seconds patience = Seconds(30)) const;
  /// To the command itself (mpirun, or the program where it was started alone).
  void signal(int number) const;
  /// Processes of the program that live now, by rank as their environment says.
  [[nodiscard]] std::map<int, pid_t> ranks() const;
  /// Waits for the end; after `patience` everything is killed and the exit code is -1.
  Outcome finish(Seconds patience = Seconds(60));
  /// What has been written so far, on both streams: a rank may speak after the command's end.
  [[nodiscard]] std::string output() const { return text_of("out") + text_of("err"); }
  /// Waits until no process that the command started is left; false after `patience`.
  [[nodiscard]] bool all_gone(Seconds patience) const;
  /// The same of its ranks alone.
  [[nodiscard]] bool ranks_gone(Seconds patience) const;

 private:
  [[nodiscard]] std::vector<pid_t> marked() const;
  [[nodiscard]] std::string text_of(const char* stream) const;

  /// Writes what a terminal is sent to the file of standard output, until nobody holds it any more.
  void record(int terminal) const;

  std::string mark_;
  std::string output_;  ///< folder of the output files
  pid_t pid_ = -1;
  bool over_ = false;
  std::thread recorder_;
};

/// The program under test.
[[nodiscard]] std::string program_path();

/// Runs a command to its end.
[[nodiscard]] Outcome run_program(const std::string& command, const Program::Options& options,
                                  Seconds patience = Seconds(60));

}  // namespace lockstep::testing
