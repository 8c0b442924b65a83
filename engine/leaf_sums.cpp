#include "engine/leaf_sums.hpp"

#include <algorithm>

#include "comm/reduce.hpp"
#include "core/error.hpp"
#include "kernels/cpu/threads.hpp"
#include "kernels/table.hpp"

namespace lockstep::engine {
namespace {

/// Elements of a part's owner are added in pieces of this size, which threads take.
constexpr std::size_t piece = 16384;

}  // namespace

LeafSums::LeafSums(comm::Communicator& comm, const Exec& exec, float* sum, std::int64_t elements, std::int64_t leaves)
    : comm_(comm),
      exec_(exec),
      sum_(sum),
      elements_(static_cast<std::size_t>(elements)),
      own_(sum_tree::share(leaves, comm.rank(), comm.size())),
      steps_(steps_of(own_)),
      sharing_(leaves, comm.size()) {
  if (!exec.device->immediate())
    fail(ErrorKind::config, "run.determinism: invariant is for CPUs in this version; {} is none: use exact",
         exec.device->name());
  require(leaves >= comm.size(), "leaf sums: fewer leaves than ranks");
  // As many on every rank: arenas are made together.
  for (int i = 0; i < sharing_.slots; ++i) slots_.push_back(comm.make_arena(*exec.device, elements_ * sizeof(float)));
}

LeafSums::Sharing::Sharing(std::int64_t leaves, int ranks) {
  std::vector<sum_tree::Block> all;
  for (int r = 0; r < ranks; ++r) {
    const sum_tree::Block theirs = sum_tree::share(leaves, r, ranks);
    for (const Step& step : steps_of(theirs)) slots = std::max(slots, step.slot);
    const auto blocks = sum_tree::blocks(theirs.begin, theirs.end);
    partials.push_back(static_cast<int>(blocks.size()));
    rounds = std::max(rounds, partials.back());
    all.insert(all.end(), blocks.begin(), blocks.end());
    equal = equal && blocks.size() == 1 && blocks.front().size() == all.front().size();
  }
  merges = sum_tree::merges_of(all);
}

std::vector<std::size_t> LeafSums::Sharing::cut(std::int64_t count) const {
  constexpr std::size_t line = 16;
  const std::size_t ranks = partials.size(), all = static_cast<std::size_t>(count);
  const std::size_t lines = (all + line - 1) / line, each = (lines + ranks - 1) / ranks * line;
  std::vector<std::size_t> offsets;
  for (std::size_t r = 0; r < ranks; ++r) offsets.push_back(std::min(all, r * each));
  offsets.push_back(all);
  return offsets;
}

std::size_t LeafSums::Sharing::room(std::span<const std::size_t> offsets) const {
  if (partials.size() == 1 || equal) return 0;
  std::size_t largest = 0;
  for (std::size_t r = 0; r + 1 < offsets.size(); ++r) largest = std::max(largest, offsets[r + 1] - offsets[r]);
  return merges.size() * largest;
}

std::size_t LeafSums::Sharing::sent(int rank, std::span<const std::size_t> offsets, bool keep) const {
  const auto r = static_cast<std::size_t>(rank);
  if (partials.size() == 1) return 0;
  if (equal) return offsets.back();
  return static_cast<std::size_t>(partials[r]) * offsets.back() + (keep ? 0 : offsets[r + 1] - offsets[r]);
}

LeafSums::Needs LeafSums::needs(std::int64_t elements, std::int64_t leaves, int rank, int ranks,
                                const std::vector<Ranges>& ranges) {
  const Sharing sharing(leaves, ranks);
  std::size_t floats = static_cast<std::size_t>(sharing.slots) * static_cast<std::size_t>(elements);
  Needs needs;
  for (const Ranges& each : ranges) {
    const bool keep = !each.offsets.empty();
    const std::vector<std::size_t> offsets = keep ? each.offsets : sharing.cut(each.elements);
    floats += static_cast<std::size_t>(each.count) * sharing.room(offsets);
    needs.sent += static_cast<std::size_t>(each.count) * sharing.sent(rank, offsets, keep);
  }
  needs.bytes = floats * sizeof(float);
  return needs;
}

std::vector<LeafSums::Step> LeafSums::steps_of(const sum_tree::Block& share) {
  std::vector<sum_tree::Block> leaves;
  for (std::int64_t leaf = share.begin; leaf < share.end; ++leaf) leaves.push_back({leaf, leaf + 1});
  std::vector<Step> steps;
  int top = 0;
  for (const std::uint8_t merges : sum_tree::merges_of(leaves)) {
    steps.push_back({.slot = top, .merges = merges});
    top += 1 - merges;
  }
  return steps;
}

void LeafSums::add(int to, int from, std::int64_t begin, std::int64_t count) const {
  kernels::axpy(exec_, {.x = slot(from) + begin, .y = slot(to) + begin, .count = static_cast<std::size_t>(count)});
}

void LeafSums::merge(int micro, std::int64_t begin, std::int64_t count) const {
  const Step step = steps_[static_cast<std::size_t>(micro)];
  for (int top = step.slot; top > step.slot - step.merges; --top) add(top - 1, top, begin, count);
}

LeafSums::Exchange LeafSums::plan(std::int64_t begin, std::int64_t count) {
  Exchange exchange{.begin = begin, .count = count, .received = room_, .offsets = sharing_.cut(count), .pending = {}};
  room_ += sharing_.room(exchange.offsets);
  sent_ += sharing_.sent(comm_.rank(), exchange.offsets, false);
  return exchange;
}

LeafSums::Exchange LeafSums::plan(std::int64_t begin, std::int64_t count, std::span<const std::size_t> offsets) {
  Exchange exchange{.begin = begin,
                    .count = count,
                    .received = room_,
                    .keep = true,
                    .offsets = {offsets.begin(), offsets.end()},
                    .pending = {}};
  room_ += sharing_.room(offsets);
  sent_ += sharing_.sent(comm_.rank(), offsets, true);
  return exchange;
}

void LeafSums::make_room() {
  if (room_ > 0) received_ = comm_.make_arena(*exec_.device, room_ * sizeof(float));
}

void LeafSums::start(Exchange& exchange) {
  const auto range = [&](int index) {
    return Buffer{slot(index) + exchange.begin, static_cast<std::size_t>(exchange.count), DType::f32, Memory::host};
  };
  exchange.pending.clear();
  if (comm_.size() == 1) {
    for (int top = sharing_.partials[0] - 1; top > 0; --top) add(top - 1, top, exchange.begin, exchange.count);
    return;
  }
  if (sharing_.equal) {
    exchange.pending.push_back(exchange.keep ? comm_.start_reduce_scatter(range(0), exchange.offsets, comm::Reduce::sum)
                                             : comm_.start_all_reduce(range(0), comm::Reduce::sum));
    return;
  }
  const auto rank = static_cast<std::size_t>(comm_.rank());
  const std::vector<std::size_t>& offsets = exchange.offsets;
  const std::vector<std::size_t> none(offsets.size(), 0);
  const std::size_t own = offsets[rank + 1] - offsets[rank];
  float* to = reinterpret_cast<float*>(received_->data()) + exchange.received;
  for (int round = 0; round < sharing_.rounds; ++round) {
    std::vector<std::size_t> arriving = {0};
    for (const int partials : sharing_.partials) arriving.push_back(arriving.back() + (partials > round ? own : 0));
    const bool sends = sharing_.partials[rank] > round;
    exchange.pending.push_back(comm_.start_all_to_all(sends ? range(round) : range(0).part(0, 0),
                                                      sends ? offsets : none,
                                                      {to, arriving.back(), DType::f32, Memory::host}, arriving));
    to += arriving.back();
  }
}

comm::Pending LeafSums::finish(Exchange& exchange) {
  for (const comm::Pending pending : exchange.pending) comm_.wait(pending);
  if (comm_.size() == 1 || sharing_.equal) return {};

  const std::vector<std::size_t>& offsets = exchange.offsets;
  const auto rank = static_cast<std::size_t>(comm_.rank());
  const std::size_t own = offsets[rank + 1] - offsets[rank];
  // By round and rank they arrived; by rank and round is their order in T.
  std::vector<std::vector<void*>> of_rank(sharing_.partials.size());
  float* at = reinterpret_cast<float*>(received_->data()) + exchange.received;
  for (int round = 0; round < sharing_.rounds; ++round)
    for (std::size_t r = 0; r < sharing_.partials.size(); ++r) {
      if (sharing_.partials[r] <= round) continue;
      of_rank[r].push_back(at);
      at += own;
    }
  std::vector<void*> sources;
  for (const std::vector<void*>& partials : of_rank) sources.insert(sources.end(), partials.begin(), partials.end());
  void* const target = sum_ + static_cast<std::size_t>(exchange.begin) + offsets[rank];
  kernels::for_pieces(exec_.threads, static_cast<std::int64_t>((own + piece - 1) / piece), [&](std::int64_t i) {
    const std::size_t begin = static_cast<std::size_t>(i) * piece;
    comm::reduce_in_tree_order(DType::f32, comm::Reduce::sum, sources, {&target, 1}, begin,
                               std::min(piece, own - begin), sharing_.merges);
  });
  if (exchange.keep) return {};
  return comm_.start_all_gather(
      {sum_ + exchange.begin, static_cast<std::size_t>(exchange.count), DType::f32, Memory::host}, offsets);
}

std::size_t LeafSums::bytes() const { return (slots_.size() * elements_ + room_) * sizeof(float); }

}  // namespace lockstep::engine
