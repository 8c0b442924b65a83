#pragma once

#include <omp.h>

namespace lockstep::kernels {

/// While it lives, OpenMP loops that the calling thread begins have so many threads. oneDNN asks for that number.
class ThreadLimit {
 public:
  explicit ThreadLimit(int threads) : before_(omp_get_max_threads()) {
    if (threads != before_) omp_set_num_threads(threads);
  }
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;
  ~ThreadLimit() { omp_set_num_threads(before_); }

 private:
  int before_;
};

}  // namespace lockstep::kernels
