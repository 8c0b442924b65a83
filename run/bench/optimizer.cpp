#include <algorithm>

#include "core/error.hpp"
#include "run/bench/benches.hpp"
#include "run/bench/ceilings.hpp"
#include "run/bench/optimizer_state.hpp"
#include "run/bench/workbench.hpp"

namespace lockstep::run::bench {
namespace {

constexpr std::size_t large_copy = std::size_t{4} << 30;

}  // namespace

Report bench_optimizer(RankContext& rank, const OptimizerShape& shape, const Sampling& sampling) {
  Workbench bench(rank);
  const Exec exec = bench.exec();
  const bool immediate = bench.device().immediate();
  const auto elements = static_cast<std::size_t>(shape.elements > 0 ? shape.elements : gpt2_124m);
  const OptimizerState state(bench, elements);
  auto* const copy16 = bench.memory<bf16>(elements);

  std::vector<Task> tasks;
  if (immediate) {
    tasks.push_back(in_place_update({state.p, state.m, state.v, state.g, elements}, exec.threads));
  } else {
    const std::size_t bytes = shape.copy_bytes > 0 ? static_cast<std::size_t>(shape.copy_bytes) : large_copy;
    auto* to = bench.memory<std::byte>(bytes);
    const void* from = bench.numbers(bytes / sizeof(float), 1.0F);
    tasks.push_back(copy_of("copy on the device", exec, to, from, bytes / sizeof(float) * sizeof(float)));
  }
  const std::string ceiling = tasks.front().name;
  const auto add = [&](const std::string& name, double bytes_each, std::function<void()> run) {
    tasks.push_back({.name = name,
                     .shape = fmt::format("{} elements, {} B each", elements, bytes_each),
                     .bytes = bytes_each * static_cast<double>(elements),
                     .ceiling = ceiling,
                     .run = std::move(run)});
  };
  // Bytes an element: what is read and written of p, m, v (8 each), g (4) and the copy (2).
  add("adamw fp32", 28, [exec, args = state.adam()] { kernels::adam(exec, args); });
  add("adamw fp32 with a bf16 copy", 30, [exec, args = state.adam(copy16)] { kernels::adam(exec, args); });
  add("sgd with momentum fp32", 20, [exec, args = state.sgd()] { kernels::sgd(exec, args); });
  add("gradient norm", 4, [exec, sums = state.leaf_sums(), norm = state.norm()] {
    kernels::grad_leaf_sums(exec, sums);
    kernels::grad_norm(exec, norm);
  });
  return {.bench = "optimizer", .lines = measure(rank, bench.stream(), std::move(tasks), sampling)};
}

}  // namespace lockstep::run::bench
