#include <xxhash.h>

#include <algorithm>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "core/text.hpp"
#include "data/sample_set.hpp"

namespace lockstep::data {
namespace {

// Lanes of RngStream::synthetic.
constexpr std::uint32_t centre_lane = 0;
constexpr std::uint32_t noise_lane = 1;

/// Sample i has label i mod classes and lies around that label's centre; centres are standard normal.
class Clusters final : public SampleSet {
 public:
  explicit Clusters(const ClusterOptions& options)
      : SampleSet(options.samples, options.samples - validation_part(options.samples, options.validation_fraction),
                  options.seed),
        options_(options) {
    const std::int64_t columns = options.features;
    points_.resize(static_cast<std::size_t>(options.samples * columns));
    for (std::int64_t sample = 0; sample < options.samples; ++sample) {
      for (std::int64_t column = 0; column < columns; ++column) {
        const std::int64_t element = sample * columns + column;
        const double centre = normal(centre_lane, label(sample) * columns + column);
        const double noise = options.noise * normal(noise_lane, element);
        points_[static_cast<std::size_t>(element)] = static_cast<float>(centre + noise);
      }
    }
  }

  std::string describe() const override {
    return fmt::format("clusters ({} of {} around {}, noise {}: {} to train, {} to validate)",
                       counted(options_.samples, "point"), counted(options_.features, "feature"),
                       counted(options_.classes, "centre"), options_.noise, train_samples(), eval_samples());
  }
  std::uint64_t fingerprint() const override {
    const XXH64_hash_t content = XXH3_64bits(points_.data(), points_.size() * sizeof(float));
    const std::int64_t train = train_samples();
    return XXH3_64bits_withSeed(&train, sizeof train, content);
  }
  int classes() const override { return options_.classes; }
  int features() const override { return options_.features; }

 private:
  std::int64_t label(std::int64_t sample) const { return sample % options_.classes; }

  double normal(std::uint32_t lane, std::int64_t index) const {
    return normal_at(options_.seed, RngStream::synthetic, lane, static_cast<std::uint64_t>(index));
  }

  void write(std::int64_t sample, std::int64_t row, HostBatch& out) const override {
    const auto source = points_.begin() + sample * options_.features;
    std::copy(source, source + options_.features, out.features.begin() + row * options_.features);
    out.targets[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(label(sample));
  }

  ClusterOptions options_;
  std::vector<float> points_;  ///< [samples, features]
};

}  // namespace

std::unique_ptr<Dataset> make_clusters(const ClusterOptions& options) {
  require(options.classes >= 1 && options.features >= 1, "make_clusters: classes and features must be at least 1");
  if (options.samples < 1) {
    fail(ErrorKind::config, "data.samples is {}, but at least one sample is needed to train on", options.samples);
  }
  return std::make_unique<Clusters>(options);
}

}  // namespace lockstep::data
