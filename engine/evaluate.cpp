#include "engine/evaluate.hpp"

#include <span>
#include <vector>

namespace lockstep::engine {

std::optional<Evaluation> evaluate_all(Engine& engine, const data::Dataset& dataset) {
  comm::Communicator& comm = engine.comm();
  const std::int64_t block = engine.options().micro_batch.batch;
  const std::int64_t blocks = (dataset.eval_samples() + block - 1) / block;
  data::HostBatch batch;
  std::vector<EvaluationSum> sums(static_cast<std::size_t>(comm.size()));
  EvaluationSum total;
  for (std::int64_t round = 0; round < blocks; round += comm.size()) {
    EvaluationSum& own = sums[static_cast<std::size_t>(comm.rank())] = {};
    if (const std::int64_t b = round + comm.rank(); b < blocks) {
      dataset.eval_batch(b * block, block, batch);
      own = engine.evaluate(batch);
    } else if (engine.gathers()) {
      // Ranks with samples left need this one's parameters.
      dataset.eval_batch(0, block, batch);
      (void)engine.evaluate(batch);
    }
    comm.all_gather_values(std::span(sums));
    for (const EvaluationSum& sum : sums) {
      total.loss.loss += sum.loss.loss;
      total.loss.weight += sum.loss.weight;
      total.correct += sum.correct;
    }
  }
  if (total.loss.weight == 0) return std::nullopt;
  Evaluation result{.loss = total.loss.loss / total.loss.weight, .accuracy = {}};
  if (engine.has_accuracy()) result.accuracy = static_cast<double>(total.correct) / total.loss.weight;
  return result;
}

}  // namespace lockstep::engine
