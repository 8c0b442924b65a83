#include "comm/mpi_task.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "comm/reduce.hpp"
#include "core/error.hpp"

namespace lockstep::comm {
namespace {

// MPI counts in int; a message stays below 2^31 bytes.
constexpr std::size_t max_message = std::size_t{1} << 30;

// Up to here an all-reduce sends everything to everyone and is done after one exchange instead of two. Bytes per rank
// are then (n - 1) S in place of 2 (n - 1) S / n, which only matters beyond a packet.
constexpr std::size_t one_exchange_bytes = 2048;

// Tags repeat after this many collectives, far more than are ever in flight; every MPI allows tags up to 32767.
constexpr std::uint64_t tag_period = 1024;
constexpr int max_stages = 32;

// Parts of an all-reduce start on a cache line.
constexpr std::size_t part_granularity = 64;

std::size_t round_up(std::size_t elements) {
  return (elements + part_granularity - 1) / part_granularity * part_granularity;
}

Parts even_parts(std::size_t count, int ranks) {
  const auto n = static_cast<std::size_t>(ranks);
  const std::size_t part = round_up((count + n - 1) / n);
  Parts parts(n);
  for (std::size_t r = 0; r < n; ++r) parts[r] = {std::min(count, r * part), std::min(count, (r + 1) * part)};
  return parts;
}

std::string size_text(const Buffer& buffer) {
  return fmt::format("{} x {}", buffer.count, lockstep::to_string(buffer.dtype));
}

/// Everyone sends each rank its part; a rank sums what it gets in the order of the tree T; for an all-reduce the sums
/// go round.
class ReduceTask final : public MpiTask {
 public:
  enum class Then { stop, gather };

  ReduceTask(MpiContext& context, std::uint64_t number, std::string what, Buffer data, Reduce op, Parts parts,
             Then then)
      : MpiTask(context, number, std::move(what)), data_(data), op_(op), parts_(std::move(parts)), then_(then) {}

 private:
  [[nodiscard]] Buffer part_of(int rank) const {
    const Part& part = parts_[static_cast<std::size_t>(rank)];
    return data_.part(part.begin, part.size());
  }

  void post_first() override {
    const std::size_t mine = part_of(context_.rank).bytes();
    staging_ = context_.take_staging(mine * static_cast<std::size_t>(context_.size - 1));
    sources_.assign(static_cast<std::size_t>(context_.size), part_of(context_.rank).data);
    std::byte* slot = staging_.data.get();
    for (int step = 1; step < context_.size; ++step) {
      const int from = (context_.rank + context_.size - step) % context_.size;
      sources_[static_cast<std::size_t>(from)] = slot;
      receive(slot, mine, from);
      slot += mine;
    }
    for (int step = 1; step < context_.size; ++step) {
      const int to = (context_.rank + step) % context_.size;
      send(part_of(to).data, part_of(to).bytes(), to);
    }
  }

  bool finish_stage() override {
    if (gathering_) return true;
    const Buffer mine = part_of(context_.rank);
    void* target = mine.data;
    if (mine.count > 0) reduce_in_tree_order(data_.dtype, op_, sources_, {&target, 1}, 0, mine.count);
    context_.give_back(std::move(staging_));
    if (then_ == Then::stop) return true;
    gathering_ = true;
    post_gather(data_, parts_);
    return false;
  }

  Buffer data_;
  Reduce op_;
  Parts parts_;
  Then then_;
  bool gathering_ = false;
  MpiContext::Staging staging_;
  std::vector<void*> sources_;
};

/// fp32 that travels in 16 bits: a sum of a rounded copy. Its own messages are those of a ReduceTask on that copy.
class RoundedTask final : public MpiTask {
 public:
  enum class Result { everywhere, own_part };

  RoundedTask(MpiContext& context, std::uint64_t number, std::string what, Buffer data, DType wire, Parts parts,
              Result result)
      : MpiTask(context, number, std::move(what)),
        data_(data),
        wire_(wire),
        parts_(std::move(parts)),
        result_(result) {}

