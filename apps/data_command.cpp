#include "apps/data_command.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

#include "core/error.hpp"
#include "core/text.hpp"
#include "core/utf8.hpp"
#include "data/bpe.hpp"
#include "data/dataset.hpp"
#include "data/idx.hpp"
#include "data/regular_file.hpp"
#include "data/shard_writer.hpp"
#include "run/setup.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

/// The first bytes of a file, at most `most`.
std::string beginning_of(const std::string& path, std::size_t most) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file)
    fail(ErrorKind::data, "{}: cannot be opened: {}", printable(path),
         errno == 0 ? "unknown error" : std::strerror(errno));
  std::string bytes(most, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(most));
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  return bytes;
}

std::int32_t word_at(const std::string& bytes, std::size_t index) {
  std::int32_t word = 0;
  std::memcpy(&word, bytes.data() + index * sizeof word, sizeof word);
  return word;
}

/// What IDX's header says, if it is an IDX file, compressed or not.
std::optional<std::string> as_idx(const std::string& path, const std::string& bytes) {
  const bool compressed = bytes.size() > 2 && bytes[0] == '\x1f' && bytes[1] == '\x8b';
  if (!compressed && !(bytes.size() >= 4 && bytes.substr(0, 3) == std::string("\0\0\x08", 3))) return std::nullopt;
  try {
    const std::vector<std::int64_t> shape = data::read_idx_shape(path);
    const std::string kind = shape.size() == 3
                                 ? fmt::format("{} of {} x {}", counted(shape[0], "image"), shape[1], shape[2])
                             : shape.size() == 1 ? counted(shape[0], "label")
                                                 : fmt::format("bytes [{}]", fmt::join(shape, ", "));
    return fmt::format("IDX{}, {}", compressed ? " (gzip)" : "", kind);
  } catch (const Error&) {
    return compressed ? std::optional<std::string>("gzip, not IDX") : std::nullopt;
  }
}

std::string kind_of(const std::string& path, std::uintmax_t size) {
  const std::string bytes = beginning_of(path, 1 << 16);
  if (bytes.empty()) return "empty";
  if (const auto idx = as_idx(path, bytes)) return *idx;
  if (bytes.size() >= 1024 && word_at(bytes, 0) == 20240520) {
    const std::int64_t tokens = word_at(bytes, 2);
    if (size == 1024 + static_cast<std::uintmax_t>(tokens) * 2)
      return fmt::format("token shard, {}", counted(tokens, "token"));
    return fmt::format("token shard that should have {} bytes", 1024 + tokens * 2);
  }
  // A character may be cut at the end of what was read.
  std::size_t lines = 0;
  const std::size_t end = each_character(bytes, [&](char32_t code) { lines += code == '\n' ? 1 : 0; });
  if (bytes.find('\0') != std::string::npos || (end + 4 < bytes.size() && end != bytes.size()))
    return "bytes, no UTF-8";
  const std::string first = bytes.substr(0, bytes.find('\n'));
  const std::string name = fs::path(path).extension().string();
  if (name == ".csv" || name == ".tsv") {
    const char separator = name == ".tsv" ? '\t' : ',';
    return fmt::format("table, {}", counted(1 + std::count(first.begin(), first.end(), separator), "column"));
  }
  if (first.starts_with("#version") || fs::path(path).filename() == "merges.txt") return "merges of a tokenizer";
  if (bytes[0] == '{' && fs::path(path).filename() == "vocab.json") return "vocabulary of a tokenizer";
  return "text, UTF-8";
}

std::string line_of(const std::string& path) {
  const std::uintmax_t size = fs::file_size(path);
  return fmt::format("{:>10}  {}  {}\n", human_bytes(static_cast<double>(size)), printable(path), kind_of(path, size));
}

/// Targets by class, over an epoch and over the validation samples.
std::string classes_of(const data::Dataset& dataset) {
  std::vector<std::int64_t> train(static_cast<std::size_t>(dataset.classes())), eval(train.size());
  data::HostBatch batch;
  constexpr std::int64_t piece = 1024;
  const auto count = [&](std::vector<std::int64_t>& counts) {
    for (const std::int32_t target : batch.targets)
      if (target >= 0) ++counts[static_cast<std::size_t>(target)];
  };
  for (std::int64_t first = 0; first < dataset.train_samples(); first += piece) {
    dataset.train_batch(first, std::min(piece, dataset.train_samples() - first), batch);
    count(train);
  }
  for (std::int64_t first = 0; first < dataset.eval_samples(); first += piece) {
    dataset.eval_batch(first, piece, batch);
    count(eval);
  }
  std::string text = "class     to train  to validate\n";
  constexpr std::size_t most = 50;
  for (std::size_t c = 0; c < std::min(most, train.size()); ++c)
    text += fmt::format("{:<8}  {:>8}  {:>11}\n", c, train[c], eval[c]);
  if (train.size() > most) text += fmt::format("... {} classes in all\n", train.size());
  return text;
}

