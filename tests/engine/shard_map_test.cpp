#include "engine/shard_map.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "kernels/table.hpp"
#include "nn/gpt2.hpp"
#include "nn/mlp.hpp"

namespace lockstep::engine {
namespace {

using optim::Granularity;

FlatLayout layout_of(nn::Model& model, nn::BatchShape shape) {
  const nn::Plan plan = nn::plan(model, kernels::cpu_table(), shape, DType::f32);
  return {model.parameters(), plan, std::vector<int>(model.parameters().size(), 0)};
}

std::unique_ptr<nn::Model> gpt() {
  return nn::make_gpt2(
      {.n_layer = 3, .n_head = 2, .n_embd = 96, .block_size = 32, .vocab_size = 500, .padded_vocab = 0});
}

TEST(ShardMap, OwnersTileTheSpaceOnceInWholeLeaves) {
  const auto model = gpt();
  const FlatLayout layout = layout_of(*model, {2, 32});
  for (const int ranks : {2, 3, 4, 7})
    for (const std::int64_t bucket : {std::int64_t{1}, std::int64_t{50000}, std::int64_t{1} << 20}) {
      std::vector<int> owners(static_cast<std::size_t>(layout.size()), 0);
      std::size_t leaves = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const ShardMap map(layout, bucket, Granularity::element, true, rank, ranks);
        std::int64_t shard = 0;
        for (const ShardMap::Own& run : map.own()) {
          EXPECT_EQ(run.shard_begin, shard) << "a shard has no gaps";
          shard += run.size();
          for (std::int64_t i = run.begin; i < run.end; ++i) ++owners[static_cast<std::size_t>(i)];
        }
        EXPECT_EQ(shard, map.shard_elements());
        leaves += map.norm_leaves(layout).size();
      }
      EXPECT_THAT(owners, testing::Each(1));
      EXPECT_EQ(leaves, layout.norm_leaf_count());
    }
}

TEST(ShardMap, ShardsDifferByALeafAtMost) {
  const auto model = gpt();
  const FlatLayout layout = layout_of(*model, {2, 32});
  for (const int ranks : {2, 3, 4}) {
    const ShardMap map(layout, 1 << 16, Granularity::element, true, 0, ranks);
    const auto [least, most] = std::ranges::minmax(map.loads());
    EXPECT_LE(most - least, 2 * static_cast<std::int64_t>(norm_leaf_elements)) << ranks << " ranks";
    EXPECT_EQ(std::accumulate(map.loads().begin(), map.loads().end(), std::int64_t{0}), layout.size());
    EXPECT_EQ(map.largest_shard(), most);
  }
}

TEST(ShardMap, TilesCoverEveryParameterOnceAndKeepTheirGroup) {
  const auto model = gpt();
  const nn::Plan plan = nn::plan(*model, kernels::cpu_table(), {2, 32}, DType::f32);
  std::vector<int> groups;
  for (std::size_t p = 0; p < model->parameters().size(); ++p) groups.push_back(static_cast<int>(p % 2));
  const FlatLayout layout(model->parameters(), plan, groups);
  std::vector<int> group_at(static_cast<std::size_t>(layout.size()), -1);
  for (int rank = 0; rank < 3; ++rank) {
    const ShardMap map(layout, 40000, Granularity::element, true, rank, 3);
    for (const Tile& tile : map.tiles(layout)) {
      EXPECT_LE(tile.count, tile_elements);
      for (std::uint64_t i = tile.begin; i < tile.begin + tile.count; ++i) {
        EXPECT_EQ(group_at[i], -1) << "element " << i << " is in two tiles";
        group_at[i] = static_cast<int>(tile.group);
      }
      map.for_own(
          static_cast<std::int64_t>(tile.begin), static_cast<std::int64_t>(tile.begin) + 1,
          [&](const ShardMap::Own& run) { EXPECT_EQ(run.shard_begin, static_cast<std::int64_t>(tile.shard_begin)); });
    }
  }
  for (const FlatLayout::Slice& slice : layout.slices())
    for (std::int64_t i = slice.begin; i < slice.begin + slice.elements; ++i)
      ASSERT_EQ(group_at[static_cast<std::size_t>(i)], slice.group);
}

TEST(ShardMap, OptimizersOfWholeParametersGetWholeUnits) {
  const auto model = gpt();
  const FlatLayout layout = layout_of(*model, {2, 32});
  std::size_t tensors = 0;
  for (int rank = 0; rank < 3; ++rank) {
    const ShardMap map(layout, 1000, Granularity::whole_matrix, true, rank, 3);
    const std::vector<TileRun> runs = map.tile_runs(layout);
    const std::vector<Tile> tiles = map.tiles(layout);
    EXPECT_EQ(map.tensors(layout, model->parameters()).size(), runs.size());
    tensors += runs.size();
    std::uint32_t next = 0;
    for (const TileRun& run : runs) {
      EXPECT_EQ(run.first, next);
      next += run.count;
    }
    EXPECT_EQ(next, tiles.size());
  }
  EXPECT_EQ(tensors, model->parameters().size());
}

TEST(ShardMap, WithoutShardsEverythingIsEverybodys) {
  const auto model = nn::make_mlp({.features = 4, .hidden = {8}, .classes = 2});
  const FlatLayout layout = layout_of(*model, {.batch = 2});
  const ShardMap map(layout, 512, Granularity::element, false, 1, 2);
  EXPECT_FALSE(map.sharded());
  ASSERT_EQ(map.own().size(), 1U);
  EXPECT_EQ(map.own()[0].size(), layout.size());
  EXPECT_EQ(map.tiles(layout).size(), layout.tiles().size());
  EXPECT_EQ(map.largest_shard(), layout.size());
}

}  // namespace
}  // namespace lockstep::engine
