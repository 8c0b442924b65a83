#include "engine/evaluate.hpp"

namespace lockstep::engine {

double evaluate_all(Engine& engine, const data::Dataset& dataset) {
  comm::Communicator& comm = engine.comm();
  const std::int64_t block = engine.options().micro_batch.batch;
  const std::int64_t blocks = (dataset.eval_samples() + block - 1) / block;
  // Each rank fills its blocks; the others' entries are zero, so the sum over ranks is exact.
  std::vector<double> sums(2 * static_cast<std::size_t>(blocks), 0.0);
  data::HostBatch batch;
  for (std::int64_t b = comm.rank(); b < blocks; b += comm.size()) {
    dataset.eval_batch(b * block, block, batch);
    const LossSum sum = engine.evaluate(batch);
    sums[2 * static_cast<std::size_t>(b)] = sum.loss;
    sums[2 * static_cast<std::size_t>(b) + 1] = sum.weight;
  }
  comm.all_reduce({sums.data(), sums.size(), DType::f64, Memory::host}, comm::Reduce::sum);
  double loss = 0, weight = 0;
  for (std::size_t b = 0; b < sums.size(); b += 2) {
    loss += sums[b];
    weight += sums[b + 1];
  }
  return weight > 0 ? loss / weight : 0;
}

}  // namespace lockstep::engine
