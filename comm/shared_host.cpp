#include "comm/shared_host.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <limits>
#include <new>

#include "comm/reduce.hpp"
#include "core/error.hpp"

namespace lockstep::comm {
namespace {

// Operations that a rank may be ahead of the slowest one. More than a communicator has under way at a time.
constexpr std::uint64_t ring = 32;

// An item: large enough that taking it costs nothing beside doing it, small enough that the last one of a collective is
// not waited for long.
constexpr std::size_t largest_item = 65536, smallest_item = 4096;
constexpr std::size_t items_of_a_share = 4;

// Shares begin on a cache line of the widest elements' worth.
constexpr std::size_t share_granularity = 64;

constexpr std::size_t line = 64;

std::size_t round_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

std::string_view to_string(SharedWork work) {
  switch (work) {
    case SharedWork::reduce_to_all:
      return "all_reduce";
    case SharedWork::reduce_to_owner:
      return "reduce_scatter";
    case SharedWork::copy_from_owner:
      return "all_gather";
    case SharedWork::copy_from_root:
      return "broadcast";
    case SharedWork::exchange:
      return "all_to_all";
  }
  return "unknown";
}

long futex(std::atomic<std::uint32_t>* word, int what, std::uint32_t value, const timespec* most) {
  return syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(word), what, value, most, nullptr, 0);
}

}  // namespace

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free,
              "the ranks are processes: a lock would be each one's own");
static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

/// In each rank's block, before its slots.
struct SharedHost::Header {
  /// Operations up to here are complete as far as this rank is concerned: it looks at their slots no more.
  alignas(line) std::atomic<std::uint64_t> observed;
  // Of the first rank's alone:
  alignas(line) std::atomic<std::uint32_t> events;
  std::atomic<std::uint32_t> sleepers;
};

/// What a rank has posted, and how far the work is. Offsets of an exchange stand behind it.
struct SharedHost::Slot {
  // Written by the rank before `number`, read by the others after it.
  std::uint64_t count, arena, offset, receive_arena, receive_offset;
  SharedWork work;
  Reduce op;
  DType dtype;
  std::int32_t root;
  alignas(line) std::atomic<std::uint64_t> number;  ///< of the operation that this is about
  alignas(line) std::atomic<std::uint32_t> taken;   ///< items of this rank's share
  alignas(line) std::atomic<std::uint32_t> done;    ///< items of all shares; of the first rank's alone
};

namespace {

constexpr std::size_t header_bytes = 2 * line;
std::size_t slot_bytes(std::size_t slot, int size) {
  return round_up(slot + 2 * (static_cast<std::size_t>(size) + 1) * sizeof(std::uint64_t), line);
}

}  // namespace

std::size_t SharedHost::control_bytes(int size) { return header_bytes + ring * slot_bytes(sizeof(Slot), size); }

SharedHost::SharedHost(int place, int size, std::unique_ptr<SharedMemory> control)
    : place_(place), size_(size), control_(std::move(control)) {
  // Blocks are zero at first, which is what these are made with.
  static_assert(sizeof(Header) == header_bytes);
  static_assert(std::is_trivially_destructible_v<Header> && std::is_trivially_destructible_v<Slot>);
}

SharedHost::Header& SharedHost::header(int place) const {
  return *std::launder(reinterpret_cast<Header*>(control_->of(place)));
}

SharedHost::Slot& SharedHost::slot(int place, std::uint64_t number) const {
  std::byte* const at = control_->of(place) + header_bytes + (number % ring) * slot_bytes(sizeof(Slot), size_);
  return *std::launder(reinterpret_cast<Slot*>(at));
}

std::uint64_t* SharedHost::offsets_of(int place, std::uint64_t number) const {
  return reinterpret_cast<std::uint64_t*>(reinterpret_cast<std::byte*>(&slot(place, number)) + sizeof(Slot));
}

std::uint64_t SharedHost::remember(std::shared_ptr<SharedMemory> memory) {
  const std::uint64_t arena = ++last_arena_;
  by_address_.emplace(memory->data(), arena);
  arenas_.emplace(arena, std::move(memory));
  return arena;
}

void SharedHost::forget(std::uint64_t arena) {
  const auto found = arenas_.find(arena);
  if (found == arenas_.end()) return;
  by_address_.erase(found->second->data());
  arenas_.erase(found);
}

std::optional<SharedHost::Place> SharedHost::find(const Buffer& buffer) const {
  if (buffer.memory != Memory::host) return std::nullopt;
  const auto* const begin = static_cast<const std::byte*>(buffer.data);
  auto after = by_address_.upper_bound(begin);
  if (after == by_address_.begin()) return std::nullopt;
  const auto& [base, arena] = *--after;
  const auto offset = static_cast<std::size_t>(begin - base);
  if (offset + buffer.bytes() > arenas_.at(arena)->bytes()) return std::nullopt;
  return Place{arena, offset};
}

