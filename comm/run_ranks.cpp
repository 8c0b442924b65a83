#include "comm/run_ranks.hpp"

#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace lockstep::comm {
namespace {

int code_of(const std::exception& error) {
  const auto* typed = dynamic_cast<const Error*>(&error);
  return exit_code(typed != nullptr ? typed->kind() : ErrorKind::internal);
}

/// Keeps the exception that explains a failure best: the first one that is not an echo of another.
class FirstError {
 public:
  void keep(std::exception_ptr error, bool echo) {
    const std::lock_guard lock(mutex_);
    if (!error_ || (echo_ && !echo)) {
      error_ = std::move(error);
      echo_ = echo;
    }
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
  bool echo_ = false;
};

}  // namespace

void run_rank_threads(int ranks, const std::function<void(const std::shared_ptr<LocalGroup>&, int)>& body) {
  const auto group = make_local_group(ranks);
  FirstError first;
  const auto run = [&](int rank) {
    try {
      body(group, rank);
    } catch (const AbortedByPeer&) {
      first.keep(std::current_exception(), true);
    } catch (const std::exception& error) {
      first.keep(std::current_exception(), false);
      abort_group(*group, rank, error.what(), code_of(error));
    } catch (...) {
      first.keep(std::current_exception(), false);
      abort_group(*group, rank, "an exception of unknown type", exit_code(ErrorKind::internal));
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  }
  first.rethrow();
}

void run_as_rank(const std::shared_ptr<LocalGroup>& group, int rank, const LocalOptions& options,
                 const std::function<void(Communicator&)>& body) {
  const auto communicator = make_local(group, rank, options);
  try {
    body(*communicator);
  } catch (const AbortedByPeer&) {
    throw;
  } catch (const std::exception& error) {
    communicator->abort(error.what(), code_of(error));  // before the communicator goes
    throw;
  }
}

void run_ranks(int ranks, const std::function<void(Communicator&)>& body, const LocalOptions& options) {
  run_rank_threads(
      ranks, [&](const std::shared_ptr<LocalGroup>& group, int rank) { run_as_rank(group, rank, options, body); });
}

}  // namespace lockstep::comm
