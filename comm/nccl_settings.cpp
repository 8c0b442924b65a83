#include "comm/nccl_settings.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.hpp"

namespace lockstep::comm {
namespace {

// Slots start on a boundary that suits any access, and pieces are cut on one.
constexpr std::size_t slot_alignment = 256;
constexpr std::size_t piece_granularity = slot_alignment;  // in elements: on the boundary for every type

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

bool one_host(std::span<const NcclPlace> places) {
  return std::ranges::all_of(places, [&](const NcclPlace& place) {
    return place.host == places.front().host && place.boot == places.front().boot;
  });
}

}  // namespace

bool check_places(std::span<const NcclPlace> places, bool share_gpu) {
  std::map<std::pair<std::string, std::string>, std::size_t> seen;
  bool shared = false;
  for (std::size_t r = 0; r < places.size(); ++r) {
    const NcclPlace& place = places[r];
    const auto [first, fresh] = seen.emplace(std::pair(place.host + '\n' + place.boot, place.device), r);
    if (fresh) continue;
    shared = true;
    if (!share_gpu)
      fail(ErrorKind::environment,
           "comm.backend: nccl: ranks {} and {} both have the GPU {} of {}, and NCCL wants one for each; start no more "
           "ranks on a host than it has GPUs, or, to try a job out, say comm: {{share_gpu: true}} (correct, but slow)",
           first->second, r, place.device, place.host);
  }
  return shared;
}

std::vector<NcclVariable> nccl_environment(int rank, std::span<const NcclPlace> places, bool shared,
                                           bool library_order) {
  std::vector<NcclVariable> variables;
  const auto set = [&](const char* name, const char* value) { variables.push_back({name, value}); };
  if (!library_order) {
    set("NCCL_ALGO", "Ring");
    set("NCCL_PROTO", "Simple");
    set("NCCL_NVLS_ENABLE", "0");
  }
  if (!shared) return variables;
  // Two ranks on one GPU are told apart by their hosts alone: each gets one of its own. That rules out shared memory
  // and direct access by itself, so that sockets are left; those of this machine are enough where all ranks are here.
  variables.push_back({"NCCL_HOSTID", "lockstep-rank-" + std::to_string(rank), true});
  set("NCCL_NET", "Socket");
  set("NCCL_IB_DISABLE", "1");
  if (one_host(places)) set("NCCL_SOCKET_IFNAME", "lo");
  set("NCCL_MNNVL_ENABLE", "0");
  if (library_order) set("NCCL_NVLS_ENABLE", "0");
  // Kernels of both ranks may have to be on the GPU together; and from 2.30 on NCCL wants to be asked.
  set("NCCL_MAX_CTAS", "2");
  set("NCCL_MULTI_RANK_GPU_ENABLE", "1");
  return variables;
}

std::string nccl_version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

Parts even_parts(std::size_t count, int ranks, std::size_t granularity) {
  const auto n = static_cast<std::size_t>(ranks);
  const std::size_t part = round_up((count + n - 1) / n, granularity);
  Parts parts(n);
  for (std::size_t r = 0; r < n; ++r) parts[r] = {std::min(count, r * part), std::min(count, (r + 1) * part)};
  return parts;
}

bool are_equal_runs(const Parts& parts) {
  for (std::size_t r = 1; r < parts.size(); ++r)
    if (parts[r].begin != parts[r - 1].end || parts[r].size() != parts[0].size()) return false;
  return true;
}

StagedSum plan_staged_sum(const Parts& parts, DType dtype, std::size_t bytes) {
  std::size_t longest = 0;
  for (const Part& part : parts) longest = std::max(longest, part.size());
  if (longest == 0) return {};
  const std::size_t ranks = parts.size(), most = static_cast<std::size_t>(sources_at_once);
  const std::size_t partial_sums = ranks > most ? (ranks + most - 1) / most : 0;
  const std::size_t for_each = (ranks - 1) * size_of(dtype) + partial_sums * sizeof(float);
  // Every slot may lose an alignment.
  const std::size_t lost = (ranks - 1 + partial_sums) * slot_alignment;
  const std::size_t fits = bytes > lost ? (bytes - lost) / for_each : 0;
  StagedSum plan;
  plan.share = std::min(longest, fits);
  if (plan.share < longest) plan.share -= plan.share % piece_granularity;
  if (plan.share == 0)
    fail(ErrorKind::internal, "nccl: {} bytes of staging are too few for sums of {} ranks", bytes, ranks);
  plan.pieces = (longest + plan.share - 1) / plan.share;
  plan.slot = round_up(plan.share * size_of(dtype), slot_alignment);
  plan.partials = partial_sums > 0 ? round_up(plan.share * sizeof(float), slot_alignment) : 0;
  return plan;
}

Parts piece_of(const Parts& parts, std::size_t piece, std::size_t share) {
  Parts result(parts.size());
  for (std::size_t r = 0; r < parts.size(); ++r)
    result[r] = {std::min(parts[r].end, parts[r].begin + piece * share),
                 std::min(parts[r].end, parts[r].begin + (piece + 1) * share)};
  return result;
}

}  // namespace lockstep::comm
