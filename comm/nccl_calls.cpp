#include "comm/nccl_calls.hpp"

#include <algorithm>
#include <thread>
#include <utility>

#include "core/error.hpp"
#include "kernels/elementwise/elementwise.hpp"

namespace lockstep::comm {
namespace {

static_assert(sources_at_once == max_grad_sources);

// Parts of an all-reduce start on a boundary that suits any access.
constexpr std::size_t part_granularity = 128;

Buffer part_of(const Buffer& data, const Part& part) { return data.part(part.begin, part.size()); }

bool is_16_bit(DType dtype) { return dtype == DType::bf16 || dtype == DType::f16; }

}  // namespace

NcclCalls::NcclCalls(const NcclApi& api, NcclWatchdog& watchdog, DeviceApi& device, int rank, int ranks,
                     const NcclOptions& options)
    : api_(api),
      watchdog_(watchdog),
      device_(device),
      rank_(static_cast<std::size_t>(rank)),
      ranks_(static_cast<std::size_t>(ranks)),
      options_(options) {}

void NcclCalls::check_result(NcclResult result, const std::string& what) {
  if (result != NcclResult::success && result != NcclResult::in_progress)
    watchdog_.give_up(watchdog_.failure_of_result(result, what));
}

/// Nothing may be asked of NCCL, and nothing may be put behind its work, before it is through with the last call.
void NcclCalls::settle(NcclResult result, const std::string& what) {
  Deadline deadline(options_.timeout);
  while (result == NcclResult::in_progress) {
    std::this_thread::yield();
    result = watchdog_.async_state();
    if (result == NcclResult::in_progress && deadline.passed())
      watchdog_.give_up({ErrorKind::hang,
                         fmt::format("nccl {}: NCCL could not start it within {:g} s: another rank did not come to it; "
                                     "look at what the other ranks last logged, or raise comm.timeout_s",
                                     what, options_.timeout.count())});
  }
  check_result(result, what);
}

template <class Function>
void NcclCalls::call(const std::string& what, const Function& function) {
  settle(watchdog_.call(function), what);
}

/// body(comm) calls NCCL's functions and returns the first result that is bad, or success.
template <class Body>
void NcclCalls::group(const std::string& what, const Body& body) {
  call(what, [&](NcclComm comm) {
    const NcclResult begun = api_.group_start();
    if (begun != NcclResult::success) return begun;
    const NcclResult bad = body(comm);
    const NcclResult ended = api_.group_end();
    return bad != NcclResult::success ? bad : ended;
  });
}

void NcclCalls::init(const NcclUniqueId& id) {
  NcclComm comm;
  const NcclResult result = api_.init_rank(&comm, static_cast<int>(ranks_), &id, static_cast<int>(rank_));
  if (comm.handle != nullptr) watchdog_.watch(comm);
  settle(result, "start-up (the ranks find one another)");
}

bool NcclCalls::finalize(Seconds patience) noexcept {
  try {
    Deadline deadline(patience);
    NcclResult result = watchdog_.call([this](NcclComm comm) { return api_.finalize(comm); });
    while (result == NcclResult::in_progress && !deadline.passed()) {
      std::this_thread::yield();
      result = watchdog_.async_state();
    }
    return result == NcclResult::success;
  } catch (...) {  // it has failed before
    return false;
  }
}

bool NcclCalls::is_staged(const Buffer& data, Reduce op) const {
  if (op != Reduce::sum) return false;  // the same numbers in any order
  if (is_16_bit(data.dtype)) return !options_.library_order;
  if (options_.ordered_sum && data.dtype == DType::f64)
    fail(ErrorKind::internal, "nccl: sums of fp64 in the order of the ranks are not offered on a device");
  return options_.ordered_sum && data.dtype == DType::f32;
}

void NcclCalls::all_reduce(const Buffer& data, Reduce op, StreamRef stream, const std::string& what) {
  if (is_staged(data, op))
    return staged_sum(data, even_parts(data.count, static_cast<int>(ranks_), part_granularity), true, stream, what);
  call(what,
       [&](NcclComm comm) { return api_.all_reduce(data.data, data.data, data.count, data.dtype, op, comm, stream); });
}

void NcclCalls::reduce_scatter(const Buffer& data, const Parts& parts, Reduce op, StreamRef stream,
                               const std::string& what) {
  if (is_staged(data, op)) return staged_sum(data, parts, false, stream, what);
  if (are_equal_runs(parts) && parts[0].size() > 0) {
    return call(what, [&](NcclComm comm) {
      return api_.reduce_scatter(part_of(data, parts[0]).data, part_of(data, parts[rank_]).data, parts[0].size(),
                                 data.dtype, op, comm, stream);
    });
  }
  group(what, [&](NcclComm comm) {
    NcclResult result = NcclResult::success;
    for (std::size_t r = 0; r < ranks_ && result == NcclResult::success; ++r) {
      const Buffer part = part_of(data, parts[r]);
      if (part.count == 0) continue;
      result = api_.reduce(part.data, part.data, part.count, data.dtype, op, static_cast<int>(r), comm, stream);
      if (result == NcclResult::in_progress) result = NcclResult::success;
    }
    return result;
  });
}

void NcclCalls::all_gather(const Buffer& data, const Parts& parts, StreamRef stream, const std::string& what) {
  if (are_equal_runs(parts) && parts[0].size() > 0) {
    return call(what, [&](NcclComm comm) {
      return api_.all_gather(part_of(data, parts[rank_]).data, part_of(data, parts[0]).data, parts[0].size(),
                             data.dtype, comm, stream);
    });
  }
  group(what, [&](NcclComm comm) {
    NcclResult result = NcclResult::success;
    for (std::size_t r = 0; r < ranks_ && result == NcclResult::success; ++r) {
      const Buffer part = part_of(data, parts[r]);
      if (part.count == 0) continue;
      result = api_.broadcast(part.data, part.data, part.count, data.dtype, static_cast<int>(r), comm, stream);
      if (result == NcclResult::in_progress) result = NcclResult::success;
    }
    return result;
  });
}

void NcclCalls::broadcast(const Buffer& data, int root, StreamRef stream, const std::string& what) {
  call(what,
       [&](NcclComm comm) { return api_.broadcast(data.data, data.data, data.count, data.dtype, root, comm, stream); });
}

void NcclCalls::exchange(const Buffer& from, const Parts& sends, const Buffer& to, const Parts& receives,
                         StreamRef stream, const std::string& what) {
  group(what, [&](NcclComm comm) {
    NcclResult result = NcclResult::success;
    for (std::size_t step = 1; step < ranks_ && result == NcclResult::success; ++step) {
      const std::size_t target = (rank_ + step) % ranks_, source = (rank_ + ranks_ - step) % ranks_;
      const Buffer out = part_of(from, sends[target]), in = part_of(to, receives[source]);
      if (out.count > 0) result = api_.send(out.data, out.count, out.dtype, static_cast<int>(target), comm, stream);
      if (result == NcclResult::in_progress) result = NcclResult::success;
      if (in.count > 0 && result == NcclResult::success)
        result = api_.receive(in.data, in.count, in.dtype, static_cast<int>(source), comm, stream);
      if (result == NcclResult::in_progress) result = NcclResult::success;
    }
    return result;
  });
}

/// Everyone sends each rank its part; a rank adds what it gets as the tree T; with `gather` the sums go round.
void NcclCalls::staged_sum(const Buffer& data, const Parts& parts, bool gather, StreamRef stream,
                           const std::string& what) {
  require(options_.kernels != nullptr,
          "nccl: 16-bit and ordered sums need the device's kernels (NcclOptions::kernels)");
  const StagedSum plan = plan_staged_sum(parts, data.dtype, options_.staging_bytes);
  if (plan.pieces == 0) return;
  if (staging_ == nullptr) staging_ = std::make_unique<Arena>(device_, options_.staging_bytes);
  std::byte* const partials = staging_->data() + (ranks_ - 1) * plan.slot;
  for (std::size_t p = 0; p < plan.pieces; ++p) {
    const Parts piece = piece_of(parts, p, plan.share);
    const Buffer mine = part_of(data, piece[rank_]);
    std::vector<const void*> sources(ranks_, mine.data);
    // The slots as one buffer of elements, so that they have parts.
    const Buffer staging{staging_->data(), options_.staging_bytes / size_of(data.dtype), data.dtype, Memory::device};
    Parts slots(ranks_);
    std::size_t slot = 0;
    for (std::size_t r = 0; r < ranks_; ++r) {
      if (r == rank_) continue;
      const std::size_t begin = slot++ * plan.slot / size_of(data.dtype);
      slots[r] = {begin, begin + mine.count};
      sources[r] = part_of(staging, slots[r]).data;
    }
    Parts out = piece;
    out[rank_] = {};
    exchange(data, out, staging, slots, stream, what);
    if (mine.count > 0) sum_in_tree_order(std::move(sources), partials, plan.partials, mine, stream);
    if (gather) all_gather(data, piece, stream, what);
  }
}

/// Eight sources at a time: an aligned block of eight is a subtree of T, and T over their sums is T over all.
void NcclCalls::sum_in_tree_order(std::vector<const void*> sources, std::byte* partials, std::size_t partial_bytes,
                                  const Buffer& to, StreamRef stream) {
  const Exec exec{options_.kernels, &device_, stream, 1, options_.kernels_context};
  DType dtype = to.dtype;
  while (sources.size() > max_grad_sources) {
    std::vector<const void*> sums;
    for (std::size_t begin = 0; begin < sources.size(); begin += max_grad_sources) {
      OrderedSumArgs args{.to_dtype = DType::f32, .count = to.count};
      args.sources.count = static_cast<std::int32_t>(std::min<std::size_t>(max_grad_sources, sources.size() - begin));
      args.sources.dtype = dtype;
      std::copy_n(sources.begin() + static_cast<std::ptrdiff_t>(begin), args.sources.count, args.sources.source);
      // In a second round the sources lie there themselves; those written over have been added by then.
      args.to = partials + sums.size() * partial_bytes;
      kernels::ordered_sum(exec, args);
      sums.push_back(args.to);
    }
    sources = std::move(sums);
    dtype = DType::f32;
  }
  OrderedSumArgs args{.to = to.data, .to_dtype = to.dtype, .count = to.count};
  args.sources.count = static_cast<std::int32_t>(sources.size());
  args.sources.dtype = dtype;
  std::ranges::copy(sources, args.sources.source);
  kernels::ordered_sum(exec, args);
}

void NcclCalls::leak_staging() noexcept { (void)staging_.release(); }

}  // namespace lockstep::comm
