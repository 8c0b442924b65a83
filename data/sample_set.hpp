#pragma once

#include "core/error.hpp"
#include "data/dataset.hpp"
#include "data/epoch.hpp"
#include "data/permutation.hpp"

namespace lockstep::data {

/// Samples of numbers that are numbered 0 .. samples - 1: the first train_samples() are an epoch, in the order of its
/// Permutation, the others are for validation, as they come. A kind of data says how one of them is written.
class SampleSet : public Dataset {
 public:
  [[nodiscard]] std::int64_t train_samples() const final { return train_samples_; }
  [[nodiscard]] std::int64_t eval_samples() const final { return samples_ - train_samples_; }

  void train_batch(std::int64_t position, std::int64_t count, HostBatch& out) const final {
    clear(count, out);
    out.position = position;
    for (std::int64_t row = 0; row < count; ++row) write(sample_at(position + row), row, out);
    out.target_count = static_cast<double>(count);
  }

  /// The number of the training sample at this position.
  [[nodiscard]] std::int64_t sample_at(std::int64_t position) const {
    const auto [epoch, index] = epoch_position(position, train_samples_);
    return Permutation(train_samples_, seed_, epoch)[index];
  }

  void eval_batch(std::int64_t first, std::int64_t count, HostBatch& out) const final {
    require(first >= 0, "eval_batch: first must not be negative");
    clear(count, out);
    for (std::int64_t row = 0; row < count && first + row < eval_samples(); ++row) {
      write(train_samples_ + first + row, row, out);
      out.target_count += 1;
    }
  }

 protected:
  /// Requires 1 <= train_samples <= samples.
  SampleSet(std::int64_t samples, std::int64_t train_samples, std::uint64_t seed)
      : samples_(samples), train_samples_(train_samples), seed_(seed) {
    require(train_samples >= 1 && train_samples <= samples, "SampleSet: no training samples");
  }
  [[nodiscard]] std::int64_t samples() const { return samples_; }
  /// Features and target of sample `sample` into row `row`. Of a target that counts the class is not negative.
  virtual void write(std::int64_t sample, std::int64_t row, HostBatch& out) const = 0;

 private:
  void clear(std::int64_t count, HostBatch& out) const {
    require(count >= 0, "a batch cannot have a negative number of samples");
    out.batch = count;
    out.length = 1;
    out.position = 0;
    out.tokens.clear();
    out.features.assign(static_cast<std::size_t>(count * features()), 0.0F);
    out.targets.assign(static_cast<std::size_t>(count), -1);
    out.values.assign(shape().regression ? static_cast<std::size_t>(count * classes()) : 0, 0.0F);
    out.target_count = 0;
  }

  std::int64_t samples_;
  std::int64_t train_samples_;
  std::uint64_t seed_;
};

}  // namespace lockstep::data
