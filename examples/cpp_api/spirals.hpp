#pragma once

#include <lockstep/lockstep.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

/// Points on interleaved spiral arms, one label an arm. Sample i is the same on every rank, and a step asks for samples
/// by their global position: what is trained does not depend on the number of ranks.
class Spirals final : public lockstep::data::Dataset {
 public:
  explicit Spirals(int arms) : arms_(arms) {}

  std::string describe() const override { return "points on spiral arms"; }
  std::uint64_t fingerprint() const override { return static_cast<std::uint64_t>(arms_); }
  int classes() const override { return arms_; }
  int features() const override { return 2; }
  std::int64_t train_samples() const override { return samples; }
  std::int64_t eval_samples() const override { return samples / 4; }
  void train_batch(std::int64_t position, std::int64_t count, lockstep::data::HostBatch& out) const override {
    fill(position % samples, count, samples, out);
    out.position = position;  // what dropout, if the model has any, is a function of
  }
  void eval_batch(std::int64_t first, std::int64_t count, lockstep::data::HostBatch& out) const override {
    fill(samples + first, count, samples + eval_samples(), out);
  }

 private:
  static constexpr std::int64_t samples = 1 << 16;

  /// Samples [first, first + count); from `end` on there are none, and a target of -1 says so.
  void fill(std::int64_t first, std::int64_t count, std::int64_t end, lockstep::data::HostBatch& out) const {
    out = {.batch = count, .length = 1, .tokens = {}, .features = {}, .targets = {}, .target_count = 0};
    for (std::int64_t i = first; i < first + count; ++i) {
      const double t = fraction(0.7548776662466927 * static_cast<double>(i));  // evenly spread, in no order
      const double noise = 2.4 * (fraction(0.5698402909980532 * static_cast<double>(i)) - 0.5);
      const auto arm = static_cast<std::int32_t>(i % arms_);
      const double angle = 6.283185307179586 * (1.5 * t + static_cast<double>(arm) / arms_) + noise;
      const double radius = 0.1 + 0.9 * t;
      out.features.push_back(static_cast<float>(radius * std::cos(angle)));
      out.features.push_back(static_cast<float>(radius * std::sin(angle)));
      out.targets.push_back(i < end ? arm : -1);
      out.target_count += i < end ? 1 : 0;
    }
  }
  static double fraction(double x) { return x - std::floor(x); }

  int arms_;
};
