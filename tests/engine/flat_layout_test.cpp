#include "engine/flat_layout.hpp"

#include <algorithm>
#include <set>

#include "tests/support/training.hpp"

namespace lockstep::engine {
namespace {

/// The layout of a small model; parameter p is in group p % groups.
struct Laid {
  std::unique_ptr<nn::Model> model;
  nn::Plan plan;
  FlatLayout layout;

  Laid(std::unique_ptr<nn::Model> made, nn::BatchShape shape, int groups)
      : model(std::move(made)),
        plan(nn::plan(*model, kernels::cpu_table(), shape, DType::f32)),
        layout(model->parameters(), plan, group_of(*model, groups)) {}

  static std::vector<int> group_of(const nn::Model& model, int groups) {
    std::vector<int> result;
    for (std::size_t p = 0; p < model.parameters().size(); ++p) result.push_back(static_cast<int>(p) % groups);
    return result;
  }
};

Laid gpt(int groups = 1) {
  return {nn::make_gpt2({.n_layer = 2, .n_head = 2, .n_embd = 32, .block_size = 16, .vocab_size = 50}),
          {.batch = 2, .length = 16},
          groups};
}

Laid wide_mlp(int groups = 1) {
  return {nn::make_mlp({.features = 300, .hidden = {200}, .classes = 3}), {.batch = 4, .length = 1}, groups};
}

TEST(FlatLayout, SlicesAreAlignedAndInCompletionOrder) {
  const Laid laid = gpt();
  const auto& slices = laid.layout.slices();
  ASSERT_EQ(slices.size(), laid.model->parameters().size());
  std::int64_t end = 0;
  for (std::size_t s = 0; s < slices.size(); ++s) {
    EXPECT_EQ(slices[s].param, laid.plan.completion_order[s]);
    EXPECT_EQ(slices[s].begin % slice_alignment, 0);
    EXPECT_GE(slices[s].begin, end);
    EXPECT_LT(slices[s].begin - end, slice_alignment);
    const nn::ParameterSpec& spec = laid.model->parameters()[static_cast<std::size_t>(slices[s].param)];
    EXPECT_EQ(slices[s].elements, spec.stored_elements());
    EXPECT_EQ(slices[s].unit, spec.unit);
    EXPECT_EQ(laid.layout.slice_index(slices[s].param), static_cast<int>(s));
    EXPECT_EQ(&laid.layout.of(slices[s].param), &slices[s]);
    end = slices[s].begin + slices[s].elements;
  }
  EXPECT_GE(laid.layout.size(), end);
  EXPECT_EQ(laid.layout.size() % slice_alignment, 0);
}

TEST(FlatLayout, TheTiedEmbeddingCompletesLast) {
  const Laid laid = gpt();
  const auto& slices = laid.layout.slices();
  const auto position_of = [&](const std::string& name) {
    for (std::size_t s = 0; s < slices.size(); ++s)
      if (laid.model->parameters()[static_cast<std::size_t>(slices[s].param)].name == name) return static_cast<int>(s);
    ADD_FAILURE() << "no parameter " << name;
    return -1;
  };
  EXPECT_EQ(position_of("transformer.ln_f.bias") / 2, 0);  // the final norm's two parameters come first
  const int wte = position_of("transformer.wte.weight"), count = static_cast<int>(slices.size());
  EXPECT_GE(wte, count - 2);
}

TEST(FlatLayout, BucketsCoverEverythingOnceAndNeverCrossAUnit) {
  for (const std::int64_t elements :
       {std::int64_t{128}, std::int64_t{1000}, std::int64_t{4096}, std::int64_t{1} << 30}) {
    const Laid laid = gpt();
    const auto buckets = laid.layout.buckets(elements);
    std::int64_t at = 0;
    for (const FlatLayout::Bucket& bucket : buckets) {
      EXPECT_EQ(bucket.begin, at);
      EXPECT_GT(bucket.end, bucket.begin);
      EXPECT_LE(bucket.end - bucket.begin, elements);
      at = bucket.end;
      for (int s = bucket.first_slice; s <= bucket.last_slice; ++s) {
        const FlatLayout::Slice& slice = laid.layout.slices()[static_cast<std::size_t>(s)];
        EXPECT_EQ(slice.unit, bucket.unit);
        EXPECT_LT(slice.begin, bucket.end);
      }
      // first_slice is the one that holds the bucket's first element; the slice after last_slice begins behind it.
      EXPECT_LE(laid.layout.slices()[static_cast<std::size_t>(bucket.first_slice)].begin, bucket.begin);
      const auto next = static_cast<std::size_t>(bucket.last_slice) + 1;
      if (next < laid.layout.slices().size()) {
        EXPECT_GE(laid.layout.slices()[next].begin, bucket.end);
      }
    }
    EXPECT_EQ(at, laid.layout.size()) << elements;
  }
}

TEST(FlatLayout, WithoutALimitAUnitIsOneBucket) {
  const Laid laid = gpt();
  std::vector<int> units;
  for (const FlatLayout::Slice& slice : laid.layout.slices())
    if (units.empty() || units.back() != slice.unit) units.push_back(slice.unit);
  EXPECT_EQ(laid.layout.buckets(std::int64_t{1} << 40).size(), units.size());
}

TEST(FlatLayout, ALargeSliceIsCut) {
  const Laid laid = wide_mlp();
  const auto buckets = laid.layout.buckets(10000);
  // 300 x 200 weights lie in one slice of 60,000 elements.
  int parts = 0;
  for (const FlatLayout::Bucket& bucket : buckets) {
    for (int s = bucket.first_slice; s <= bucket.last_slice; ++s)
      parts += laid.layout.slices()[static_cast<std::size_t>(s)].elements == 60000 ? 1 : 0;
  }
  EXPECT_GE(parts, 6);
}

TEST(FlatLayout, TilesCoverExactlyTheParametersInTheirGroups) {
  const Laid laid = wide_mlp(3);
  std::vector<int> group(static_cast<std::size_t>(laid.layout.size()), -1);
  for (const Tile& tile : laid.layout.tiles()) {
    EXPECT_GT(tile.count, 0U);
    EXPECT_LE(tile.count, tile_elements);
    for (std::uint64_t i = tile.begin; i < tile.begin + tile.count; ++i) {
      ASSERT_EQ(group.at(i), -1) << "element " << i << " is in two tiles";
      group[i] = static_cast<int>(tile.group);
    }
  }
  std::set<int> seen;
  for (std::int64_t i = 0; i < laid.layout.size(); ++i) {
    const FlatLayout::Slice* slice = laid.layout.find(i);
    ASSERT_EQ(group[static_cast<std::size_t>(i)], slice == nullptr ? -1 : slice->group) << "element " << i;
    if (slice != nullptr) seen.insert(slice->group);
  }
  EXPECT_EQ(seen, (std::set<int>{0, 1, 2}));
}

TEST(FlatLayout, EachParametersTilesFollowOneAnother) {
  const Laid laid = wide_mlp(3);
  const std::vector<Tile> tiles = laid.layout.tiles();
  const std::vector<TileRun> runs = laid.layout.tile_runs();
  ASSERT_EQ(runs.size(), laid.layout.slices().size());
  std::uint32_t next = 0;
  for (std::size_t s = 0; s < runs.size(); ++s) {
    const FlatLayout::Slice& slice = laid.layout.slices()[s];
    EXPECT_EQ(runs[s].first, next);
    std::int64_t elements = 0;
    for (std::uint32_t t = runs[s].first; t < runs[s].first + runs[s].count; ++t) {
      EXPECT_EQ(static_cast<std::int64_t>(tiles.at(t).begin), slice.begin + elements);
      elements += tiles[t].count;
    }
    EXPECT_EQ(elements, slice.elements);
    next += runs[s].count;
  }
  EXPECT_EQ(next, tiles.size());
}

TEST(FlatLayout, NormLeavesCoverEverythingOnceAndCountFromEachUnit) {
  for (const Laid& laid : {gpt(), wide_mlp()}) {
    const std::vector<NormLeaf> leaves = laid.layout.norm_leaves();
    std::uint64_t at = 0;
    const FlatLayout::Slice* before = nullptr;
    for (std::size_t j = 0; j < leaves.size(); ++j) {
      const NormLeaf& leaf = leaves[j];
      EXPECT_EQ(leaf.index, j);
      EXPECT_EQ(leaf.begin, at);
      EXPECT_EQ(leaf.shard_begin, leaf.begin);
      EXPECT_GT(leaf.count, 0U);
      EXPECT_LE(leaf.count, norm_leaf_elements);
      const FlatLayout::Slice* slice = laid.layout.find(static_cast<std::int64_t>(leaf.begin));
      // Short is only the last leaf of a unit.
      if (slice != nullptr && before != nullptr && slice->unit == before->unit) {
        EXPECT_EQ(leaves[j - 1].count, norm_leaf_elements);
      }
      before = slice;
      at += leaf.count;
    }
    EXPECT_EQ(at, static_cast<std::uint64_t>(laid.layout.size()));
  }
}

TEST(FlatLayout, ANormLeafNeverCrossesAUnit) {
  const Laid laid = gpt();
  const std::vector<NormLeaf> leaves = laid.layout.norm_leaves();
  for (const FlatLayout::Bucket& unit : laid.layout.buckets(std::int64_t{1} << 40))
    EXPECT_TRUE(std::any_of(leaves.begin(), leaves.end(),
                            [&](const NormLeaf& leaf) { return leaf.begin == static_cast<std::uint64_t>(unit.begin); }))
        << "no leaf begins with the unit at " << unit.begin;
}

TEST(FlatLayout, FindKnowsPaddingAndTheEnds) {
  const Laid laid = wide_mlp();
  for (const FlatLayout::Slice& slice : laid.layout.slices()) {
    EXPECT_EQ(laid.layout.find(slice.begin), &slice);
    EXPECT_EQ(laid.layout.find(slice.begin + slice.elements - 1), &slice);
    if (slice.elements % slice_alignment != 0) {
      EXPECT_EQ(laid.layout.find(slice.begin + slice.elements), nullptr);
    }
  }
  EXPECT_EQ(laid.layout.find(-1), nullptr);
  EXPECT_EQ(laid.layout.find(laid.layout.size() + 5), nullptr);
}

TEST(FlatLayout, DoesNotDependOnTheBatch) {
  const Laid small = gpt();
  const Laid large(nn::make_gpt2({.n_layer = 2, .n_head = 2, .n_embd = 32, .block_size = 16, .vocab_size = 50}),
                   {.batch = 7, .length = 9}, 1);
  ASSERT_EQ(small.layout.size(), large.layout.size());
  for (std::size_t s = 0; s < small.layout.slices().size(); ++s)
    EXPECT_EQ(small.layout.slices()[s].begin, large.layout.slices()[s].begin);
}

}  // namespace
}  // namespace lockstep::engine
