#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "core/error.hpp"
#include "core/text.hpp"
#include "data/regular_file.hpp"
#include "data/sample_set.hpp"

namespace lockstep::data {
namespace {

/// One cell with where it begins.
struct Cell {
  std::string text;
  std::size_t column = 1;  ///< byte of the line, from 1
};

/// Reads the lines of a file as RFC 4180 has them: cells may be in double quotes, and two of these are one. Line ends
/// within quotes are not read: no number and no class needs them.
class Lines {
 public:
  Lines(std::string text, const CsvOptions& options)
      : name_(printable(options.path)), separator_(options.separator), text_(std::move(text)) {
    if (text_.rfind("\xEF\xBB\xBF", 0) == 0) at_ = 3;
  }

  /// The next line that is not empty; false at the end.
  [[nodiscard]] bool next(std::vector<Cell>& cells) {
    while (at_ < text_.size()) {
      ++number_;
      const std::size_t end = std::min(text_.find('\n', at_), text_.size());
      std::string_view line(text_.data() + at_, end - at_);
      at_ = end + 1;
      if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
      if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
      cells = split(line);
      return true;
    }
    return false;
  }

  template <class... Args>
  [[noreturn]] void wrong(std::size_t column, fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::data, "{}:{}:{}: {}", name_, number_, column, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  [[nodiscard]] std::vector<Cell> split(std::string_view line) const {
    std::vector<Cell> cells;
    for (std::size_t i = 0;;) {
      while (i < line.size() && line[i] == ' ') ++i;
      Cell cell{.text = {}, .column = i + 1};
      if (i < line.size() && line[i] == '"') {
        for (++i;; ++i) {
          if (i == line.size()) wrong(cell.column, "a quote that is not closed in this line");
          if (line[i] != '"')
            cell.text += line[i];
          else if (i + 1 < line.size() && line[i + 1] == '"')
            cell.text += line[i++];
          else
            break;
        }
        ++i;
        while (i < line.size() && line[i] == ' ') ++i;
        if (i < line.size() && line[i] != separator_)
          wrong(i + 1, "'{}' behind a closing quote; a quote within quotes is written twice",
                printable(line.substr(i, 1)));
      } else {
        const std::size_t end = std::min(line.find(separator_, i), line.size());
        cell.text = line.substr(i, end - i);
        cell.text.erase(cell.text.find_last_not_of(" \t") + 1);
        i = end;
      }
      cells.push_back(std::move(cell));
      if (i >= line.size()) return cells;
      ++i;
    }
  }

  std::string name_;
  char separator_;
  std::string text_;
  std::size_t at_ = 0;
  std::size_t number_ = 0;
};

/// What the rows hold before it is known which are for training.
struct Table {
  std::vector<std::string> features;  ///< names
  std::vector<float> values;          ///< [rows, features]
  std::vector<float> numbers;         ///< [rows], of a regression
  std::vector<std::int32_t> labels;   ///< [rows], of a classification; else 0
  std::vector<std::string> classes;   ///< their names, in order
  [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(labels.size()); }
};

class Reader {
 public:
  explicit Reader(const CsvOptions& options)
      : options_(options), lines_(read_text(options.path, "data.path"), options) {
    header();
    std::vector<Cell> cells;
    while (lines_.next(cells)) row(cells);
    if (texts_.empty()) fail(ErrorKind::data, "data.path: {} has a header and no rows", printable(options_.path));
    if (!options_.regression) number_classes();
  }
  [[nodiscard]] Table take() { return std::move(table_); }

