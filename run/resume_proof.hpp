#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/dataset.hpp"
#include "engine/engine.hpp"

namespace lockstep::run {

// A checkpoint holds what its next samples cost. Whoever goes on from it computes that again: parameters that were put
// where they do not belong, or data at another place, would show before a step is taken.

/// So many samples of the next step at most are looked at, each by itself, so that the number does not depend on how a
/// batch is cut.
inline constexpr std::int64_t proof_samples = 4;

/// Mean loss, without dropout, of the first samples of the step that begins at `position` of the training sequence, the
/// same on every rank; ranks share the samples out. Nothing if it is not finite, or no target counts. Collective; no
/// step in flight.
[[nodiscard]] std::optional<double> next_loss(engine::Engine& engine, const data::Dataset& dataset,
                                              std::int64_t position, std::int64_t train_batch);

/// How two such numbers are compared.
struct ProofTerms {
  bool same_bits =
      false;          ///< ranks, threads, instruction set and numbers are those of the save, or the mode is invariant
  bool fp32 = false;  ///< then and now
};
/// A sentence on `now` beside `then`. ErrorKind::checkpoint, naming `checkpoint`, if they differ by more than rounding:
/// a thousandth in fp32, 5 % where 16-bit numbers are involved.
[[nodiscard]] std::string resume_proof(double then, std::optional<double> now, const ProofTerms& terms,
                                       const std::string& checkpoint);

}  // namespace lockstep::run
