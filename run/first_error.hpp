#pragma once

#include <exception>
#include <string>
#include <utility>

#include "comm/communicator.hpp"
#include "core/error.hpp"
#include "core/failure.hpp"
#include "files/durable_file.hpp"

namespace lockstep::run {

/// The first thing that went wrong on this rank. A rank that cannot write must still take part in what the others need
/// it for, so errors of files are kept until all agree on them.
class FirstError {
 public:
  FirstError() = default;
  /// Calls `work` unless something has gone wrong already.
  template <class Work>
  void unless_failed(const Work& work) {
    if (!text_.empty()) return;
    try {
      work();
    } catch (const files::DiskTrouble& error) {
      *this = {ErrorKind::checkpoint, true, error.what()};
    } catch (...) {
      const Failure failure = failure_of(std::current_exception());
      *this = {failure.kind, false, failure.text};
    }
  }
  [[nodiscard]] bool failed() const { return !text_.empty(); }
  [[nodiscard]] const std::string& text() const { return text_; }
  /// Throws what is kept, if anything is, as what it was.
  void rethrow(const std::string& before) const;

  /// Collective: every rank takes the error of the lowest rank that has one, which is named if there are others.
  void agree(comm::Communicator& comm);

 private:
  FirstError(ErrorKind kind, bool trouble, std::string text) : kind_(kind), trouble_(trouble), text_(std::move(text)) {}

  ErrorKind kind_ = ErrorKind::checkpoint;
  bool trouble_ = false;
  std::string text_;
};

}  // namespace lockstep::run
