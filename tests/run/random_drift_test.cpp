// One bit of one rank, anywhere and at any time: found by the next look, with the tensor and the rank.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <random>

#include "run/drift_guard.hpp"
#include "tests/run/trainee.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep::run {
namespace {

/// Which bit of what changes, and where and when.
struct Flip {
  std::string buffer;
  std::size_t slice = 0;
  std::int64_t at = 0;
  int bit = 0;  ///< of the mantissa
  int rank = 0;
  std::int64_t step = 0;  ///< after it
};

TEST(RandomDrift, AnyMantissaBitOfAnyRankIsFoundByTheNextLookAndNamed) {
  constexpr int ranks = 3, flips = 60, every = 4;
  constexpr std::uint64_t seed = 20261127;
  std::mt19937_64 random(seed);
  const auto below = [&](std::size_t end) { return static_cast<std::size_t>(random() % end); };
  const testing::Task task = testing::mlp_task();
  const auto dataset = task.dataset();
  const std::vector<nn::ParameterSpec> parameters = task.model()->parameters();
  std::vector<std::string> layout_names;  // in the order of the slices
  engines_on(task, 1, seed, [&](engine::Engine& engine) {
    for (const engine::FlatLayout::Slice& slice : engine.layout().slices())
      layout_names.push_back(parameters[static_cast<std::size_t>(slice.param)].name);
  });
  std::map<std::string, int> buffers;
  std::set<std::string> tensors;

  for (int i = 0; i < flips; ++i) {
    // Any bit of anything right before a look; earlier ones of weights, which are not 0, and no low ones: what an
    // update rounds away is neither there any more nor of any consequence.
    const bool at_once = i % 2 == 0;
    std::size_t which = below(parameters.size());
    while (!at_once && !layout_names[which].ends_with("weight")) which = below(parameters.size());
    const Flip flip{
        .buffer = at_once ? std::vector<std::string>{"master", "exp_avg", "exp_avg_sq"}[below(3)] : "master",
        .slice = which,
        .at = static_cast<std::int64_t>(below(1 << 20)),
        .bit = static_cast<int>(at_once ? below(23) : 12 + below(11)),
        .rank = static_cast<int>(below(ranks)),
        .step = at_once ? every * static_cast<std::int64_t>(1 + below(3)) : static_cast<std::int64_t>(1 + below(11))};
    const std::string& name = layout_names[flip.slice];
    std::int64_t looked = 0;
    const std::string text = testing::error_text(ErrorKind::desync, [&] {
      engines_on(task, ranks, seed, [&](engine::Engine& engine) {
        const engine::FlatLayout::Slice& slice = engine.layout().slices()[flip.slice];
        DriftGuard guard(engine, every);
        for (std::int64_t step = 1; step <= 16; ++step) {
          if (guard.armed()) guard.require_unchanged();
          testing::train_step(engine, *dataset, step - 1);
          engine.drain();
          if (step == flip.step && engine.comm().rank() == flip.rank) {
            float value = 0;
            std::int64_t at = 0;
            for (std::int64_t k = 0; k < slice.elements && value == 0; ++k) {  // a zero's may be flushed to zero
              at = slice.begin + (flip.at + k) % slice.elements;
              engine.read_range(flip.buffer, at, 1, &value);
            }
            value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ (1U << flip.bit));
            engine.write_range(flip.buffer, at, 1, &value);
          }
          if (!guard.due(step)) continue;
          if (engine.comm().rank() == 0) looked = step;
          guard.compare(step);
        }
      });
    });

    const std::string what = fmt::format("seed {}, flip {}: bit {} of {} {} on rank {} after step {}", seed, i,
                                         flip.bit, flip.buffer, name, flip.rank, flip.step);
    EXPECT_EQ(looked, (flip.step + every - 1) / every * every) << what;
    EXPECT_NE(text.find(fmt::format("after step {}: rank {} of {} holds another value of {} (", looked, flip.rank,
                                    ranks, name)),
              std::string::npos)
        << what << ": " << text;
    ++buffers[flip.buffer];
    tensors.insert(name);
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_EQ(buffers.size(), 3U) << "of every buffer";
  EXPECT_EQ(tensors.size(), parameters.size()) << "of every tensor";
}

}  // namespace
}  // namespace lockstep::run