  [[nodiscard]] bool advance() override {
    if (!sum_->advance()) return false;
    const Part own = parts_[static_cast<std::size_t>(context_.rank)];
    if (result_ == Result::everywhere)
      widen(0, data_.count);
    else
      widen(own.begin, own.size());
    context_.give_back(std::move(copy_));
    return true;
  }
  [[nodiscard]] std::vector<int> awaited() const override { return sum_->awaited(); }

 private:
  void post_first() override {
    copy_ = context_.take_staging(data_.count * size_of(wire_));
    round();
    const Buffer copy{copy_.data.get(), data_.count, wire_, Memory::host};
    const auto then = result_ == Result::everywhere ? ReduceTask::Then::gather : ReduceTask::Then::stop;
    sum_ = std::make_unique<ReduceTask>(context_, number(), what(), copy, Reduce::sum, parts_, then);
    sum_->start();
  }

  template <class Narrow>
  void round_to() {
    const auto* const from = static_cast<const float*>(data_.data);
    auto* const to = reinterpret_cast<Narrow*>(copy_.data.get());
    for (std::size_t i = 0; i < data_.count; ++i) to[i] = Narrow(from[i]);
  }
  void round() { wire_ == DType::bf16 ? round_to<bf16>() : round_to<f16>(); }
  template <class Narrow>
  void widen_from(std::size_t begin, std::size_t count) {
    const auto* const from = reinterpret_cast<const Narrow*>(copy_.data.get());
    auto* const to = static_cast<float*>(data_.data);
    for (std::size_t i = begin; i < begin + count; ++i) to[i] = static_cast<float>(from[i]);
  }
  void widen(std::size_t begin, std::size_t count) {
    wire_ == DType::bf16 ? widen_from<bf16>(begin, count) : widen_from<f16>(begin, count);
  }

  Buffer data_;
  DType wire_;
  Parts parts_;
  Result result_;
  MpiContext::Staging copy_;
  std::unique_ptr<ReduceTask> sum_;
};

/// All-reduce of 2^k ranks: recursive halving of the vector with doubling distance, then the mirror image.
///
/// In round j a rank and its partner, whose number differs in bit j alone, hold the sums of two sibling blocks of 2^j
/// ranks over the same range. Each keeps one half of the range, gets the other's contribution to it and adds, the lower
/// block first: exactly the tree T, in log2(n) messages each way and the least bytes possible. Neighbours in rank
/// exchange the most, and they are on one host.
/// Source: Rabenseifner, "Optimization of Collective Reduction Operations", ICCS 2004.
class HalvingTask final : public MpiTask {
 public:
  HalvingTask(MpiContext& context, std::uint64_t number, std::string what, Buffer data, Reduce op)
      : MpiTask(context, number, std::move(what)), data_(data), op_(op), ranges_{{0, data.count}} {}

 private:
  [[nodiscard]] int rounds() const { return std::countr_zero(static_cast<unsigned>(context_.size)); }
  [[nodiscard]] int partner(int round) const { return context_.rank ^ (1 << round); }
  [[nodiscard]] bool keeps_lower(int round) const { return (context_.rank >> round & 1) == 0; }
  [[nodiscard]] Buffer range(const Part& part) const { return data_.part(part.begin, part.size()); }
  /// The two halves of a range: this rank's and its partner's.
  [[nodiscard]] std::pair<Part, Part> halves(const Part& whole, int round) const {
    const std::size_t middle = std::min(whole.end, whole.begin + round_up((whole.size() + 1) / 2));
    const Part lower{whole.begin, middle}, upper{middle, whole.end};
    return keeps_lower(round) ? std::pair(lower, upper) : std::pair(upper, lower);
  }

  void post_first() override {
    staging_ = context_.take_staging(range(halves(ranges_[0], 0).first).bytes());
    post_reduce();
  }
  void post_reduce() {
    const auto [mine, theirs] = halves(ranges_.back(), round_);
    receive(staging_.data.get(), range(mine).bytes(), partner(round_));
    send(range(theirs).data, range(theirs).bytes(), partner(round_));
    ranges_.push_back(mine);
  }
  void post_gather_round() {
    const auto [mine, theirs] = halves(ranges_[static_cast<std::size_t>(round_)], round_);
    receive(range(theirs).data, range(theirs).bytes(), partner(round_));
    send(range(mine).data, range(mine).bytes(), partner(round_));
  }

