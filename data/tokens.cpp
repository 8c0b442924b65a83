#include "data/tokens.hpp"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <optional>

#include "core/error.hpp"
#include "core/text.hpp"
#include "data/epoch.hpp"
#include "data/permutation.hpp"

namespace lockstep::data {
namespace {

/// Where validation targets come from.
struct Validation {
  const TokenShards* shards = nullptr;
  std::int64_t first = 0;    ///< token that the first window begins with
  std::int64_t targets = 0;  ///< tokens that are predicted: those behind `first`
};

class Tokens final : public Dataset {
 public:
  explicit Tokens(const TokensOptions& options)
      : options_(options), train_("data.path", options.path, options.format, options.vocab_size) {
    if (!options.validation_path.empty())
      own_validation_.emplace("data.validation_path", options.validation_path, options.format, options.vocab_size);
    train_tokens_ =
        own_validation_ ? train_.size() : train_.size() - validation_part(train_.size(), options.validation_fraction);
    const std::int64_t length = options.length;
    if (train_tokens_ < length + 1)
      fail(ErrorKind::data,
           "data.path: {} leaves {} to train on, but one sample of model.block_size {} needs {}: use more tokens or a "
           "smaller block_size",
           printable(options.path), counted(train_tokens_, "token"), length, length + 1);
    set_validation();
    // As of a text: every offset has room, so each pair of neighbours is a target of some epoch.
    train_windows_ = std::max<std::int64_t>(1, train_tokens_ / length - 1);
    offsets_ = std::min(length, train_tokens_ - train_windows_ * length);
    eval_windows_ = (validation_.targets + length - 1) / length;
  }

  std::string describe() const override {
    const auto files = static_cast<std::int64_t>(train_.files());
    const std::string seen = own_validation_ ? fmt::format(" of {}", printable(options_.validation_path)) : "";
    return fmt::format("{} ({} in {}, vocabulary {}: {} to train, {}{} to validate)", printable(options_.path),
                       counted(train_.size(), "token"), counted(files, "file"), options_.vocab_size, train_tokens_,
                       validation_.targets == 0 ? 0 : validation_.targets + 1, seen);
  }
  std::uint64_t fingerprint() const override {
    const std::array<std::uint64_t, 4> division = {
        static_cast<std::uint64_t>(train_tokens_), static_cast<std::uint64_t>(validation_.first),
        static_cast<std::uint64_t>(validation_.targets), own_validation_ ? own_validation_->fingerprint() : 0};
    return XXH3_64bits_withSeed(division.data(), sizeof(division), train_.fingerprint());
  }
  int classes() const override { return options_.vocab_size; }
  std::int64_t train_samples() const override { return train_windows_; }
  std::int64_t eval_samples() const override { return eval_windows_; }

  void train_batch(std::int64_t position, std::int64_t count, HostBatch& out) const override {
    clear(count, out);
    out.position = position;
    for (std::int64_t row = 0; row < count; ++row) {
      const auto [epoch, index] = epoch_position(position + row, train_windows_);
      const Permutation order(train_windows_, options_.seed, epoch);
      const std::int64_t first = epoch_offset(offsets_, options_.seed, epoch) + order[index] * options_.length;
      copy_window(train_, first, options_.length, row, out);
    }
  }

  void eval_batch(std::int64_t first, std::int64_t count, HostBatch& out) const override {
    require(first >= 0, "eval_batch: first must not be negative");
    clear(count, out);
    out.position = 0;
    for (std::int64_t row = 0; row < count && first + row < eval_windows_; ++row) {
      const std::int64_t before = (first + row) * options_.length;
      copy_window(*validation_.shards, validation_.first + before,
                  std::min(options_.length, validation_.targets - before), row, out);
    }
  }

 private:
  void set_validation() {
    validation_ = own_validation_ ? Validation{&*own_validation_, 0, own_validation_->size() - 1}
                                  : Validation{&train_, train_tokens_,
                                               std::max<std::int64_t>(0, train_.size() - train_tokens_ - 1)};
    const bool wanted = own_validation_ || options_.validation_fraction > 0;
    if (wanted && validation_.targets < 1)
      fail(ErrorKind::data,
           "{} is {}, but validation needs at least 2: use more tokens or no validation (validation_fraction 0)",
           own_validation_ ? "data.validation_path: " + printable(options_.validation_path)
                           : fmt::format("data.validation_fraction {} of the {} of {}", options_.validation_fraction,
                                         counted(train_.size(), "token"), printable(options_.path)),
           counted(own_validation_ ? own_validation_->size() : train_.size() - train_tokens_, "token"));
    if (options_.validation_targets > 0)
      validation_.targets = std::min(validation_.targets, options_.validation_targets);
  }

  void clear(std::int64_t count, HostBatch& out) const {
    require(count >= 0, "a batch cannot have a negative number of samples");
    out.batch = count;
    out.length = options_.length;
    out.tokens.assign(static_cast<std::size_t>(count * options_.length), 0);
    out.targets.assign(static_cast<std::size_t>(count * options_.length), -1);
    out.features.clear();
    out.target_count = 0;
  }

  // Tokens [first, first + used) and those one further, into row `row`.
  void copy_window(const TokenShards& shards, std::int64_t first, std::int64_t used, std::int64_t row,
                   HostBatch& out) const {
    shards.copy(first, used, out.tokens.data() + row * options_.length);
    shards.copy(first + 1, used, out.targets.data() + row * options_.length);
    out.target_count += static_cast<double>(used);
  }

  TokensOptions options_;
  TokenShards train_;
  std::optional<TokenShards> own_validation_;  ///< with a validation_path
  Validation validation_;
  std::int64_t train_tokens_ = 0;
  std::int64_t train_windows_ = 0;
  std::int64_t offsets_ = 1;  ///< an epoch's first window begins at one of [0, offsets_)
  std::int64_t eval_windows_ = 0;
};

}  // namespace

std::unique_ptr<Dataset> make_tokens(const TokensOptions& options) {
  require(options.length >= 1, "make_tokens: length must be at least 1");
  require(options.vocab_size >= 1 && options.vocab_size <= 65536, "make_tokens: ids have 16 bits");
  return std::make_unique<Tokens>(options);
}

}  // namespace lockstep::data
