#include "run/drift_guard.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <map>
#include <span>
#include <string>

#include "core/error.hpp"

namespace lockstep::run {
namespace {

constexpr std::size_t most_ranks_told = 8;
constexpr const char* remedy =
    "\n  The memory or a core of that machine is the likely cause, or ranks that compute on different kinds of CPU. "
    "Start the same command again, without that machine if it happens again: it goes on from the newest checkpoint, "
    "and what is saved is compared before it is written (run.guard.every)";

std::uint64_t digest_of(const std::vector<StateSum>& sums) {
  std::vector<std::uint64_t> values;
  for (const StateSum& sum : sums)
    if (sum.replicated) values.push_back(sum.value);
  return XXH3_64bits(values.data(), values.size() * sizeof(std::uint64_t));
}

std::vector<std::uint64_t> gathered(comm::Communicator& comm, std::uint64_t own) {
  std::vector<std::uint64_t> all(static_cast<std::size_t>(comm.size()));
  all[static_cast<std::size_t>(comm.rank())] = own;
  comm.all_gather_values(std::span(all));
  return all;
}

bool differ(const std::vector<std::uint64_t>& values) {
  return std::ranges::any_of(values, [&](std::uint64_t value) { return value != values.front(); });
}

/// "rank 2", "ranks 2 and 5", "ranks 1, 2 and 3 more"
std::string listed(const std::vector<std::size_t>& ranks) {
  if (ranks.size() == 1) return fmt::format("rank {}", ranks[0]);
  std::string text = "ranks ";
  const std::size_t told = std::min(ranks.size(), most_ranks_told);
  for (std::size_t i = 0; i < told; ++i) {
    if (i > 0) text += i + 1 == ranks.size() ? " and " : ", ";
    text += std::to_string(ranks[i]);
  }
  if (told < ranks.size()) text += fmt::format(" and {} more", ranks.size() - told);
  return text;
}

}  // namespace

std::optional<std::vector<std::size_t>> minority(const std::vector<std::uint64_t>& values) {
  std::map<std::uint64_t, std::size_t> votes;
  for (const std::uint64_t value : values) ++votes[value];
  const auto most = std::ranges::max_element(votes, {}, [](const auto& vote) { return vote.second; });
  if (2 * most->second <= values.size()) return std::nullopt;
  std::vector<std::size_t> ranks;
  for (std::size_t r = 0; r < values.size(); ++r)
    if (values[r] != most->first) ranks.push_back(r);
  return ranks;
}

void DriftGuard::compare(std::int64_t done) {
  if (!on()) return;
  comm::Communicator& comm = engine_.comm();
  sums_ = state_sums(engine_);
  compared_at_ = done;
  if (comm.size() == 1 || !differ(gathered(comm, digest_of(sums_)))) return;
  // All ranks go through the same entries in the same order, and stop at the same one.
  for (std::size_t i = 0; i < sums_.size(); ++i) {
    if (!sums_[i].replicated) continue;
    const std::vector<std::uint64_t> values = gathered(comm, sums_[i].value);
    if (!differ(values)) continue;
    const std::string name = name_of_sum(engine_, i);
    if (const auto few = minority(values))
      fail(ErrorKind::desync, "after step {}: {} of {} {} another value of {} than the others.{}", done, listed(*few),
           values.size(), few->size() == 1 ? "holds" : "hold", name, remedy);
    fail(ErrorKind::desync,
         "after step {}: the {} ranks hold different values of {}, none of them in the majority, so which of them is "
         "wrong cannot be told.{}",
         done, values.size(), name, remedy);
  }
  fail(ErrorKind::internal, "drift guard: digests differ, and nothing that they are made of");
}

void DriftGuard::require_unchanged() {
  if (!compared_at_) return;
  const std::int64_t done = *compared_at_;
  compared_at_.reset();
  const std::vector<StateSum> now = state_sums(engine_);
  for (std::size_t i = 0; i < now.size(); ++i)
    if (now[i] != sums_[i])
      fail(ErrorKind::desync,
           "{} of rank {} changed between step {} and the update of step {}, where nothing writes it.\n  The memory or "
           "a core of that machine is the likely cause. Start the same command again, without that machine if it "
           "happens again; a checkpoint of step {} may hold the change: --resume with the path of the one before is "
           "sure not to",
           name_of_sum(engine_, i), engine_.comm().rank(), done, done + 1, done);
}

}  // namespace lockstep::run
