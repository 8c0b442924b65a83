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
      own_(sum_tree::share(leaves, comm.rank(), comm.size())) {
  if (!exec.device->immediate())
    fail(ErrorKind::config, "run.determinism: invariant is for CPUs in this version; {} is none: use exact",
         exec.device->name());
  require(leaves >= comm.size(), "leaf sums: fewer leaves than ranks");

  steps_ = steps_of(own_);
  // As many on every rank: arenas are made together.
  int most = 0;
  for (int r = 0; r < comm.size(); ++r)
    for (const Step& step : steps_of(sum_tree::share(leaves, r, comm.size()))) most = std::max(most, step.slot);
  for (int i = 0; i < most; ++i) slots_.push_back(comm.make_arena(*exec.device, elements_ * sizeof(float)));

  std::vector<sum_tree::Block> all;
  equal_ = true;
  for (int r = 0; r < comm.size(); ++r) {
    const sum_tree::Block theirs = sum_tree::share(leaves, r, comm.size());
    const auto blocks = sum_tree::blocks(theirs.begin, theirs.end);
    partials_.push_back(static_cast<int>(blocks.size()));
    rounds_ = std::max(rounds_, partials_.back());
    all.insert(all.end(), blocks.begin(), blocks.end());
    equal_ = equal_ && blocks.size() == 1 && blocks.front().size() == all.front().size();
  }
  merges_ = sum_tree::merges_of(all);
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

/// The parts of a range by owner, as offsets into it; in whole cache lines.
std::vector<std::size_t> LeafSums::cut(std::int64_t count) const {
  constexpr std::size_t line = 16;
  const auto ranks = static_cast<std::size_t>(comm_.size()), all = static_cast<std::size_t>(count);
  const std::size_t lines = (all + line - 1) / line, each = (lines + ranks - 1) / ranks * line;
  std::vector<std::size_t> offsets;
  for (std::size_t r = 0; r < ranks; ++r) offsets.push_back(std::min(all, r * each));
  offsets.push_back(all);
  return offsets;
}

LeafSums::Exchange LeafSums::plan(std::int64_t begin, std::int64_t count) {
  Exchange exchange{.begin = begin, .count = count, .received = room_, .pending = {}};
  if (comm_.size() == 1) return exchange;
  const auto all = static_cast<std::size_t>(count);
  if (equal_) {
    sent_ += all;
    return exchange;
  }
  const auto rank = static_cast<std::size_t>(comm_.rank());
  const std::vector<std::size_t> offsets = cut(count);
  room_ += merges_.size() * offsets[1];  // the first part is the largest: as much room on every rank
  sent_ += static_cast<std::size_t>(partials_[rank]) * all + (offsets[rank + 1] - offsets[rank]);
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
    for (int top = partials_[0] - 1; top > 0; --top) add(top - 1, top, exchange.begin, exchange.count);
    return;
  }
  if (equal_) {
    exchange.pending.push_back(comm_.start_all_reduce(range(0), comm::Reduce::sum));
    return;
  }
  const auto rank = static_cast<std::size_t>(comm_.rank());
  const std::vector<std::size_t> offsets = cut(exchange.count), none(offsets.size(), 0);
  const std::size_t own = offsets[rank + 1] - offsets[rank];
  float* to = reinterpret_cast<float*>(received_->data()) + exchange.received;
  for (int round = 0; round < rounds_; ++round) {
    std::vector<std::size_t> arriving = {0};
    for (const int partials : partials_) arriving.push_back(arriving.back() + (partials > round ? own : 0));
    const bool sends = partials_[rank] > round;
    exchange.pending.push_back(comm_.start_all_to_all(sends ? range(round) : range(0).part(0, 0),
                                                      sends ? offsets : none,
                                                      {to, arriving.back(), DType::f32, Memory::host}, arriving));
    to += arriving.back();
  }
}

comm::Pending LeafSums::finish(Exchange& exchange) {
  for (const comm::Pending pending : exchange.pending) comm_.wait(pending);
  if (comm_.size() == 1 || equal_) return {};

  const std::vector<std::size_t> offsets = cut(exchange.count);
  const auto rank = static_cast<std::size_t>(comm_.rank());
  const std::size_t own = offsets[rank + 1] - offsets[rank];
  // By round and rank they arrived; by rank and round is their order in T.
  std::vector<std::vector<void*>> of_rank(partials_.size());
  float* at = reinterpret_cast<float*>(received_->data()) + exchange.received;
  for (int round = 0; round < rounds_; ++round)
    for (std::size_t r = 0; r < partials_.size(); ++r) {
      if (partials_[r] <= round) continue;
      of_rank[r].push_back(at);
      at += own;
    }
  std::vector<void*> sources;
  for (const std::vector<void*>& partials : of_rank) sources.insert(sources.end(), partials.begin(), partials.end());
  void* const target = sum_ + static_cast<std::size_t>(exchange.begin) + offsets[rank];
  kernels::for_pieces(exec_.threads, static_cast<std::int64_t>((own + piece - 1) / piece), [&](std::int64_t i) {
    const std::size_t begin = static_cast<std::size_t>(i) * piece;
    comm::reduce_in_tree_order(DType::f32, comm::Reduce::sum, sources, {&target, 1}, begin,
                               std::min(piece, own - begin), merges_);
  });
  return comm_.start_all_gather(
      {sum_ + exchange.begin, static_cast<std::size_t>(exchange.count), DType::f32, Memory::host}, offsets);
}

std::size_t LeafSums::bytes() const { return (slots_.size() * elements_ + room_) * sizeof(float); }

}  // namespace lockstep::engine