  bool finish_stage() override {
    if (gathering_) {
      if (--round_ < 0) return true;
      post_gather_round();
      return false;
    }
    const Buffer mine = range(ranges_.back());
    std::array<void*, 2> sources{mine.data, staging_.data.get()};
    if (!keeps_lower(round_)) std::swap(sources[0], sources[1]);
    void* target = mine.data;
    if (mine.count > 0) reduce_in_tree_order(data_.dtype, op_, sources, {&target, 1}, 0, mine.count);
    if (++round_ < rounds()) {
      post_reduce();
      return false;
    }
    context_.give_back(std::move(staging_));
    gathering_ = true;
    --round_;
    post_gather_round();
    return false;
  }

  Buffer data_;
  Reduce op_;
  std::vector<Part> ranges_;  ///< what this rank was responsible for before each round
  int round_ = 0;
  bool gathering_ = false;
  MpiContext::Staging staging_;
};

/// What MPI itself makes of an all-reduce.
class LibraryReduceTask final : public MpiTask {
 public:
  LibraryReduceTask(MpiContext& context, std::uint64_t number, std::string what, Buffer data, MPI_Datatype type,
                    MPI_Op op)
      : MpiTask(context, number, std::move(what)), data_(data), type_(type), op_(op) {}

 private:
  void post_first() override {
    check_mpi(MPI_Iallreduce(MPI_IN_PLACE, data_.data, static_cast<int>(data_.count), type_, op_, context_.comm,
                             add_request()),
              "MPI_Iallreduce");
  }

  Buffer data_;
  MPI_Datatype type_;
  MPI_Op op_;
};

/// MPI_DATATYPE_NULL for 16-bit types, which MPI does not have.
MPI_Datatype mpi_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return MPI_FLOAT;
    case DType::f64:
      return MPI_DOUBLE;
    case DType::i32:
      return MPI_INT32_T;
    case DType::i64:
      return MPI_INT64_T;
    default:
      return MPI_DATATYPE_NULL;
  }
}

MPI_Op mpi_op(Reduce op) { return op == Reduce::sum ? MPI_SUM : op == Reduce::max ? MPI_MAX : MPI_MIN; }

class GatherTask final : public MpiTask {
 public:
  GatherTask(MpiContext& context, std::uint64_t number, Buffer data, Parts parts)
      : MpiTask(context, number, fmt::format("all_gather of {}", size_text(data))),
        data_(data),
        parts_(std::move(parts)) {}

 private:
  void post_first() override { post_gather(data_, parts_); }

  Buffer data_;
  Parts parts_;
};

class BroadcastTask final : public MpiTask {
 public:
  BroadcastTask(MpiContext& context, std::uint64_t number, Buffer data, int root)
      : MpiTask(context, number, fmt::format("broadcast from rank {} of {}", root, size_text(data))),
        data_(data),
        root_(root) {}

 private:
  void post_first() override {
    for (std::size_t at = 0; at < data_.bytes(); at += max_message)
      check_mpi(MPI_Ibcast(static_cast<std::byte*>(data_.data) + at,
                           static_cast<int>(std::min(max_message, data_.bytes() - at)), MPI_BYTE, root_, context_.comm,
                           add_request()),
                "MPI_Ibcast");
  }

  Buffer data_;
  int root_;
};

class AllToAllTask final : public MpiTask {
 public:
  AllToAllTask(MpiContext& context, std::uint64_t number, Buffer from, std::span<const std::size_t> send_offsets,
               Buffer to, std::span<const std::size_t> receive_offsets)
      : MpiTask(context, number, fmt::format("all_to_all of {}", size_text(from))),
        from_(from),
        to_(to),
        send_offsets_(send_offsets.begin(), send_offsets.end()),
        receive_offsets_(receive_offsets.begin(), receive_offsets.end()) {}

