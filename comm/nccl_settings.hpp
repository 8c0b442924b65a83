#pragma once

#include <span>
#include <string>
#include <vector>

#include "comm/nccl.hpp"

// What is decided about NCCL before and around its calls, without calling it; comm/nccl.hpp is the public side.
namespace lockstep::comm {

/// Where a rank computes.
struct NcclPlace {
  std::string host;    ///< for messages
  std::string boot;    ///< tells hosts of one name apart
  std::string device;  ///< the GPU's place in its host
};

/// Throws ErrorKind::environment if two ranks of a host have one GPU and `share_gpu` does not allow it. Returns whether
/// some have.
bool check_places(std::span<const NcclPlace> places, bool share_gpu);

struct NcclVariable {
  std::string name;
  std::string value;
  bool always = false;  ///< else only where the user has not set it
};

/// The environment that NCCL is to start in: without `library_order` one algorithm and protocol for every size and no
/// sums in the network, so that sums repeat; with `shared` what lets ranks have one GPU together.
[[nodiscard]] std::vector<NcclVariable> nccl_environment(int rank, std::span<const NcclPlace> places, bool shared,
                                                         bool library_order);

/// "2.28.9"
[[nodiscard]] std::string nccl_version_text(int version);

/// Cuts `count` elements into one part a rank, as evenly as whole runs of `granularity` elements go.
[[nodiscard]] Parts even_parts(std::size_t count, int ranks, std::size_t granularity);

/// Whether parts follow one another without gaps and all have one length: what NCCL does in one call.
[[nodiscard]] bool are_equal_runs(const Parts& parts);

/// How the sums of parts by their owners go through a staging buffer: in pieces of the same elements of every part.
struct StagedSum {
  std::size_t pieces = 0;
  std::size_t share = 0;     ///< elements of a part in one piece; the last piece may have fewer
  std::size_t slot = 0;      ///< bytes for what one other rank sends
  std::size_t partials = 0;  ///< bytes for one partial sum in fp32; 0: none are needed
};

/// The most that ordered_sum adds in one go; for more ranks it adds sums of so many, which are subtrees of T.
inline constexpr int sources_at_once = 8;

/// For the sums of these parts in `bytes` of staging. ErrorKind::internal if not even one piece of few elements fits.
[[nodiscard]] StagedSum plan_staged_sum(const Parts& parts, DType dtype, std::size_t bytes);

/// Elements [piece * share, (piece + 1) * share) of every part, as far as it goes.
[[nodiscard]] Parts piece_of(const Parts& parts, std::size_t piece, std::size_t share);

}  // namespace lockstep::comm
