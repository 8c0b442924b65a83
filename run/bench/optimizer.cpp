#include <algorithm>

#include "core/error.hpp"
#include "run/bench/benches.hpp"
#include "run/bench/ceilings.hpp"
#include "run/bench/workbench.hpp"

namespace lockstep::run::bench {
namespace {

constexpr std::int64_t gpt2_124m = 124'439'808;
constexpr std::size_t large_copy = std::size_t{4} << 30;

/// Flat buffers of one rank, filled as in the middle of a training run.
struct State {
  State(Workbench& bench, std::size_t elements)
      : count(elements),
        p(bench.numbers(elements, 0.02F)),
        m(bench.numbers(elements, 1e-3F)),
        v(bench.numbers(elements, 1e-6F)),
        g(bench.numbers(elements, 1e-3F)),
        copy16(bench.memory<bf16>(elements)) {
    std::vector<Tile> all_tiles;
    std::vector<NormLeaf> all_leaves;
    for (std::size_t i = 0; i < elements; i += tile_elements) {
      const auto here = static_cast<std::uint32_t>(std::min<std::size_t>(tile_elements, elements - i));
      all_tiles.push_back(unsharded_tile(i, here, 0));
      all_leaves.push_back({i, i, here, static_cast<std::uint32_t>(all_leaves.size())});
    }
    tiles = bench.copy_of(all_tiles);
    leaves = bench.copy_of(all_leaves);
    pieces = static_cast<std::uint32_t>(all_tiles.size());
    GroupStep group;
    group.lr = 1e-6, group.beta1 = 0.9, group.beta2 = 0.95, group.momentum = 0.9, group.weight_decay = 0.1;
    group.correction1 = 0.9, group.correction2 = 0.9;
    group.round();
    groups = bench.copy_of(std::vector<GroupStep>{group});
    StepState past;
    past.applied = past.attempted = 10;
    state = bench.copy_of(std::vector<StepState>{past});
    sums = bench.memory<double>(pieces);
    bad = bench.memory<std::int64_t>(pieces);
    report = bench.memory<StepReport>(1);
  }

  [[nodiscard]] AdamArgs adam(bool with_copy) const {
    AdamArgs args;
    args.master = p, args.m = m, args.v = v;
    args.param16 = with_copy ? copy16 : nullptr;
    args.grad.source[0] = g;
    args.tiles = tiles, args.tile_count = pieces;
    args.groups = groups, args.state = state;
    return args;
  }
  [[nodiscard]] SgdArgs sgd() const {
    SgdArgs args;
    args.master = p, args.momentum = m;
    args.grad.source[0] = g;
    args.tiles = tiles, args.tile_count = pieces;
    args.groups = groups, args.state = state;
    return args;
  }
  [[nodiscard]] GradLeafSumsArgs leaf_sums() const {
    GradLeafSumsArgs args;
    args.grad.source[0] = g;
    args.leaves = leaves, args.leaf_count = pieces;
    args.sums = sums, args.bad = bad;
    return args;
  }
  [[nodiscard]] GradNormArgs norm() const {
    GradNormArgs args;
    args.sums = sums, args.sum_count = pieces;
    args.bad = bad, args.bad_count = pieces;
    args.report = report;
    return args;
  }

  std::size_t count;
  float *p, *m, *v, *g;
  bf16* copy16;
  Tile* tiles = nullptr;
  NormLeaf* leaves = nullptr;
  std::uint32_t pieces = 0;
  GroupStep* groups = nullptr;
  StepState* state = nullptr;
  double* sums = nullptr;
  std::int64_t* bad = nullptr;
  StepReport* report = nullptr;
};

}  // namespace

Report bench_optimizer(RankContext& rank, const OptimizerShape& shape, const Sampling& sampling) {
  Workbench bench(rank);
  const Exec exec = bench.exec();
  const bool immediate = bench.device().immediate();
  const auto elements = static_cast<std::size_t>(shape.elements > 0 ? shape.elements : gpt2_124m);
  const State state(bench, elements);

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
  add("adamw fp32", 28, [exec, args = state.adam(false)] { kernels::adam(exec, args); });
  add("adamw fp32 with a bf16 copy", 30, [exec, args = state.adam(true)] { kernels::adam(exec, args); });
  add("sgd with momentum fp32", 20, [exec, args = state.sgd()] { kernels::sgd(exec, args); });
  add("gradient norm", 4, [exec, sums = state.leaf_sums(), norm = state.norm()] {
    kernels::grad_leaf_sums(exec, sums);
    kernels::grad_norm(exec, norm);
  });
  return {.bench = "optimizer", .lines = measure(rank, bench.stream(), std::move(tasks), sampling)};
}

}  // namespace lockstep::run::bench
