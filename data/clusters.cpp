#include <xxhash.h>

#include <algorithm>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "core/text.hpp"
#include "data/dataset.hpp"
#include "data/epoch.hpp"
#include "data/permutation.hpp"

namespace lockstep::data {
namespace {

// Lanes of RngStream::synthetic.
constexpr std::uint32_t centre_lane = 0;
constexpr std::uint32_t noise_lane = 1;

/// Sample i has label i mod classes and lies around that label's centre; centres are standard normal.
class Clusters final : public Dataset {
 public:
  explicit Clusters(const ClusterOptions& options)
      : options_(options),
        train_samples_(options.samples - validation_part(options.samples, options.validation_fraction)) {
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
                       counted(options_.classes, "centre"), options_.noise, train_samples_, eval_samples());
  }
  std::uint64_t fingerprint() const override {
    const XXH64_hash_t content = XXH3_64bits(points_.data(), points_.size() * sizeof(float));
    return XXH3_64bits_withSeed(&train_samples_, sizeof(train_samples_), content);
  }
  int classes() const override { return options_.classes; }
  int features() const override { return options_.features; }
  std::int64_t train_samples() const override { return train_samples_; }
  std::int64_t eval_samples() const override { return options_.samples - train_samples_; }

  void train_batch(std::int64_t position, std::int64_t count, HostBatch& out) const override {
    clear(count, out);
    for (std::int64_t row = 0; row < count; ++row) {
      const auto [epoch, index] = epoch_position(position + row, train_samples_);
      copy_sample(Permutation(train_samples_, options_.seed, epoch)[index], row, out);
    }
  }

  void eval_batch(std::int64_t first, std::int64_t count, HostBatch& out) const override {
    require(first >= 0, "eval_batch: first must not be negative");
    clear(count, out);
    for (std::int64_t row = 0; row < count && first + row < eval_samples(); ++row) {
      copy_sample(train_samples_ + first + row, row, out);
    }
  }

 private:
  std::int64_t label(std::int64_t sample) const { return sample % options_.classes; }

  double normal(std::uint32_t lane, std::int64_t index) const {
    return normal_at(options_.seed, RngStream::synthetic, lane, static_cast<std::uint64_t>(index));
  }

  void clear(std::int64_t count, HostBatch& out) const {
    require(count >= 0, "a batch cannot have a negative number of samples");
    out.batch = count;
    out.length = 1;
    out.tokens.clear();
    out.features.assign(static_cast<std::size_t>(count * options_.features), 0.0F);
    out.targets.assign(static_cast<std::size_t>(count), -1);
    out.target_count = 0;
  }

  void copy_sample(std::int64_t sample, std::int64_t row, HostBatch& out) const {
    const auto source = points_.begin() + sample * options_.features;
    std::copy(source, source + options_.features, out.features.begin() + row * options_.features);
    out.targets[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(label(sample));
    out.target_count += 1;
  }

  ClusterOptions options_;
  std::int64_t train_samples_;
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
