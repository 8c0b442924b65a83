#include "kernels/decide/decide.hpp"

#include <cstddef>

#include "core/error.hpp"
#include "kernels/table.hpp"

namespace lockstep {
namespace {

std::uint64_t fnv1a(std::uint64_t hash, const void* data, std::size_t bytes) {
  const auto* byte = static_cast<const unsigned char*>(data);
  for (std::size_t i = 0; i < bytes; ++i) hash = (hash ^ byte[i]) * 0x100000001b3ULL;
  return hash;
}

}  // namespace

std::uint64_t record_digest(const StepRecord& record) {
  std::uint64_t hash = fnv1a(0xcbf29ce484222325ULL, &record, offsetof(StepRecord, digest));
  return fnv1a(hash, record.rows(), record_bytes(record.count, record.groups) - sizeof(StepRecord));
}

StepState initial_state(const ScalerConfig& config) {
  StepState state;
  state.scale = config.initial_scale;
  state.hysteresis = config.hysteresis;
  return state;
}

namespace kernels {

void decide(const Exec& exec, const DecideArgs& args) {
  require(args.inputs != nullptr && args.reports != nullptr && args.state != nullptr && args.group_steps != nullptr &&
              args.result != nullptr,
          "decide: inputs, reports, state, group_steps or result is null");
  require(args.world >= 1, "decide: world is not positive");
  require(args.groups >= 1, "decide: there are no parameter groups");
  require(args.leaf_losses == nullptr || args.leaves >= 1, "decide: leaf_losses of no leaves");
  require(args.clip >= 0, "decide: clip is negative");
  require(args.grad_divisor > 0, "decide: grad_divisor is not positive");
  check(exec.table->decide(exec, args));
}

}  // namespace kernels
}  // namespace lockstep