 private:
  static Buffer part_of(const Buffer& whole, const std::vector<std::size_t>& offsets, int rank) {
    const auto r = static_cast<std::size_t>(rank);
    return whole.part(offsets[r], offsets[r + 1] - offsets[r]);
  }

  void post_first() override {
    for (int step = 1; step < context_.size; ++step) {
      const int from = (context_.rank + context_.size - step) % context_.size;
      const Buffer part = part_of(to_, receive_offsets_, from);
      receive(part.data, part.bytes(), from);
    }
    for (int step = 1; step < context_.size; ++step) {
      const int to = (context_.rank + step) % context_.size;
      const Buffer part = part_of(from_, send_offsets_, to);
      send(part.data, part.bytes(), to);
    }
    const Buffer kept = part_of(from_, send_offsets_, context_.rank);
    if (kept.count > 0) std::memcpy(part_of(to_, receive_offsets_, context_.rank).data, kept.data, kept.bytes());
  }

  Buffer from_;
  Buffer to_;
  std::vector<std::size_t> send_offsets_;
  std::vector<std::size_t> receive_offsets_;
};

class BarrierTask final : public MpiTask {
 public:
  BarrierTask(MpiContext& context, std::uint64_t number) : MpiTask(context, number, "barrier") {}

 private:
  void post_first() override { check_mpi(MPI_Ibarrier(context_.comm, add_request()), "MPI_Ibarrier"); }
};

}  // namespace

std::recursive_mutex& MpiTurn::mutex() {
  static std::recursive_mutex turn;
  return turn;
}

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  fail(ErrorKind::environment, "{} failed: {}; the group of ranks is in an unknown state, start the job again", call,
       std::string_view(text.data(), static_cast<std::size_t>(length)));
}

MpiContext::Staging MpiContext::take_staging(std::size_t bytes) {
  const auto fits = std::ranges::find_if(spare_, [=](const Staging& s) { return s.bytes >= bytes; });
  if (fits != spare_.end()) {
    Staging found = std::move(*fits);
    spare_.erase(fits);
    return found;
  }
  if (!spare_.empty()) spare_.pop_back();  // too small for today's pieces
  return {std::make_unique_for_overwrite<std::byte[]>(bytes), bytes};
}

void MpiContext::give_back(Staging staging) { spare_.push_back(std::move(staging)); }

MpiTask::MpiTask(MpiContext& context, std::uint64_t number, std::string what)
    : context_(context), number_(number), what_(std::move(what)) {}

void MpiTask::start() {
  started_ = true;
  post_first();
}

bool MpiTask::advance() {
  for (;;) {
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (done == 0) return false;
    requests_.clear();
    request_sources_.clear();
    ++stage_;
    if (finish_stage()) return true;
  }
}

std::vector<int> MpiTask::awaited() const {
  std::vector<int> ranks;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    int done = 1;
    if (request_sources_[i] != from_nobody && requests_[i] != MPI_REQUEST_NULL)
      MPI_Request_get_status(requests_[i], &done, MPI_STATUS_IGNORE);
    if (done == 0) ranks.push_back(request_sources_[i]);
  }
  std::ranges::sort(ranks);
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

void MpiTask::send(const void* data, std::size_t bytes, int to) {
  const int tag = static_cast<int>(number_ % tag_period) * max_stages + stage_;
  for (std::size_t at = 0; at < bytes; at += max_message)
    check_mpi(MPI_Isend(static_cast<const std::byte*>(data) + at, static_cast<int>(std::min(max_message, bytes - at)),
                        MPI_BYTE, to, tag, context_.comm, add_request()),
              "MPI_Isend");
}

void MpiTask::receive(void* data, std::size_t bytes, int from) {
  const int tag = static_cast<int>(number_ % tag_period) * max_stages + stage_;
  for (std::size_t at = 0; at < bytes; at += max_message) {
    check_mpi(MPI_Irecv(static_cast<std::byte*>(data) + at, static_cast<int>(std::min(max_message, bytes - at)),
                        MPI_BYTE, from, tag, context_.comm, add_request()),
              "MPI_Irecv");
    request_sources_.back() = from;
  }
}

