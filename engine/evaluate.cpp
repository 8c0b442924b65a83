#include "engine/evaluate.hpp"

#include <span>
#include <vector>

namespace lockstep::engine {

std::optional<double> evaluate_all(Engine& engine, const data::Dataset& dataset) {
  comm::Communicator& comm = engine.comm();
  const std::int64_t block = engine.options().micro_batch.batch;
  const std::int64_t blocks = (dataset.eval_samples() + block - 1) / block;
  data::HostBatch batch;
  std::vector<LossSum> sums(static_cast<std::size_t>(comm.size()));
  LossSum total;
  for (std::int64_t round = 0; round < blocks; round += comm.size()) {
    LossSum& own = sums[static_cast<std::size_t>(comm.rank())] = {};
    if (const std::int64_t b = round + comm.rank(); b < blocks) {
      dataset.eval_batch(b * block, block, batch);
      own = engine.evaluate(batch);
    }
    comm.all_gather_values(std::span(sums));
    for (const LossSum& sum : sums) {
      total.loss += sum.loss;
      total.weight += sum.weight;
    }
  }
  if (total.weight == 0) return std::nullopt;
  return total.loss / total.weight;
}

}  // namespace lockstep::engine