 private:
  void header() {
    std::vector<Cell> names;
    if (!lines_.next(names)) fail(ErrorKind::data, "data.path: {} is empty", printable(options_.path));
    std::map<std::string, std::size_t> column_of;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (names[i].text.empty()) lines_.wrong(names[i].column, "column {} of the header has no name", i + 1);
      if (!column_of.try_emplace(names[i].text, i).second)
        lines_.wrong(names[i].column, "two columns are named '{}'", printable(names[i].text));
    }
    columns_ = names.size();
    const auto find = [&](const std::string& name, const char* key) {
      const auto found = column_of.find(name);
      if (found != column_of.end()) return found->second;
      std::vector<std::string> all;
      for (const Cell& cell : names) all.push_back("'" + printable(cell.text) + "'");
      lines_.wrong(1, "{}: there is no column '{}'; the header has {}", key, printable(name), fmt::join(all, ", "));
    };
    target_ = find(options_.target, "data.target");
    for (const std::string& name : options_.features) feature_columns_.push_back(find(name, "data.features"));
    if (options_.features.empty())
      for (std::size_t i = 0; i < names.size(); ++i)
        if (i != target_) feature_columns_.push_back(i);
    if (feature_columns_.empty()) lines_.wrong(1, "there is no column but the target, so nothing to predict it from");
    std::set<std::size_t> seen;
    for (const std::size_t column : feature_columns_) {
      if (column == target_)
        lines_.wrong(names[column].column, "'{}' is the target, so it cannot be a feature too",
                     printable(options_.target));
      if (!seen.insert(column).second)
        lines_.wrong(names[column].column, "data.features names '{}' twice", printable(names[column].text));
      table_.features.push_back(names[column].text);
    }
  }

  void row(const std::vector<Cell>& cells) {
    if (cells.size() != columns_)
      lines_.wrong(cells.back().column, "{}, but the header has {}",
                   counted(static_cast<std::int64_t>(cells.size()), "cell"), columns_);
    for (std::size_t i = 0; i < feature_columns_.size(); ++i)
      table_.values.push_back(number(cells[feature_columns_[i]], table_.features[i]));
    const Cell& target = cells[target_];
    if (options_.regression)
      table_.numbers.push_back(number(target, options_.target));
    else if (target.text.empty())
      lines_.wrong(target.column, "no class in column '{}'", printable(options_.target));
    texts_.push_back(options_.regression ? std::string() : target.text);
    table_.labels.push_back(0);
  }

  float number(const Cell& cell, const std::string& name) const {
    const char* begin = cell.text.data();
    const char* const end = begin + cell.text.size();
    if (begin == end)
      lines_.wrong(cell.column, "no number in column '{}': remove the row or fill the gap", printable(name));
    if (*begin == '+' && end - begin > 1 && begin[1] != '-') ++begin;
    float value = 0;
    const auto [stop, error] = std::from_chars(begin, end, value);
    if (error == std::errc::result_out_of_range)
      lines_.wrong(cell.column, "'{}' in column '{}' does not fit into 32 bits", printable(cell.text), printable(name));
    if (error != std::errc() || stop != end)
      lines_.wrong(cell.column,
                   "'{}' in column '{}' is not a number: give each text a column of 0 and 1, or leave the "
                   "column out with data.features",
                   printable(cell.text), printable(name));
    if (!std::isfinite(value))
      lines_.wrong(cell.column, "'{}' in column '{}' is not finite", printable(cell.text), printable(name));
    return value;
  }

  /// Whole numbers by value, other texts by their bytes.
  void number_classes() {
    const auto whole = [](const std::string& text) -> std::optional<std::int64_t> {
      std::int64_t value = 0;
      const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
      return value;
    };
    const std::set<std::string> distinct(texts_.begin(), texts_.end());
    std::vector<std::string>& classes = table_.classes;
    classes.assign(distinct.begin(), distinct.end());
    if (std::ranges::all_of(classes, [&](const std::string& text) { return whole(text).has_value(); }))
      std::ranges::stable_sort(classes, {}, [&](const std::string& text) { return *whole(text); });
    constexpr std::size_t most = 1'000'000;
    if (classes.size() > most)
      fail(ErrorKind::data,
           "data.target: column '{}' of {} has {} classes; for numbers to predict set data.task: "
           "regression",
           printable(options_.target), printable(options_.path), classes.size());
    std::map<std::string_view, std::int32_t> number_of;
    for (std::size_t i = 0; i < classes.size(); ++i) number_of[classes[i]] = static_cast<std::int32_t>(i);
    for (std::size_t r = 0; r < texts_.size(); ++r) table_.labels[r] = number_of.at(texts_[r]);
  }