MPI_Request* MpiTask::add_request() {
  request_sources_.push_back(from_nobody);
  requests_.push_back(MPI_REQUEST_NULL);
  return &requests_.back();
}

void MpiTask::post_gather(const Buffer& data, const Parts& parts) {
  const auto part_of = [&](int rank) {
    const Part& part = parts[static_cast<std::size_t>(rank)];
    return data.part(part.begin, part.size());
  };
  for (int step = 1; step < context_.size; ++step) {
    const int from = (context_.rank + context_.size - step) % context_.size;
    receive(part_of(from).data, part_of(from).bytes(), from);
  }
  for (int step = 1; step < context_.size; ++step)
    send(part_of(context_.rank).data, part_of(context_.rank).bytes(), (context_.rank + step) % context_.size);
}

std::unique_ptr<MpiTask> all_reduce_task(MpiContext& context, std::uint64_t number, Buffer data, Reduce op,
                                         AllReduceOrder order) {
  std::string what = fmt::format("all_reduce ({}) of {}", to_string(op), size_text(data));
  const MPI_Datatype type = mpi_type(data.dtype);
  if (order == AllReduceOrder::library && type != MPI_DATATYPE_NULL)
    return std::make_unique<LibraryReduceTask>(context, number, std::move(what), data, type, mpi_op(op));
  if (data.bytes() <= one_exchange_bytes)
    return std::make_unique<ReduceTask>(context, number, std::move(what), data, op,
                                        Parts(static_cast<std::size_t>(context.size), {0, data.count}),
                                        ReduceTask::Then::stop);
  // A 16-bit sum is rounded once, at the end: partial sums do not travel.
  if (std::has_single_bit(static_cast<unsigned>(context.size)) && type != MPI_DATATYPE_NULL)
    return std::make_unique<HalvingTask>(context, number, std::move(what), data, op);
  return std::make_unique<ReduceTask>(context, number, std::move(what), data, op, even_parts(data.count, context.size),
                                      ReduceTask::Then::gather);
}

std::unique_ptr<MpiTask> reduce_scatter_task(MpiContext& context, std::uint64_t number, Buffer data, const Parts& parts,
                                             Reduce op) {
  return std::make_unique<ReduceTask>(context, number,
                                      fmt::format("reduce_scatter ({}) of {}", to_string(op), size_text(data)), data,
                                      op, parts, ReduceTask::Then::stop);
}

std::unique_ptr<MpiTask> rounded_all_reduce_task(MpiContext& context, std::uint64_t number, Buffer data, DType wire) {
  return std::make_unique<RoundedTask>(
      context, number, fmt::format("all_reduce (sum) of {} as {}", size_text(data), to_string(wire)), data, wire,
      even_parts(data.count, context.size), RoundedTask::Result::everywhere);
}

std::unique_ptr<MpiTask> rounded_reduce_scatter_task(MpiContext& context, std::uint64_t number, Buffer data,
                                                     const Parts& parts, DType wire) {
  return std::make_unique<RoundedTask>(
      context, number, fmt::format("reduce_scatter (sum) of {} as {}", size_text(data), to_string(wire)), data, wire,
      parts, RoundedTask::Result::own_part);
}

std::unique_ptr<MpiTask> all_gather_task(MpiContext& context, std::uint64_t number, Buffer data, const Parts& parts) {
  return std::make_unique<GatherTask>(context, number, data, parts);
}

std::unique_ptr<MpiTask> broadcast_task(MpiContext& context, std::uint64_t number, Buffer data, int root) {
  return std::make_unique<BroadcastTask>(context, number, data, root);
}

std::unique_ptr<MpiTask> all_to_all_task(MpiContext& context, std::uint64_t number, Buffer send,
                                         std::span<const std::size_t> send_offsets, Buffer receive,
                                         std::span<const std::size_t> receive_offsets) {
  return std::make_unique<AllToAllTask>(context, number, send, send_offsets, receive, receive_offsets);
}

std::unique_ptr<MpiTask> barrier_task(MpiContext& context, std::uint64_t number) {
  return std::make_unique<BarrierTask>(context, number);
}

}  // namespace lockstep::comm