std::byte* SharedHost::address(int place, std::uint64_t arena, std::uint64_t offset) const {
  const auto found = arenas_.find(arena);
  if (found == arenas_.end())
    fail(ErrorKind::desync, "local rank {} exchanges memory that this rank has already given up", place);
  return found->second->of(place) + offset;
}

std::uint64_t SharedHost::take_number() {
  open_.insert(++last_number_);
  return last_number_;
}

std::vector<Parts> SharedHost::even_shares(std::size_t count) const {
  const auto n = static_cast<std::size_t>(size_);
  const std::size_t share = round_up((count + n - 1) / n, share_granularity);
  std::vector<Parts> owned;
  for (std::size_t r = 0; r < n; ++r) owned.push_back({{std::min(count, r * share), std::min(count, (r + 1) * share)}});
  return owned;
}

SharedOperation SharedHost::make(SharedWork work, Buffer data, const std::vector<Parts>& owned, Reduce op, int root) {
  SharedOperation operation{.number = take_number(), .work = work, .op = op, .root = root, .data = data};
  for (const Parts& parts : owned) {
    operation.first.push_back(operation.pieces.size());
    std::size_t share = 0;
    for (const Part& part : parts) share += part.size();
    const std::size_t item =
        std::clamp(round_up(share / items_of_a_share + 1, share_granularity), smallest_item, largest_item);
    for (const Part& part : parts)
      for (std::size_t begin = part.begin; begin < part.end; begin += item)
        operation.pieces.push_back({begin, std::min(item, part.end - begin)});
  }
  operation.first.push_back(operation.pieces.size());
  return operation;
}

SharedOperation SharedHost::make_exchange(Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                                          std::span<const std::size_t> receive_offsets) {
  SharedOperation operation{.number = take_number(), .work = SharedWork::exchange, .data = send, .receive = receive};
  operation.send_offsets.assign(send_offsets.begin(), send_offsets.end());
  operation.receive_offsets.assign(receive_offsets.begin(), receive_offsets.end());
  const auto n = static_cast<std::size_t>(size_);
  for (std::size_t to = 0; to < n; ++to) {
    operation.first.push_back(operation.pieces.size());
    // Everyone begins with somebody else.
    for (std::size_t step = 0; step < n; ++step) operation.pieces.push_back({(to + step) % n, 1});
  }
  operation.first.push_back(operation.pieces.size());
  return operation;
}

/// False while the slot may still be looked at by a rank that is behind.
bool SharedHost::post(SharedOperation& operation) {
  for (int r = 0; r < size_; ++r)
    if (header(r).observed.load(std::memory_order_acquire) + ring < operation.number) return false;
  Slot& own = slot(place_, operation.number);
  const std::optional<Place> data = find(operation.data);
  require(data.has_value(), "shared memory: a buffer has left its arena before its collective began");
  own.count = operation.work == SharedWork::exchange ? 0 : operation.data.count;
  own.arena = data->arena;
  own.offset = data->offset;
  own.work = operation.work;
  own.op = operation.op;
  own.dtype = operation.data.dtype;
  own.root = operation.root;
  if (operation.work == SharedWork::exchange) {
    const std::optional<Place> receive = find(operation.receive);
    require(receive.has_value(), "shared memory: a buffer has left its arena before its collective began");
    own.receive_arena = receive->arena;
    own.receive_offset = receive->offset;
    std::uint64_t* const offsets = offsets_of(place_, operation.number);
    std::ranges::copy(operation.send_offsets, offsets);
    std::ranges::copy(operation.receive_offsets, offsets + size_ + 1);
  }
  own.taken.store(0, std::memory_order_relaxed);
  own.done.store(0, std::memory_order_relaxed);
  own.number.store(operation.number, std::memory_order_release);
  operation.posted = true;
  signal();
  return true;
}

bool SharedHost::all_posted(SharedOperation& operation) const {
  for (int r = 0; r < size_; ++r)
    if (slot(r, operation.number).number.load(std::memory_order_acquire) != operation.number) return false;
  const Slot& own = slot(place_, operation.number);
  for (int r = 0; r < size_; ++r) {
    const Slot& theirs = slot(r, operation.number);
    if (theirs.work != own.work || theirs.op != own.op || theirs.dtype != own.dtype || theirs.count != own.count ||
        theirs.root != own.root)
      fail(ErrorKind::desync,
           "local rank {} asks for {} of {} x {}, local rank {} for {} of {} x {}; all ranks must issue the same "
           "collectives in the same order",
           place_, to_string(own.work), own.count, lockstep::to_string(own.dtype), r, to_string(theirs.work),
           theirs.count, lockstep::to_string(theirs.dtype));
    operation.buffers.push_back(address(r, theirs.arena, theirs.offset));
    if (operation.work == SharedWork::exchange)
      operation.receives.push_back(address(r, theirs.receive_arena, theirs.receive_offset));
  }
  return true;
}

