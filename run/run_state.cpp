#include "run/run_state.hpp"

#include "core/isa.hpp"

namespace lockstep::run {

RunState run_state_of(engine::Engine& engine, const StepState& step, const job::JobConfig& job,
                      const job::BatchSizes& batch, int threads) {
  return {.step = step,
          .sample_position = step.attempted * batch.train,
          .seed = engine.options().seed,
          .train_batch = batch.train,
          .micro_batch = batch.micro,
          .world = engine.comm().size(),
          .threads = threads,
          .isa = isa_for_bits(engine.multiplies_bf16()),
          .job = job::effective_yaml(job),
          .metric = engine.metric_state(),
          .data = {}};
}

}  // namespace lockstep::run
