#include "comm/local_group.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "comm/deadline.hpp"
#include "comm/reduce.hpp"

namespace lockstep::comm {
namespace {

// Elements of one work item. Small enough that a second rank finds work while the first one works, large enough that
// taking an item (one atomic addition) costs nothing.
constexpr std::size_t chunk = std::size_t{1} << 14;

// Looks at the operation this often before a waiting thread goes to sleep: about a wake-up's latency.
constexpr int looks_before_sleep = 200;

// A sleeping rank looks at the clock so often that a stopped process is told from a slow peer.
constexpr std::chrono::milliseconds look_while_asleep{250};

ErrorKind kind_of(int code) {
  for (const ErrorKind kind : {ErrorKind::config, ErrorKind::data, ErrorKind::checkpoint, ErrorKind::diverged,
                               ErrorKind::hang, ErrorKind::desync, ErrorKind::environment, ErrorKind::preempted})
    if (exit_code(kind) == code) return kind;
  return ErrorKind::internal;
}

/// "rank 1, rank 4"
std::string names_of(const std::vector<int>& ranks) {
  std::string names;
  for (const int r : ranks) names.append(names.empty() ? "rank " : ", rank ").append(std::to_string(r));
  return names;
}

}  // namespace

std::string_view to_string(Collective kind) noexcept {
  switch (kind) {
    case Collective::all_reduce:
      return "all_reduce";
    case Collective::reduce_scatter:
      return "reduce_scatter";
    case Collective::all_gather:
      return "all_gather";
    case Collective::broadcast:
      return "broadcast";
    case Collective::all_to_all:
      return "all_to_all";
    case Collective::barrier:
      return "barrier";
    case Collective::arena:
      return "make_arena";
  }
  return "unknown";
}

Operation::Operation(std::uint64_t number, int ranks)
    : number_(number), postings_(static_cast<std::size_t>(ranks)), arrived_(static_cast<std::size_t>(ranks)) {}

std::string Operation::describe(const Posting& posting) const {
  if (posting.kind == Collective::barrier || posting.kind == Collective::arena)
    return fmt::format("{}", to_string(posting.kind));
  const std::string size = fmt::format("{} x {}", posting.data.count, lockstep::to_string(posting.data.dtype));
  if (posting.kind == Collective::all_reduce || posting.kind == Collective::reduce_scatter)
    return fmt::format("{} ({}) of {}", to_string(posting.kind), to_string(posting.op), size);
  if (posting.kind == Collective::broadcast) return fmt::format("broadcast from rank {} of {}", posting.root, size);
  return fmt::format("{} of {}", to_string(posting.kind), size);
}

void Operation::check_agreement(int rank, const Posting& posting) const {
  if (first_ < 0) return;
  const Posting& other = postings_[static_cast<std::size_t>(first_)];
  // What an all_to_all sends is each rank's own affair; its parts are compared when all have arrived.
  const bool same_size = posting.kind == Collective::all_to_all || posting.kind == Collective::arena ||
                         (posting.data.count == other.data.count && posting.parts == other.parts);
  const bool same = posting.kind == other.kind && posting.data.dtype == other.data.dtype && posting.op == other.op &&
                    posting.root == other.root && same_size;
  if (!same)
    fail(
        ErrorKind::desync,
        "collective number {}: rank {} asks for {}, rank {} for {}{}; all ranks must issue the same collectives in the "
        "same order",
        number_, rank, describe(posting), first_, describe(other),
        describe(posting) == describe(other) ? " with other offsets" : "");
}

void Operation::make_ready() {
  const std::size_t ranks = postings_.size();
  const Posting& any = postings_[0];
  if (any.kind == Collective::all_to_all) {
    items_ = ranks * ranks;
    for (std::size_t s = 0; s < ranks; ++s)
      for (std::size_t d = 0; d < ranks; ++d) {
        const std::size_t sent = postings_[s].parts[d].size();
        const std::size_t expected = postings_[d].receive_parts[s].size();
        if (sent != expected)
          fail(ErrorKind::desync,
               "all_to_all, collective number {}: rank {} sends {} elements to rank {}, which expects {}", number_, s,
               sent, d, expected);
      }
  } else {
    items_ = (any.data.count + chunk - 1) / chunk;
  }
  if (any.kind == Collective::arena || any.kind == Collective::barrier) items_ = 0;
  if (items_ == 0) complete_.store(true, std::memory_order_release);
  ready_.store(true, std::memory_order_release);
}

void Operation::copy_to_peers(std::size_t begin, std::size_t count) {
  const Parts& parts = postings_[0].parts;
  for (std::size_t owner = 0; owner < postings_.size(); ++owner) {
    const std::size_t from = std::max(begin, parts[owner].begin);
    const std::size_t to = std::min(begin + count, parts[owner].end);
    if (from >= to) continue;
    const Buffer source = postings_[owner].data.part(from, to - from);
    for (std::size_t r = 0; r < postings_.size(); ++r)
      if (r != owner) std::memcpy(postings_[r].data.part(from, to - from).data, source.data, source.bytes());
  }
}

void Operation::run_item(std::size_t item) {
  const std::size_t ranks = postings_.size();
  const Posting& any = postings_[0];
  const std::size_t begin = item * chunk;
  const std::size_t count = std::min(chunk, any.data.count - std::min(begin, any.data.count));
  switch (any.kind) {
    case Collective::all_reduce:
    case Collective::reduce_scatter: {
      std::vector<void*> buffers(ranks);
      for (std::size_t r = 0; r < ranks; ++r) buffers[r] = postings_[r].data.data;
      if (any.kind == Collective::all_reduce)
        return reduce_in_tree_order(any.data.dtype, any.op, buffers, buffers, begin, count);
      for (std::size_t r = 0; r < ranks; ++r) {
        const std::size_t from = std::max(begin, any.parts[r].begin);
        const std::size_t to = std::min(begin + count, any.parts[r].end);
        if (from < to) reduce_in_tree_order(any.data.dtype, any.op, buffers, {&buffers[r], 1}, from, to - from);
      }
      return;
    }
    case Collective::all_gather:
      return copy_to_peers(begin, count);
    case Collective::broadcast: {
      const Buffer source = postings_[static_cast<std::size_t>(any.root)].data.part(begin, count);
      for (const Posting& posting : postings_) {
        const Buffer target = posting.data.part(begin, count);
        if (target.data != source.data) std::memcpy(target.data, source.data, source.bytes());
      }
      return;
    }
    case Collective::all_to_all: {
      const std::size_t s = item / ranks, d = item % ranks;
      const Posting &from = postings_[s], &to = postings_[d];
      const Buffer source = from.data.part(from.parts[d].begin, from.parts[d].size());
      if (source.count > 0)
        std::memcpy(to.receive.part(to.receive_parts[s].begin, source.count).data, source.data, source.bytes());
      return;
    }
    case Collective::barrier:
    case Collective::arena:
      return;
  }
}

LocalGroup::LocalGroup(int ranks) : ranks_(ranks), gone_(static_cast<std::size_t>(std::max(ranks, 0))) {
  require(ranks >= 1, "local group: at least one rank is needed");
}

std::shared_ptr<Operation> LocalGroup::post(int rank, std::uint64_t number, Posting posting) {
  const std::lock_guard lock(mutex_);
  throw_if_aborted_locked();
  if (const auto given_up = withdrawn_.find(number); given_up != withdrawn_.end())
    throw AbortedByPeer(
        ErrorKind::hang,
        fmt::format("local collective number {}: rank {} came after another rank had given up waiting{}", number, rank,
                    given_up->second));
  auto& slot = gathering_[number];
  if (!slot) slot = std::make_shared<Operation>(number, ranks_);
  const std::shared_ptr<Operation> operation = slot;
  operation->check_agreement(rank, posting);
  if (operation->first_ < 0) operation->first_ = rank;
  const auto r = static_cast<std::size_t>(rank);
  operation->postings_[r] = std::move(posting);
  operation->arrived_[r] = true;
  if (++operation->arrived_count_ == ranks_) {
    gathering_.erase(number);
    operation->make_ready();
    changed_.notify_all();
  }
  return operation;
}

void LocalGroup::work(Operation& operation) {
  if (!operation.ready()) return;
  for (;;) {
    const std::size_t item = operation.next_item_.fetch_add(1, std::memory_order_relaxed);
    if (item >= operation.items_) return;
    operation.run_item(item);
    if (operation.finished_items_.fetch_add(1, std::memory_order_acq_rel) + 1 == operation.items_) {
      const std::lock_guard lock(mutex_);
      operation.complete_.store(true, std::memory_order_release);
      changed_.notify_all();
      return;
    }
  }
}

void LocalGroup::wait(Operation& operation, Seconds timeout) {
  Deadline deadline(timeout);
  work(operation);
  for (int i = 0; i < looks_before_sleep && !operation.complete(); ++i) {
    std::this_thread::yield();
    work(operation);
  }
  while (!operation.complete()) {
    std::unique_lock lock(mutex_);
    if (operation.ready()) {
      // Completion needs nobody who could be gone: it is only a matter of the others' running items.
      changed_.wait(lock, [&] { return operation.complete(); });
      return;
    }
    const auto news = [&] { return operation.ready() || aborted_ || !missing_locked(operation, true).empty(); };
    const bool woken = changed_.wait_for(lock, look_while_asleep, news);
    if (operation.ready()) {
      lock.unlock();
      work(operation);
      continue;
    }
    if (!woken && !deadline.passed()) continue;
    // From here on this rank unwinds and its buffers go: nobody may make the operation ready any more.
    gathering_.erase(operation.number_);
    const std::vector<int> ended = missing_locked(operation, true);
    withdrawn_[operation.number_] = ended.empty() ? "" : ": " + names_of(ended) + " ended without taking part";
    throw_if_aborted_locked();
    const std::string what = operation.describe(operation.postings_[static_cast<std::size_t>(operation.first_)]);
    if (!woken)
      fail(ErrorKind::hang,
           "local {}, collective number {}: {} did not arrive within {:g} s; look at what they last logged, or raise "
           "comm.timeout_s if they are only slow",
           what, operation.number_, names_of(missing_locked(operation, false)), timeout.count());
    // An echo: what ended that rank explains more than our waiting for it.
    throw AbortedByPeer(ErrorKind::hang,
                        fmt::format("local {}, collective number {}: {} ended without taking part", what,
                                    operation.number_, names_of(missing_locked(operation, true))));
  }
}

void LocalGroup::abort(int rank, std::string_view why, int exit_code) noexcept {
  const std::lock_guard lock(mutex_);
  if (aborted_) return;
  aborted_ = true;
  aborted_by_ = rank;
  abort_kind_ = kind_of(exit_code);
  abort_reason_ = why;
  changed_.notify_all();
}

void LocalGroup::leave(int rank) noexcept {
  const std::lock_guard lock(mutex_);
  gone_[static_cast<std::size_t>(rank)] = true;
  changed_.notify_all();
}

void LocalGroup::throw_if_aborted() {
  const std::lock_guard lock(mutex_);
  throw_if_aborted_locked();
}

void LocalGroup::throw_if_aborted_locked() const {
  if (aborted_) throw AbortedByPeer(abort_kind_, fmt::format("rank {} ended the job: {}", aborted_by_, abort_reason_));
}

std::vector<int> LocalGroup::missing_locked(const Operation& operation, bool only_gone) const {
  std::vector<int> missing;
  for (int r = 0; r < ranks_; ++r) {
    const auto i = static_cast<std::size_t>(r);
    if (!operation.arrived_[i] && (gone_[i] || !only_gone)) missing.push_back(r);
  }
  return missing;
}

}  // namespace lockstep::comm