void SharedHost::exchange(const SharedOperation& operation, int to, int from) const {
  const std::uint64_t* const sent = offsets_of(from, operation.number);
  const std::uint64_t* const received = offsets_of(to, operation.number) + size_ + 1;
  const std::uint64_t count = sent[to + 1] - sent[to], expected = received[from + 1] - received[from];
  if (count != expected)
    fail(ErrorKind::desync, "all_to_all: local rank {} sends {} elements to local rank {}, which expects {}", from,
         count, to, expected);
  const std::size_t width = size_of(operation.data.dtype);
  if (count > 0)
    std::memcpy(static_cast<std::byte*>(operation.receives[static_cast<std::size_t>(to)]) + received[from] * width,
                static_cast<const std::byte*>(operation.buffers[static_cast<std::size_t>(from)]) + sent[to] * width,
                count * width);
}

void SharedHost::run(const SharedOperation& operation, int owner, const SharedOperation::Piece& piece) const {
  const std::size_t width = size_of(operation.data.dtype);
  switch (operation.work) {
    case SharedWork::reduce_to_all:
      return reduce_in_tree_order(operation.data.dtype, operation.op, operation.buffers, operation.buffers, piece.begin,
                                  piece.count);
    case SharedWork::reduce_to_owner:
      return reduce_in_tree_order(operation.data.dtype, operation.op, operation.buffers,
                                  std::span(operation.buffers).subspan(static_cast<std::size_t>(owner), 1), piece.begin,
                                  piece.count);
    case SharedWork::exchange:
      return exchange(operation, owner, static_cast<int>(piece.begin));
    case SharedWork::copy_from_owner:
    case SharedWork::copy_from_root:
      break;
  }
  const int from = operation.work == SharedWork::copy_from_root ? operation.root : owner;
  const auto at = [&](int r) {
    return static_cast<std::byte*>(operation.buffers[static_cast<std::size_t>(r)]) + piece.begin * width;
  };
  for (int r = 0; r < size_; ++r)
    if (r != from) std::memcpy(at(r), at(from), piece.count * width);
}

void SharedHost::work_on(SharedOperation& operation) {
  std::uint32_t done = 0;
  for (int step = 0; step < size_; ++step) {
    const int owner = (place_ + step) % size_;
    const std::size_t begin = operation.first[static_cast<std::size_t>(owner)];
    const std::size_t items = operation.first[static_cast<std::size_t>(owner) + 1] - begin;
    std::atomic<std::uint32_t>& taken = slot(owner, operation.number).taken;
    while (taken.load(std::memory_order_relaxed) < items) {
      const std::uint32_t item = taken.fetch_add(1, std::memory_order_relaxed);
      if (item >= items) break;
      run(operation, owner, operation.pieces[begin + item]);
      ++done;
    }
  }
  if (done == 0) return;
  const auto all = static_cast<std::uint32_t>(operation.pieces.size());
  if (slot(0, operation.number).done.fetch_add(done, std::memory_order_acq_rel) + done == all) signal();
}

void SharedHost::complete(const SharedOperation& operation) {
  open_.erase(operation.number);
  header(place_).observed.store(open_.empty() ? last_number_ : *open_.begin() - 1, std::memory_order_release);
}

bool SharedHost::advance(SharedOperation& operation) {
  if (!operation.posted && !post(operation)) return false;
  if (!operation.ready && !(operation.ready = all_posted(operation))) return false;
  work_on(operation);
  if (slot(0, operation.number).done.load(std::memory_order_acquire) < operation.pieces.size()) return false;
  complete(operation);
  return true;
}

std::vector<int> SharedHost::missing(const SharedOperation& operation) const {
  std::vector<int> places;
  for (int r = 0; r < size_; ++r)
    if (r != place_ && slot(r, operation.number).number.load(std::memory_order_acquire) != operation.number)
      places.push_back(r);
  return places;
}

std::uint32_t SharedHost::events() const { return header(0).events.load(std::memory_order_acquire); }

void SharedHost::signal() {
  Header& first = header(0);
  first.events.fetch_add(1, std::memory_order_seq_cst);
  if (first.sleepers.load(std::memory_order_seq_cst) == 0) return;
  (void)futex(&first.events, FUTEX_WAKE, std::numeric_limits<std::int32_t>::max(), nullptr);
}

void SharedHost::sleep(std::uint32_t seen, Seconds most) {
  Header& first = header(0);
  const timespec time{.tv_sec = 0, .tv_nsec = static_cast<long>(most.count() * 1e9)};
  first.sleepers.fetch_add(1, std::memory_order_seq_cst);
  (void)futex(&first.events, FUTEX_WAIT, seen, &time);
  first.sleepers.fetch_sub(1, std::memory_order_seq_cst);
}

}  // namespace lockstep::comm
