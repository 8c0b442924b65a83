#pragma once

#include <optional>

#include "data/dataset.hpp"
#include "engine/engine.hpp"

namespace lockstep::engine {

/// Over all of the validation data.
struct Evaluation {
  double loss = 0;                 ///< mean, in nats per target
  std::optional<double> accuracy;  ///< share of right answers, of a classifier
  bool operator==(const Evaluation&) const = default;
};

/// Evaluates the model on all of the validation data. Blocks of one micro-batch are shared out to
/// the ranks and summed in block order, so the result has the same bits on any number of ranks. Ranks meet after every
/// block: a deadline of the communicator holds for one block, not for the whole evaluation. Nothing if there are no
/// validation data.
[[nodiscard]] std::optional<Evaluation> evaluate_all(Engine& engine, const data::Dataset& dataset);

}  // namespace lockstep::engine
