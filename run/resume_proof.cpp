#include "run/resume_proof.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>
#include <vector>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::run {

std::optional<double> next_loss(engine::Engine& engine, const data::Dataset& dataset, std::int64_t position,
                                std::int64_t train_batch) {
  comm::Communicator& comm = engine.comm();
  const std::int64_t samples = std::min(proof_samples, train_batch), ranks = comm.size();
  struct Part {
    double loss[proof_samples] = {}, weight[proof_samples] = {};
  };
  std::vector<Part> parts(static_cast<std::size_t>(ranks));
  Part& own = parts[static_cast<std::size_t>(comm.rank())];
  data::HostBatch sample;
  for (std::int64_t i = 0; i < samples; ++i) {
    // Each sample by the rank whose turn it is; where passes gather parameters all of them run each pass.
    if (!engine.gathers() && i % ranks != comm.rank()) continue;
    dataset.train_batch(position + i, 1, sample);
    const engine::EvaluationSum sum = engine.evaluate(sample);
    own.loss[i] = sum.loss.loss;
    own.weight[i] = sum.loss.weight;
  }
  comm.all_gather_values(std::span(parts));
  double loss = 0, weight = 0;
  for (std::int64_t i = 0; i < samples; ++i) {
    const Part& of = parts[static_cast<std::size_t>(i % ranks)];
    loss += of.loss[i];
    weight += of.weight[i];
  }
  const double mean = weight > 0 ? loss / weight : std::nan("");
  return std::isfinite(mean) ? std::optional(mean) : std::nullopt;
}

std::string resume_proof(double then, std::optional<double> now, const ProofTerms& terms,
                         const std::string& checkpoint) {
  const double difference = now ? std::abs(*now - then) : INFINITY;
  const double scale = std::max(std::abs(then), 1e-3);
  if (difference > (terms.fp32 ? 1e-3 : 5e-2) * scale)
    fail(ErrorKind::checkpoint,
         "{}: the samples that come next have loss {} now, and had {} when it was saved: what was loaded is not what "
         "was "
         "saved, or the data are others, or this machine computes wrongly. --resume with the path of an older "
         "checkpoint goes on from there",
         printable(checkpoint), now ? fmt::format("{}", *now) : "that is not finite", then);
  if (difference == 0)
    return fmt::format("resume verified: loss bits {:016x} of the next samples", std::bit_cast<std::uint64_t>(then));
  return fmt::format(
      "resume verified up to rounding: loss {} of the next samples, {} when it was saved ({:.1e} of it){}", *now, then,
      difference / scale, terms.same_bits ? "; equal bits were to be expected: another CPU, library or build?" : "");
}

}  // namespace lockstep::run
