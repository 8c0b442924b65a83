#pragma once

#include "optim/optimizer.hpp"

namespace lockstep::optim {

/// What all element-wise updates have in common.
template <class Args>
[[nodiscard]] Args args_of(const Update& update) {
  Args args;
  args.master = update.master;
  args.master_extent = update.master_extent;
  args.param16 = update.param16;
  args.param16_dtype = update.param16_dtype;
  args.param16_extent = update.param16_extent;
  args.grad = update.grad;
  args.tiles = update.tiles;
  args.tile_count = update.tile_count;
  args.groups = update.groups;
  args.state = update.state;
  return args;
}

}  // namespace lockstep::optim
