#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "core/sum_tree.hpp"
#include "kernels/exec.hpp"

namespace lockstep::engine {

/// Adds the gradients of a step's micro-batches ("leaves") as the tree T over all of them (core/sum_tree.hpp), with
/// bits that do not depend on how many ranks computed them.
///
/// A rank has consecutive leaves (sum_tree::share). Each leaf's gradient starts from nothing in a buffer of its own;
/// complete subtrees of T are merged at once, as a binary counter carries, so that a rank holds about log2 of its
/// leaves in buffers and never more partial sums than T has subtrees inside its share. At the end ranks exchange those:
/// by an all-reduce where each has one subtree of the same size, else each sends its partial sums of a part to that
/// part's owner, who goes on with T, and the parts are gathered. Where owners keep their parts (ZeRO) nothing is
/// gathered, and the all-reduce is a reduce-scatter.
///
/// Everything is done range by range, as soon as a range of the gradient is complete.
class LeafSums {
 public:
  /// Collective. `sum` [elements] is where the first leaf goes and where the sum ends up; made by `comm`'s make_arena.
  /// `leaves`: of all ranks, at least one for each. Host memory: ErrorKind::config on a device whose work is not done
  /// at once.
  LeafSums(comm::Communicator& comm, const Exec& exec, float* sum, std::int64_t elements, std::int64_t leaves);

  /// This rank's leaves.
  [[nodiscard]] const sum_tree::Block& own() const { return own_; }
  /// Where the gradient of this rank's leaf `micro`, counted from 0, is to be written.
  [[nodiscard]] float* of(int micro) const { return slot(steps_[static_cast<std::size_t>(micro)].slot); }

  /// Elements [begin, begin + count) of leaf `micro` are complete: merges what is a subtree now.
  void merge(int micro, std::int64_t begin, std::int64_t count) const;

  /// The exchange of a range under way.
  struct Exchange {
    std::int64_t begin = 0;
    std::int64_t count = 0;
    std::size_t received = 0;               ///< where its partial sums from other ranks arrive
    bool keep = false;                      ///< owners keep their parts
    std::vector<std::size_t> offsets = {};  ///< of the parts by owner, from `begin`
    std::vector<comm::Pending> pending;
  };
  /// A range that start() will be called with, each step. All ranges first, then make_room().
  [[nodiscard]] Exchange plan(std::int64_t begin, std::int64_t count);
  /// Of which every rank keeps its part, between these ascending offsets from `begin`, one more than ranks; the rest of
  /// the range is undefined afterwards.
  [[nodiscard]] Exchange plan(std::int64_t begin, std::int64_t count, std::span<const std::size_t> offsets);
  /// Collective: memory for what arrives from other ranks.
  void make_room();
  /// All leaves of this rank are merged in this range: sends its partial sums off.
  void start(Exchange& exchange);
  /// Waits for the others' and adds them up. The sum is complete once the result was waited for.
  [[nodiscard]] comm::Pending finish(Exchange& exchange);

  [[nodiscard]] std::size_t bytes() const;
  /// bytes() and sent() of a rank, before there is one.
  struct Needs {
    std::size_t bytes = 0;
    std::size_t sent = 0;
  };
  /// So many of the ranges that plan() will be told have so many elements.
  struct Ranges {
    std::int64_t elements = 0;
    std::int64_t count = 0;
    std::vector<std::size_t> offsets = {};  ///< where owners keep their parts
  };
  [[nodiscard]] static Needs needs(std::int64_t elements, std::int64_t leaves, int rank, int ranks,
                                   const std::vector<Ranges>& ranges);
  /// Floats that this rank hands to the communicator in a step, given what plan() was told.
  [[nodiscard]] std::size_t sent() const { return sent_; }

 private:
  /// Of a leaf: its buffer, and how many merges follow it.
  struct Step {
    int slot = 0;
    int merges = 0;
  };
  [[nodiscard]] float* slot(int index) const {
    return index == 0 ? sum_ : reinterpret_cast<float*>(slots_[static_cast<std::size_t>(index - 1)]->data());
  }
  /// What follows from the numbers of leaves and ranks.
  struct Sharing {
    Sharing(std::int64_t leaves, int ranks);
    std::vector<int> partials;         ///< by rank: subtrees that its leaves make
    int rounds = 0;                    ///< the most of them
    std::vector<std::uint8_t> merges;  ///< after each partial sum of all ranks, in order
    bool equal = true;                 ///< one subtree a rank, all of one size
    int slots = 0;                     ///< buffers besides the sum's own: as many on every rank
    /// The parts of a range by owner, as offsets into it; in whole cache lines.
    [[nodiscard]] std::vector<std::size_t> cut(std::int64_t count) const;
    /// Of a range cut so: floats that arrive from other ranks (as many on every rank) and that `rank` hands over.
    [[nodiscard]] std::size_t room(std::span<const std::size_t> offsets) const;
    [[nodiscard]] std::size_t sent(int rank, std::span<const std::size_t> offsets, bool keep) const;
  };
  void add(int to, int from, std::int64_t begin, std::int64_t count) const;
  [[nodiscard]] static std::vector<Step> steps_of(const sum_tree::Block& share);

  comm::Communicator& comm_;
  Exec exec_;
  float* sum_;
  std::size_t elements_;
  sum_tree::Block own_;
  std::vector<Step> steps_;                              ///< by leaf of this rank
  std::vector<std::unique_ptr<comm::FlatArena>> slots_;  ///< [elements], from the second on
  Sharing sharing_;
  std::size_t room_ = 0;  ///< floats that arrive from others in a step
  std::unique_ptr<comm::FlatArena> received_;
  std::size_t sent_ = 0;
};

}  // namespace lockstep::engine
