#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/local.hpp"

// The meeting point behind the local backend; comm/local.hpp is the public side.
//
// A collective is an Operation. Each rank posts its part (pointers, offsets) under the operation's number; the rank
// that posts last makes it ready. From then on it is a list of independent work items, and whichever rank comes by
// (progress, test, wait) takes the next one. Who does an item does not change its result.
namespace lockstep::comm {

enum class Collective : std::uint8_t { all_reduce, reduce_scatter, all_gather, broadcast, all_to_all, barrier, arena };

[[nodiscard]] std::string_view to_string(Collective kind) noexcept;

/// What one rank brings to a collective.
struct Posting {
  Collective kind = Collective::barrier;
  Buffer data{};     ///< all_to_all: what is sent
  Buffer receive{};  ///< all_to_all only
  Reduce op = Reduce::sum;
  int root = 0;
  Parts parts{};                       ///< of data, by rank
  Parts receive_parts{};               ///< all_to_all only
  std::shared_ptr<void> keep_alive{};  ///< lives as long as the operation
};

/// One collective of all ranks.
class Operation {
 public:
  Operation(std::uint64_t number, int ranks);
  [[nodiscard]] bool ready() const { return ready_.load(std::memory_order_acquire); }
  [[nodiscard]] bool complete() const { return complete_.load(std::memory_order_acquire); }
  /// Valid once complete.
  [[nodiscard]] const Posting& posting(int rank) const { return postings_[static_cast<std::size_t>(rank)]; }

 private:
  friend class LocalGroup;
  [[nodiscard]] std::string describe(const Posting& posting) const;
  void check_agreement(int rank, const Posting& posting) const;
  void make_ready();
  void run_item(std::size_t item);
  void copy_to_peers(std::size_t begin, std::size_t count);

  std::uint64_t number_;
  std::vector<Posting> postings_;
  std::vector<bool> arrived_;  // under the group's mutex
  int arrived_count_ = 0;      // under the group's mutex
  int first_ = -1;             // the rank whose posting the others are compared with
  std::size_t items_ = 0;
  std::atomic<bool> ready_{false};
  std::atomic<bool> complete_{false};
  std::atomic<std::size_t> next_item_{0};
  std::atomic<std::size_t> finished_items_{0};
};

/// Thread-safe. shared_ptr: its ranks' threads end in any order.
class LocalGroup {
 public:
  explicit LocalGroup(int ranks);

  [[nodiscard]] int size() const { return ranks_; }
  /// Joins operation `number` (equal on all ranks, from 1). Never blocks. Throws AbortedByPeer after abort(), and
  /// ErrorKind::desync where the ranks do not ask for the same thing.
  std::shared_ptr<Operation> post(int rank, std::uint64_t number, Posting posting);
  /// Does whatever work the operation has left for the taking.
  void work(Operation& operation);
  /// Works and waits until complete; ErrorKind::hang names the ranks that have not arrived.
  void wait(Operation& operation, Seconds timeout);
  void abort(int rank, std::string_view why, int exit_code) noexcept;
  /// `rank` takes part in nothing any more: waits that need it fail at once.
  void leave(int rank) noexcept;
  void throw_if_aborted();

 private:
  void throw_if_aborted_locked() const;
  [[nodiscard]] std::vector<int> missing_locked(const Operation& operation, bool only_gone) const;

  const int ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, std::shared_ptr<Operation>> gathering_;  // not yet posted by all
  std::map<std::uint64_t, std::string> withdrawn_;  // given up by a rank that waited, and why: its buffers are gone
  std::vector<bool> gone_;
  bool aborted_ = false;
  int aborted_by_ = 0;
  std::string abort_reason_;
  ErrorKind abort_kind_ = ErrorKind::internal;
};

}  // namespace lockstep::comm
