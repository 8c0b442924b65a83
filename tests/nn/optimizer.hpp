#pragma once

#include <algorithm>
#include <vector>

#include "tests/nn/rig.hpp"

namespace lockstep::testing {

/// One AdamW update of all of a store's parameters with the real kernel.
class TestAdam {
 public:
  TestAdam(const Rig& rig, MemoryStore& store)
      : rig_(rig),
        store_(store),
        moments_(rig.device(), 2 * store.flat_elements() * sizeof(float)),
        control_(rig.device(), sizeof(GroupStep) + sizeof(StepState)) {
    std::vector<Tile> tiles;
    for (std::size_t p = 0; p < store.specs().size(); ++p) {
      const auto count = static_cast<std::size_t>(store.specs()[p].stored_elements());
      for (std::size_t from = 0; from < count; from += tile_elements)
        tiles.push_back(unsharded_tile(store.offset(static_cast<nn::ParamId>(p)) + from,
                                       static_cast<std::uint32_t>(std::min<std::size_t>(tile_elements, count - from)),
                                       0));
    }
    tiles_ = SharedMemory(rig.device(), tiles.size() * sizeof(Tile));
    std::copy(tiles.begin(), tiles.end(), tiles_.as<Tile>().data());
  }

  void update(const GroupStep& rates) {
    auto* const group = reinterpret_cast<GroupStep*>(control_.data());
    auto* const state = reinterpret_cast<StepState*>(control_.data() + sizeof(GroupStep));
    ++step_;
    *group = rates;
    group->correction1 = 1 - std::pow(rates.beta1, step_);
    group->correction2 = 1 - std::pow(rates.beta2, step_);
    group->round();
    *state = {};
    AdamArgs args{.master = store_.flat_masters(),
                  .m = moments_.as<float>().data(),
                  .v = moments_.as<float>().data() + store_.flat_elements(),
                  .tiles = tiles_.as<Tile>().data(),
                  .tile_count = static_cast<std::uint32_t>(tiles_.as<Tile>().size()),
                  .groups = group,
                  .state = state};
    args.grad.source[0] = store_.flat_grads();
    kernels::adam(rig_.exec(), args);
    rig_.synchronize();
    store_.begin_step();
    store_.changed();
  }

 private:
  const Rig& rig_;
  MemoryStore& store_;
  SharedMemory moments_;
  SharedMemory control_;
  SharedMemory tiles_;
  int step_ = 0;
};

}  // namespace lockstep::testing