/// Where the last part of a text begins: at a line's start, with the fraction or less behind it.
std::size_t border_of(const std::string& text, double fraction) {
  if (!(fraction >= 0 && fraction < 1))
    fail(ErrorKind::config, "--validation-fraction is {}, but it must be at least 0 and less than 1", fraction);
  if (fraction == 0) return text.size();
  const auto from = text.size() - static_cast<std::size_t>(static_cast<double>(text.size()) * fraction);
  const std::size_t line_end = text.find('\n', from == 0 ? 0 : from - 1);
  return line_end == std::string::npos ? text.size() : line_end + 1;
}

}  // namespace

std::string data_ls(const std::vector<std::string>& paths) {
  std::string text;
  for (const std::string& path : paths) {
    if (!fs::exists(path)) fail(ErrorKind::data, "{}: there is no such file or folder", printable(path));
    if (!fs::is_directory(path)) {
      text += line_of(path);
      continue;
    }
    std::vector<std::string> names;
    for (const fs::directory_entry& entry : fs::directory_iterator(path))
      if (entry.is_regular_file()) names.push_back(entry.path().string());
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) text += line_of(name);
  }
  return text;
}

std::string data_check(const job::LoadedJob& job) {
  const auto dataset = run::make_dataset(job.config);
  std::string text = fmt::format("{}\n", dataset->describe());
  text += fmt::format("an epoch is {}; {}; fingerprint {}\n", counted(dataset->train_samples(), "sample"),
                      counted(dataset->eval_samples(), "validation sample"), run::data_fingerprint(*dataset));
  const data::DataShape shape = dataset->shape();
  if (shape.features > 0)
    text += fmt::format(
        "{} a sample{}\n", counted(shape.features, "feature"),
        shape.channels > 0 ? fmt::format(" ({} x {} x {})", shape.height, shape.width, shape.channels) : "");
  if (shape.features > 0 && !shape.regression) text += classes_of(*dataset);
  return text;
}

std::string data_tokenize(const TokenizeOptions& options) {
  const data::Bpe bpe(options.vocab, options.merges);
  if (bpe.size() > 65536)
    fail(ErrorKind::data, "{}: has {} tokens; shards hold 16 bits, so 65,536 at most", printable(options.vocab),
         bpe.size());
  if (options.end_of_text && bpe.end_of_text() < 0)
    fail(ErrorKind::data, "{}: has no token <|endoftext|>", printable(options.vocab));
  const std::string text = data::read_text(options.input, "the text");
  const std::size_t end = each_character(text, [](char32_t) {});
  if (end != text.size())
    fail(ErrorKind::data, "{}: byte {} is 0x{:02x}, which is no UTF-8 there", printable(options.input), end,
         static_cast<unsigned char>(text[end]));
  const std::size_t border = border_of(text, options.validation_fraction);

  std::string report;
  const std::string_view parts[] = {{text.data(), border}, {text.data() + border, text.size() - border}};
  for (const auto& [name, part] : {std::pair{"train", parts[0]}, {"val", parts[1]}}) {
    if (part.empty()) continue;
    const fs::path folder = fs::path(options.output) / name;
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail(ErrorKind::environment, "{}: cannot be made: {}", printable(folder.string()), error.message());
    data::ShardWriter writer((folder / name).string(), options.shard_tokens);
    if (options.end_of_text) writer.write(std::array{bpe.end_of_text()});
    std::vector<std::int32_t> tokens;
    bpe.encode(part, tokens);
    writer.write(tokens);
    writer.finish();
    report += fmt::format("{}: {} of {} in {}\n", printable(folder.string()), counted(writer.tokens(), "token"),
                          human_bytes(static_cast<double>(part.size())),
                          counted(static_cast<std::int64_t>(writer.files().size()), "file"));
  }
  return report + fmt::format("vocabulary {}; train on it with data: {{type: tokens, path: {}, ...}}\n", bpe.size(),
                              printable((fs::path(options.output) / "train").string()));
}

}  // namespace lockstep
