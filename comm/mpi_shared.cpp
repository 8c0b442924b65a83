#include "comm/mpi_shared.hpp"

#include <utility>

#include "comm/reduce.hpp"
#include "core/error.hpp"

namespace lockstep::comm {
namespace {

std::string size_text(const Buffer& buffer) {
  return fmt::format("{} x {}", buffer.count, lockstep::to_string(buffer.dtype));
}

/// A step that the ranks of a host do in memory.
class SharedTask final : public MpiTask {
 public:
  SharedTask(MpiShared& shared, MpiContext& context, std::uint64_t number, std::string what, SharedOperation operation)
      : MpiTask(context, number, std::move(what)), shared_(shared), operation_(std::move(operation)) {}

  [[nodiscard]] bool advance() override { return shared_.host.advance(operation_); }
  [[nodiscard]] std::vector<int> awaited() const override {
    std::vector<int> ranks;
    for (const int place : shared_.host.missing(operation_))
      ranks.push_back(shared_.layout.neighbors[static_cast<std::size_t>(place)]);
    return ranks;
  }
  [[nodiscard]] bool waits_in_memory() const override { return true; }

 private:
  void post_first() override {}

  MpiShared& shared_;
  SharedOperation operation_;
};

/// Steps in turn: each begins when this rank is done with the one before.
class StepsTask final : public MpiTask {
 public:
  StepsTask(MpiContext& context, std::uint64_t number, std::string what, std::vector<std::unique_ptr<MpiTask>> steps)
      : MpiTask(context, number, std::move(what)), steps_(std::move(steps)) {}

  [[nodiscard]] bool advance() override {
    for (; at_ < steps_.size(); ++at_) {
      MpiTask& step = *steps_[at_];
      if (!step.started()) step.start();
      if (!step.advance()) return false;
    }
    return true;
  }
  /// Ranks of the messages' own group are not the world's, so only memory tells.
  [[nodiscard]] std::vector<int> awaited() const override {
    return waits_in_memory() ? steps_[at_]->awaited() : std::vector<int>{};
  }
  [[nodiscard]] bool waits_in_memory() const override { return at_ < steps_.size() && steps_[at_]->waits_in_memory(); }

 private:
  void post_first() override {}

  std::vector<std::unique_ptr<MpiTask>> steps_;
  std::size_t at_ = 0;
};

/// What a rank owns of a host's share of the work, where world rank r = host * neighbors + place.
std::vector<Parts> owned_by_place(const HostLayout& layout, const Parts& parts) {
  const std::size_t places = layout.neighbors.size();
  std::vector<Parts> owned(places);
  for (std::size_t r = 0; r < parts.size(); ++r) owned[r % places].push_back(parts[r]);
  return owned;
}

/// A 16-bit sum is rounded once, at the end: partial sums do not travel.
bool sums_in_two_levels(const HostLayout& layout, DType dtype) {
  return layout.subtrees && dtype != DType::bf16 && dtype != DType::f16;
}

}  // namespace

std::unique_ptr<MpiTask> shared_all_reduce_task(MpiShared& shared, MpiContext& context, std::uint64_t number,
                                                Buffer data, Reduce op) {
  std::string what = fmt::format("all_reduce ({}) of {}", to_string(op), size_text(data));
  const std::vector<Parts> shares = shared.host.even_shares(data.count);
  const auto step = [&](SharedWork work) {
    return std::make_unique<SharedTask>(shared, context, number, what, shared.host.make(work, data, shares, op));
  };
  if (shared.layout.hosts == 1) return step(SharedWork::reduce_to_all);
  if (!sums_in_two_levels(shared.layout, data.dtype)) return nullptr;
  std::vector<std::unique_ptr<MpiTask>> steps;
  steps.push_back(step(SharedWork::reduce_to_owner));
  const Part own = shares[static_cast<std::size_t>(shared.layout.place)].front();
  const Buffer part = data.part(own.begin, own.size());
  if (own.size() > 0)
    steps.push_back(travels_rounded(shared.wire, data, op)
                        ? rounded_all_reduce_task(shared.peers, number, part, shared.wire)
                        : all_reduce_task(shared.peers, number, part, op, AllReduceOrder::tree));
  steps.push_back(step(SharedWork::copy_from_owner));
  return std::make_unique<StepsTask>(context, number, what, std::move(steps));
}

std::unique_ptr<MpiTask> shared_reduce_scatter_task(MpiShared& shared, MpiContext& context, std::uint64_t number,
                                                    Buffer data, const Parts& parts, Reduce op) {
  std::string what = fmt::format("reduce_scatter ({}) of {}", to_string(op), size_text(data));
  if (shared.layout.hosts > 1 && !sums_in_two_levels(shared.layout, data.dtype)) return nullptr;
  const std::vector<Parts> owned = owned_by_place(shared.layout, parts);
  auto within = std::make_unique<SharedTask>(shared, context, number, what,
                                             shared.host.make(SharedWork::reduce_to_owner, data, owned, op));
  if (shared.layout.hosts == 1) return within;
  std::vector<std::unique_ptr<MpiTask>> steps;
  steps.push_back(std::move(within));
  const Parts& own = owned[static_cast<std::size_t>(shared.layout.place)];
  steps.push_back(travels_rounded(shared.wire, data, op)
                      ? rounded_reduce_scatter_task(shared.peers, number, data, own, shared.wire)
                      : reduce_scatter_task(shared.peers, number, data, own, op));
  return std::make_unique<StepsTask>(context, number, what, std::move(steps));
}

std::unique_ptr<MpiTask> shared_all_gather_task(MpiShared& shared, MpiContext& context, std::uint64_t number,
                                                Buffer data, const Parts& parts) {
  std::string what = fmt::format("all_gather of {}", size_text(data));
  if (shared.layout.hosts > 1 && !shared.layout.regular) return nullptr;
  const std::vector<Parts> owned = owned_by_place(shared.layout, parts);
  auto within = std::make_unique<SharedTask>(shared, context, number, what,
                                             shared.host.make(SharedWork::copy_from_owner, data, owned, Reduce::sum));
  if (shared.layout.hosts == 1) return within;
  std::vector<std::unique_ptr<MpiTask>> steps;
  steps.push_back(all_gather_task(shared.peers, number, data, owned[static_cast<std::size_t>(shared.layout.place)]));
  steps.push_back(std::move(within));
  return std::make_unique<StepsTask>(context, number, what, std::move(steps));
}

std::unique_ptr<MpiTask> shared_broadcast_task(MpiShared& shared, MpiContext& context, std::uint64_t number,
                                               Buffer data, int root) {
  if (shared.layout.hosts > 1) return nullptr;
  return std::make_unique<SharedTask>(
      shared, context, number, fmt::format("broadcast from rank {} of {}", root, size_text(data)),
      shared.host.make(SharedWork::copy_from_root, data, shared.host.even_shares(data.count), Reduce::sum, root));
}

std::unique_ptr<MpiTask> shared_all_to_all_task(MpiShared& shared, MpiContext& context, std::uint64_t number,
                                                Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                                                std::span<const std::size_t> receive_offsets) {
  if (shared.layout.hosts > 1) return nullptr;
  return std::make_unique<SharedTask>(shared, context, number, fmt::format("all_to_all of {}", size_text(send)),
                                      shared.host.make_exchange(send, send_offsets, receive, receive_offsets));
}

}  // namespace lockstep::comm
