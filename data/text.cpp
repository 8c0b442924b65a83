#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "core/text.hpp"
#include "data/dataset.hpp"
#include "data/epoch.hpp"
#include "data/permutation.hpp"
#include "data/regular_file.hpp"
#include "data/tokenizer.hpp"

namespace lockstep::data {
namespace {

std::string_view view_of(const std::vector<std::uint8_t>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Tokenizer make_tokenizer(const TextOptions& options, const std::vector<std::uint8_t>& text) {
  if (options.tokenizer == "char") {
    return Tokenizer::of_characters(view_of(text), fmt::format("data.path: {}", options.path));
  }
  if (options.tokenizer == "byte") {
    return Tokenizer::of_bytes();
  }
  if (options.tokenizer == "gpt2")
    return Tokenizer::of_subwords(std::make_shared<const Bpe>(options.vocab, options.merges), view_of(text),
                                  fmt::format("data.path: {}", options.path));
  fail(ErrorKind::config, "data.tokenizer is \"{}\", but it must be char, byte or gpt2", options.tokenizer);
}

/// The symbols of a text, in its own memory if they have the width of bytes: a symbol is never longer than its bytes.
template <class Symbol>
std::vector<Symbol> symbols_of(const Tokenizer& tokenizer, std::vector<std::uint8_t> text) {
  if constexpr (sizeof(Symbol) == 1) {
    std::size_t count = 0;
    tokenizer.each_symbol(view_of(text), [&](std::int32_t symbol) { text[count++] = static_cast<Symbol>(symbol); });
    text.resize(count);
    return text;
  } else {
    std::vector<Symbol> symbols;
    tokenizer.each_symbol(view_of(text), [&](std::int32_t symbol) { symbols.push_back(static_cast<Symbol>(symbol)); });
    return symbols;
  }
}

/// The text stays in memory as one integer a symbol, of the least width that holds the vocabulary; windows are widened
/// to int32 when a batch is made.
template <class Symbol>
class Text final : public Dataset {
 public:
  Text(std::string path, std::vector<Symbol> symbols, Tokenizer tokenizer, std::int64_t train_symbols,
       std::int64_t length, std::uint64_t seed, std::uint64_t fingerprint)
      : path_(std::move(path)),
        symbols_(std::move(symbols)),
        tokenizer_(std::move(tokenizer)),
        train_symbols_(train_symbols),
        length_(length),
        seed_(seed),
        fingerprint_(fingerprint) {
    // One window less than would fit leaves room for every offset in [0, length), so each symbol pair is a target of
    // some epoch; a text with room for one window only is used from as many offsets as it has.
    train_windows_ = std::max<std::int64_t>(1, train_symbols / length - 1);
    offsets_ = std::min(length, train_symbols - train_windows_ * length);
    const std::int64_t validation_targets = validation_symbols() - 1;
    eval_windows_ = validation_targets > 0 ? (validation_targets + length - 1) / length : 0;
  }

  std::string describe() const override {
    return fmt::format("{} ({} of {}: {} to train, {} to validate)", path_,
                       counted(static_cast<std::int64_t>(symbols_.size()), tokenizer_.unit()),
                       counted(classes(), "kind"), train_symbols_, validation_symbols());
  }
  std::uint64_t fingerprint() const override { return fingerprint_; }
  int classes() const override { return tokenizer_.size(); }
  std::int64_t train_samples() const override { return train_windows_; }
  std::int64_t eval_samples() const override { return eval_windows_; }

  void train_batch(std::int64_t position, std::int64_t count, HostBatch& out) const override {
    clear(count, out);
    out.position = position;
    for (std::int64_t row = 0; row < count; ++row) {
      const auto [epoch, index] = epoch_position(position + row, train_windows_);
      const Permutation order(train_windows_, seed_, epoch);
      const std::int64_t first = epoch_offset(offsets_, seed_, epoch) + order[index] * length_;
      copy_window(first, length_, row, out);
    }
  }

  void eval_batch(std::int64_t first, std::int64_t count, HostBatch& out) const override {
    require(first >= 0, "eval_batch: first must not be negative");
    clear(count, out);
    for (std::int64_t row = 0; row < count && first + row < eval_windows_; ++row) {
      const std::int64_t begin = train_symbols_ + (first + row) * length_;
      const std::int64_t targets = static_cast<std::int64_t>(symbols_.size()) - 1 - begin;
      copy_window(begin, std::min(length_, targets), row, out);
    }
  }

  std::vector<std::int32_t> encode(const std::string& text) const override { return tokenizer_.encode(text); }
  std::string decode(const std::vector<std::int32_t>& tokens) const override { return tokenizer_.decode(tokens); }

 private:
  std::int64_t validation_symbols() const { return static_cast<std::int64_t>(symbols_.size()) - train_symbols_; }

  void clear(std::int64_t count, HostBatch& out) const {
    require(count >= 0, "a batch cannot have a negative number of samples");
    out.batch = count;
    out.length = length_;
    out.position = 0;
    out.tokens.assign(static_cast<std::size_t>(count * length_), 0);
    out.targets.assign(static_cast<std::size_t>(count * length_), -1);
    out.features.clear();
    out.target_count = 0;
  }

  // Positions [first, first + used) and the symbols that follow them, into row `row`.
  void copy_window(std::int64_t first, std::int64_t used, std::int64_t row, HostBatch& out) const {
    const auto source = symbols_.begin() + first;
    std::copy(source, source + used, out.tokens.begin() + row * length_);
    std::copy(source + 1, source + 1 + used, out.targets.begin() + row * length_);
    out.target_count += static_cast<double>(used);
  }

  std::string path_;
  std::vector<Symbol> symbols_;
  Tokenizer tokenizer_;
  std::int64_t train_symbols_;
  std::int64_t length_;
  std::uint64_t seed_;
  std::uint64_t fingerprint_;
  std::int64_t train_windows_ = 0;
  std::int64_t offsets_ = 1;  ///< an epoch's first window begins at one of [0, offsets_)
  std::int64_t eval_windows_ = 0;
};

template <class Symbol>
std::unique_ptr<Dataset> make_text_of(const TextOptions& options, Tokenizer tokenizer, std::vector<std::uint8_t> text) {
  // Other subwords make other samples of the same text.
  const XXH64_hash_t content =
      XXH3_64bits_withSeed(text.data(), text.size(), tokenizer.bpe() != nullptr ? tokenizer.bpe()->fingerprint() : 0);
  std::vector<Symbol> symbols = symbols_of<Symbol>(tokenizer, std::move(text));
  const auto total = static_cast<std::int64_t>(symbols.size());
  const std::int64_t validation = validation_part(total, options.validation_fraction);
  const std::int64_t train = total - validation;
  if (train < options.length + 1) {
    fail(ErrorKind::data,
         "data.path: {} leaves {} to train on, but one sample of model.block_size {} needs {}: use a longer text or a "
         "smaller block_size",
         options.path, counted(train, tokenizer.unit()), options.length, options.length + 1);
  }
  if (options.validation_fraction > 0.0 && validation < 2) {
    fail(ErrorKind::data,
         "data.validation_fraction {} of the {} of {} is {}, but validation needs at least 2: use a longer text, a "
         "larger fraction, or 0 for no validation",
         options.validation_fraction, counted(total, tokenizer.unit()), options.path, validation);
  }
  return std::make_unique<Text<Symbol>>(options.path, std::move(symbols), std::move(tokenizer), train, options.length,
                                        options.seed, XXH3_64bits_withSeed(&train, sizeof(train), content));
}

}  // namespace

std::unique_ptr<Dataset> make_text(const TextOptions& options) {
  require(options.length >= 1, "make_text: length must be at least 1");
  std::vector<std::uint8_t> text = read_bytes(options.path, "data.path");
  Tokenizer tokenizer = make_tokenizer(options, text);
  if (tokenizer.size() <= 256) return make_text_of<std::uint8_t>(options, std::move(tokenizer), std::move(text));
  if (tokenizer.size() <= 65536) return make_text_of<std::uint16_t>(options, std::move(tokenizer), std::move(text));
  return make_text_of<std::int32_t>(options, std::move(tokenizer), std::move(text));
}

}  // namespace lockstep::data
