#include "comm/mpi_task.hpp"

#include <algorithm>
#include <array>
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
constexpr std::uint64_t tag_period = 8192;
constexpr int max_stages = 2;

// Parts of an all-reduce start on a cache line.
constexpr std::size_t part_granularity = 64;

std::vector<std::size_t> even_offsets(std::size_t count, int ranks) {
  const auto n = static_cast<std::size_t>(ranks);
  const std::size_t part = ((count + n - 1) / n + part_granularity - 1) / part_granularity * part_granularity;
  std::vector<std::size_t> offsets(n + 1);
  for (std::size_t r = 0; r <= n; ++r) offsets[r] = std::min(count, r * part);
  return offsets;
}

std::string size_text(const Buffer& buffer) {
  return fmt::format("{} x {}", buffer.count, lockstep::to_string(buffer.dtype));
}

/// Everyone sends each rank its range; a rank sums what it gets in rank order; for an all-reduce the sums go round.
class ReduceTask final : public MpiTask {
 public:
  enum class Then { stop, gather };

  /// Rank r sums [begins[r], ends[r]).
  ReduceTask(MpiContext& context, std::uint64_t number, std::string what, Buffer data, Reduce op,
             std::vector<std::size_t> begins, std::vector<std::size_t> ends, Then then)
      : MpiTask(context, number, std::move(what)),
        data_(data),
        op_(op),
        begins_(std::move(begins)),
        ends_(std::move(ends)),
        then_(then) {}

 private:
  [[nodiscard]] Buffer range(int rank) const {
    const auto r = static_cast<std::size_t>(rank);
    return data_.part(begins_[r], ends_[r] - begins_[r]);
  }

  void post_first() override {
    const std::size_t mine = range(context_.rank).bytes();
    staging_ = context_.take_staging(mine * static_cast<std::size_t>(context_.size - 1));
    sources_.assign(static_cast<std::size_t>(context_.size), range(context_.rank).data);
    std::byte* slot = staging_.data.get();
    for (int step = 1; step < context_.size; ++step) {
      const int from = (context_.rank + context_.size - step) % context_.size;
      sources_[static_cast<std::size_t>(from)] = slot;
      receive(slot, mine, from);
      slot += mine;
    }
    for (int step = 1; step < context_.size; ++step) {
      const int to = (context_.rank + step) % context_.size;
      send(range(to).data, range(to).bytes(), to);
    }
  }

  bool finish_stage() override {
    if (gathering_) return true;
    const Buffer mine = range(context_.rank);
    void* target = mine.data;
    if (mine.count > 0) reduce_in_order(data_.dtype, op_, sources_, {&target, 1}, 0, mine.count);
    context_.give_back(std::move(staging_));
    if (then_ == Then::stop) return true;
    gathering_ = true;
    std::vector<std::size_t> offsets = begins_;
    offsets.push_back(ends_.back());
    post_gather(data_, offsets);
    return false;
  }

  Buffer data_;
  Reduce op_;
  std::vector<std::size_t> begins_;
  std::vector<std::size_t> ends_;
  Then then_;
  bool gathering_ = false;
  MpiContext::Staging staging_;
  std::vector<void*> sources_;
};

class GatherTask final : public MpiTask {
 public:
  GatherTask(MpiContext& context, std::uint64_t number, Buffer data, std::span<const std::size_t> offsets)
      : MpiTask(context, number, fmt::format("all_gather of {}", size_text(data))),
        data_(data),
        offsets_(offsets.begin(), offsets.end()) {}

 private:
  void post_first() override { post_gather(data_, offsets_); }

  Buffer data_;
  std::vector<std::size_t> offsets_;
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

void MpiTask::post_gather(const Buffer& data, std::span<const std::size_t> offsets) {
  const auto part = [&](int rank) {
    const auto r = static_cast<std::size_t>(rank);
    return data.part(offsets[r], offsets[r + 1] - offsets[r]);
  };
  for (int step = 1; step < context_.size; ++step) {
    const int from = (context_.rank + context_.size - step) % context_.size;
    receive(part(from).data, part(from).bytes(), from);
  }
  for (int step = 1; step < context_.size; ++step)
    send(part(context_.rank).data, part(context_.rank).bytes(), (context_.rank + step) % context_.size);
}

std::unique_ptr<MpiTask> all_reduce_task(MpiContext& context, std::uint64_t number, Buffer data, Reduce op) {
  std::string what = fmt::format("all_reduce ({}) of {}", to_string(op), size_text(data));
  const auto ranks = static_cast<std::size_t>(context.size);
  if (data.bytes() <= one_exchange_bytes)
    return std::make_unique<ReduceTask>(context, number, std::move(what), data, op, std::vector<std::size_t>(ranks, 0),
                                        std::vector<std::size_t>(ranks, data.count), ReduceTask::Then::stop);
  const std::vector<std::size_t> offsets = even_offsets(data.count, context.size);
  return std::make_unique<ReduceTask>(
      context, number, std::move(what), data, op, std::vector<std::size_t>(offsets.begin(), offsets.end() - 1),
      std::vector<std::size_t>(offsets.begin() + 1, offsets.end()), ReduceTask::Then::gather);
}

std::unique_ptr<MpiTask> reduce_scatter_task(MpiContext& context, std::uint64_t number, Buffer data,
                                             std::span<const std::size_t> offsets, Reduce op) {
  return std::make_unique<ReduceTask>(
      context, number, fmt::format("reduce_scatter ({}) of {}", to_string(op), size_text(data)), data, op,
      std::vector<std::size_t>(offsets.begin(), offsets.end() - 1),
      std::vector<std::size_t>(offsets.begin() + 1, offsets.end()), ReduceTask::Then::stop);
}

std::unique_ptr<MpiTask> all_gather_task(MpiContext& context, std::uint64_t number, Buffer data,
                                         std::span<const std::size_t> offsets) {
  return std::make_unique<GatherTask>(context, number, data, offsets);
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
