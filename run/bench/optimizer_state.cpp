#include "run/bench/optimizer_state.hpp"

#include <algorithm>
#include <vector>

namespace lockstep::run::bench {

static_assert(tile_elements == norm_leaf_elements);

OptimizerState::OptimizerState(Workbench& bench, std::size_t elements, comm::Part part, float* parameters,
                               float* gradients)
    : p(parameters), g(gradients), m(bench.numbers(part.size(), 1e-3F)), v(bench.numbers(part.size(), 1e-6F)) {
  std::vector<Tile> tiles_here;
  std::vector<NormLeaf> leaves_here;
  for (std::size_t i = part.begin; i < part.end; i += tile_elements) {
    const auto count = static_cast<std::uint32_t>(std::min<std::size_t>(tile_elements, part.end - i));
    tiles_here.push_back({i, i - part.begin, count, 0});
    leaves_here.push_back({i, i - part.begin, count, static_cast<std::uint32_t>(i / norm_leaf_elements)});
  }
  tiles = bench.copy_of(tiles_here);
  leaves = bench.copy_of(leaves_here);
  pieces = static_cast<std::uint32_t>(tiles_here.size());
  all_leaves = static_cast<std::uint32_t>((elements + norm_leaf_elements - 1) / norm_leaf_elements);
  GroupStep group;
  group.lr = 1e-6, group.beta1 = 0.9, group.beta2 = 0.95, group.momentum = 0.9, group.weight_decay = 0.1;
  group.correction1 = 0.9, group.correction2 = 0.9;
  group.round();
  groups = bench.copy_of(std::vector<GroupStep>{group});
  StepState past;
  past.applied = past.attempted = 10;
  state = bench.copy_of(std::vector<StepState>{past});
  sums = bench.memory<double>(all_leaves);
  bad = bench.memory<std::int64_t>(pieces);
  report = bench.memory<StepReport>(1);
}

AdamArgs OptimizerState::adam(bf16* copy) const {
  AdamArgs args;
  args.master = p, args.m = m, args.v = v;
  args.master_extent = Extent::full;
  args.param16 = copy;
  args.grad.source[0] = g;
  args.tiles = tiles, args.tile_count = pieces;
  args.groups = groups, args.state = state;
  return args;
}

SgdArgs OptimizerState::sgd() const {
  SgdArgs args;
  args.master = p, args.momentum = m;
  args.grad.source[0] = g;
  args.tiles = tiles, args.tile_count = pieces;
  args.groups = groups, args.state = state;
  return args;
}

GradLeafSumsArgs OptimizerState::leaf_sums() const {
  GradLeafSumsArgs args;
  args.grad.source[0] = g;
  args.leaves = leaves, args.leaf_count = pieces;
  args.sums = sums, args.bad = bad;
  return args;
}

GradNormArgs OptimizerState::norm() const {
  GradNormArgs args;
  args.sums = sums, args.sum_count = all_leaves;
  args.bad = bad, args.bad_count = pieces;
  args.report = report;
  return args;
}

}  // namespace lockstep::run::bench