  const CsvOptions& options_;
  Lines lines_;
  std::size_t columns_ = 0;
  std::size_t target_ = 0;
  std::vector<std::size_t> feature_columns_;
  std::vector<std::string> texts_;  ///< the targets of a classification
  Table table_;
};

class Csv final : public SampleSet {
 public:
  Csv(const CsvOptions& options, Table table, std::int64_t train)
      : SampleSet(table.rows(), train, options.seed), options_(options), table_(std::move(table)) {
    XXH64_hash_t hash = XXH3_64bits(table_.values.data(), table_.values.size() * sizeof(float));
    hash = XXH3_64bits_withSeed(table_.numbers.data(), table_.numbers.size() * sizeof(float), hash);
    hash = XXH3_64bits_withSeed(table_.labels.data(), table_.labels.size() * sizeof(std::int32_t), hash);
    hash = XXH3_64bits_withSeed(&train, sizeof train, hash);
    const unsigned char standardized = options.standardize ? 1 : 0;
    fingerprint_ = XXH3_64bits_withSeed(&standardized, 1, hash);
    if (options.standardize) standardize(train);
  }

  std::string name_of(std::int64_t position) const override {
    return fmt::format("data row {} of {}", sample_at(position) + 1, printable(options_.path));
  }

  std::string describe() const override {
    const std::string task = options_.regression
                                 ? fmt::format("predicting '{}'", printable(options_.target))
                                 : fmt::format("{} classes of '{}'", table_.classes.size(), printable(options_.target));
    return fmt::format("{} ({} of {}, {}: {} to train, {} to validate)", printable(options_.path),
                       counted(samples(), "row"), counted(features(), "feature"), task, train_samples(),
                       eval_samples());
  }
  std::uint64_t fingerprint() const override { return fingerprint_; }
  int classes() const override { return options_.regression ? 1 : static_cast<int>(table_.classes.size()); }
  int features() const override { return static_cast<int>(table_.features.size()); }
  DataShape shape() const override {
    return {.classes = classes(), .features = features(), .regression = options_.regression};
  }

 private:
  void standardize(std::int64_t train) {
    const auto columns = static_cast<std::size_t>(features());
    const auto rows = static_cast<std::size_t>(train);
    for (std::size_t c = 0; c < columns; ++c) {
      double sum = 0, squares = 0;
      for (std::size_t r = 0; r < rows; ++r) sum += static_cast<double>(table_.values[r * columns + c]);
      const double mean = sum / static_cast<double>(rows);
      for (std::size_t r = 0; r < rows; ++r) {
        const double difference = static_cast<double>(table_.values[r * columns + c]) - mean;
        squares += difference * difference;
      }
      const double deviation = std::sqrt(squares / static_cast<double>(rows));
      const double scale = deviation > 0 ? 1 / deviation : 1;  // a constant column becomes zeros
      for (std::size_t r = 0; r < static_cast<std::size_t>(samples()); ++r) {
        float& value = table_.values[r * columns + c];
        value = static_cast<float>((static_cast<double>(value) - mean) * scale);
      }
    }
  }

  void write(std::int64_t sample, std::int64_t row, HostBatch& out) const override {
    const auto source = table_.values.begin() + sample * features();
    std::copy(source, source + features(), out.features.begin() + row * features());
    out.targets[static_cast<std::size_t>(row)] = table_.labels[static_cast<std::size_t>(sample)];
    if (!options_.regression) return;
    out.values[static_cast<std::size_t>(row)] = table_.numbers[static_cast<std::size_t>(sample)];
  }

  CsvOptions options_;
  Table table_;
  std::uint64_t fingerprint_ = 0;
};

}  // namespace

std::unique_ptr<Dataset> make_csv(const CsvOptions& options) {
  Table table = Reader(options).take();
  const std::int64_t train = table.rows() - validation_part(table.rows(), options.validation_fraction);
  if (train < 1)
    fail(ErrorKind::data, "data.validation_fraction {} of {} leaves none to train on", options.validation_fraction,
         counted(table.rows(), "row"));
  return std::make_unique<Csv>(options, std::move(table), train);
}

}  // namespace lockstep::data
