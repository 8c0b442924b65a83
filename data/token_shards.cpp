#include "data/token_shards.hpp"

#include <fcntl.h>
#include <glob.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::data {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

constexpr std::size_t header_words = 256, header_bytes = header_words * sizeof(std::int32_t);
constexpr std::int32_t llm_c_magic = 20240520, llm_c_version = 1;
constexpr std::int32_t llm_c_magic_of_32_bits = 20240801;  // the same project's shards for Llama 3

/// Names that a pattern or a folder stands for, in order.
std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t found{};
  const int status = ::glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<std::string> names(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  if (status != 0 && status != GLOB_NOMATCH) names.clear();
  std::ranges::sort(names);  // by bytes: the same order in every locale
  return names;
}

std::vector<std::string> shards_in_folder(const std::string& key, const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
    if (entry.path().extension() == ".bin") names.push_back(entry.path().string());
  if (error) fail(ErrorKind::data, "{}: cannot read the folder {}: {}", key, printable(folder), error.message());
  if (names.empty())
    fail(ErrorKind::data, "{}: the folder {} has no file *.bin: name a token file, its folder or a pattern", key,
         printable(folder));
  std::ranges::sort(names);
  const auto named_with = [&](const char* word) {
    return std::ranges::find_if(names, [&](const std::string& name) {
      return fs::path(name).filename().string().find(word) != std::string::npos;
    });
  };
  const auto train = named_with("train"), validation = named_with("val");
  if (train != names.end() && validation != names.end())
    fail(ErrorKind::config,
         "{}: the folder {} has shards for training ({}) and for validation ({}), and one would train on both. Give "
         "data.path: {}/*train*.bin and data.validation_path: {}/*val*.bin",
         key, printable(folder), printable(fs::path(*train).filename().string()),
         printable(fs::path(*validation).filename().string()), printable(folder), printable(folder));
  return names;
}

std::vector<std::string> files_of(const std::string& key, const std::string& path) {
  std::error_code none;
  if (fs::is_directory(path, none)) return shards_in_folder(key, path);
  if (fs::exists(path, none)) return {path};  // a name may hold the characters of a pattern
  std::vector<std::string> names;
  if (path.find_first_of("*?[") != std::string::npos) {
    names = matches_of(path);
    if (names.empty()) fail(ErrorKind::data, "{}: no file matches {} (relative to the job file)", key, printable(path));
  } else {
    names = {path};  // opening it says why it cannot be had
  }
  return names;
}

}  // namespace

/// One file in memory.
class TokenShards::Map {
 public:
  Map(const std::string& key, const std::string& path) : place_(fmt::format("{}: {}", key, printable(path))) {
    errno = 0;
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
      fail(ErrorKind::data, "{}: cannot open {}: {} (the path is relative to the job file)", key, printable(path),
           std::strerror(errno));
    struct stat status {};
    if (::fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(file);
      fail(ErrorKind::config, "{} is not a file, but files of tokens are needed", place_);
    }
    bytes_ = static_cast<std::size_t>(status.st_size);
    if (bytes_ > 0) {
      void* data = ::mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, file, 0);
      const int reason = errno;
      ::close(file);
      if (data == MAP_FAILED)
        fail(ErrorKind::environment, "{}: its {} bytes cannot be mapped into memory: {}", place_, bytes_,
             std::strerror(reason));
      data_ = static_cast<const std::byte*>(data);
    } else {
      ::close(file);
      fail(ErrorKind::data, "{} is empty", place_);
    }
  }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;
  ~Map() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), bytes_);
  }

  /// Finds the ids.
  void read_layout(TokenFormat format) {
    const std::int32_t magic = word(0);
    if (format == TokenFormat::detect && magic == llm_c_magic_of_32_bits)
      fail(ErrorKind::data,
           "{}: its header has magic {}: an llm.c shard of 32-bit ids (Llama 3). Only 16-bit ids can be read (magic "
           "{}): make the shards with the GPT-2 tokenizer",
           place_, magic, llm_c_magic);
    const bool headed = format == TokenFormat::llm_c || (format == TokenFormat::detect && magic == llm_c_magic);
    detected_bare_ = format == TokenFormat::detect && !headed;
    if (headed)
      read_header(magic);
    else if (bytes_ % sizeof(std::uint16_t) != 0)
      fail(ErrorKind::data,
           "{} has {} bytes, an odd number, but an id has 2: the file was cut off, or is no file of 16-bit ids", place_,
           bytes_);
    count_ = static_cast<std::int64_t>((bytes_ - offset_) / sizeof(std::uint16_t));
  }

  /// Holds every id against the vocabulary and adds all of them to `hash`.
  void read_ids(int vocab_size, XXH3_state_t& hash) const {
    constexpr std::int64_t block = 1 << 19;
    (void)::madvise(const_cast<std::byte*>(data_), bytes_, MADV_SEQUENTIAL);
    for (std::int64_t first = 0; first < count_; first += block) {
      const std::int64_t here = std::min(block, count_ - first);
      const std::uint16_t* ids = this->ids() + first;
      std::uint16_t largest = 0;
      for (std::int64_t i = 0; i < here; ++i) largest = std::max(largest, ids[i]);
      if (largest >= vocab_size) refuse_id(first, vocab_size);
      XXH3_64bits_update(&hash, ids, static_cast<std::size_t>(here) * sizeof(std::uint16_t));
    }
    (void)::madvise(const_cast<std::byte*>(data_), bytes_, MADV_RANDOM);  // windows come shuffled
  }

  [[nodiscard]] std::int64_t count() const { return count_; }
  [[nodiscard]] const std::uint16_t* ids() const { return reinterpret_cast<const std::uint16_t*>(data_ + offset_); }

 private:
  /// The n-th int32 of the file, 0 past its end.
  [[nodiscard]] std::int32_t word(std::size_t n) const {
    std::int32_t value = 0;
    if ((n + 1) * sizeof(value) <= bytes_) std::memcpy(&value, data_ + n * sizeof(value), sizeof(value));
    return value;
  }

  void read_header(std::int32_t magic) {
    if (magic != llm_c_magic)
      fail(ErrorKind::data,
           "{} begins with {}, but an llm.c shard begins with the magic number {}. For bare 16-bit ids, as nanoGPT "
           "writes them, give data.format: bare",
           place_, magic, llm_c_magic);
    if (bytes_ < header_bytes)
      fail(ErrorKind::data, "{} has {} bytes, but the header of an llm.c shard alone has {}: the file was cut off",
           place_, bytes_, header_bytes);
    if (word(1) != llm_c_version)
      fail(ErrorKind::data, "{}: its header has version {}; only version {} can be read", place_, word(1),
           llm_c_version);
    offset_ = header_bytes;
    const std::size_t behind = bytes_ - header_bytes;
    if (word(2) < 0 || static_cast<std::size_t>(word(2)) * sizeof(std::uint16_t) != behind)
      fail(ErrorKind::data,
           "{}: its header says {} tokens, so {} bytes after it, but there are {}: the file was cut off, or was "
           "written while it was read",
           place_, word(2), static_cast<std::int64_t>(word(2)) * 2, behind);
    if (word(2) == 0) fail(ErrorKind::data, "{} has a header and no tokens", place_);
  }

  [[noreturn]] void refuse_id(std::int64_t first, int vocab_size) const {
    const std::uint16_t* bad = std::find_if(ids() + first, ids() + count_, [&](auto id) { return id >= vocab_size; });
    const std::int64_t index = bad - ids();
    const bool no_header = detected_bare_ && static_cast<std::size_t>(index) * sizeof(std::uint16_t) < header_bytes;
    fail(ErrorKind::data,
         "{}: token {} (byte {}) is {}, but with data.vocab_size {} ids run from 0 to {}. Give the size of the "
         "vocabulary that the shard was made with, or make it with the right tokenizer{}",
         place_, index, offset_ + static_cast<std::size_t>(index) * sizeof(std::uint16_t), *bad, vocab_size,
         vocab_size - 1,
         no_header ? fmt::format(". It does not begin with llm.c's magic number {}, so it was read as bare 16-bit ids",
                                 llm_c_magic)
                   : "");
  }

  std::string place_;  ///< "data.path: train.bin"
  const std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t offset_ = 0;  ///< of the first id
  std::int64_t count_ = 0;
  bool detected_bare_ = false;
};

void TokenShards::Unmap::operator()(Map* map) const noexcept { delete map; }

TokenShards::TokenShards(const std::string& key, const std::string& path, TokenFormat format, int vocab_size) {
  require(vocab_size >= 1, "TokenShards: a vocabulary has at least one token");
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash(XXH3_createState(), &XXH3_freeState);
  require(hash != nullptr && XXH3_64bits_reset(hash.get()) == XXH_OK, "TokenShards: XXH3 has no state");
  for (const std::string& file : files_of(key, path)) {
    maps_.emplace_back(new Map(key, file));
    maps_.back()->read_layout(format);
    maps_.back()->read_ids(vocab_size, *hash);
    begins_.push_back(begins_.back() + maps_.back()->count());
  }
  fingerprint_ = XXH3_64bits_digest(hash.get());
}

void TokenShards::copy(std::int64_t first, std::int64_t count, std::int32_t* out) const {
  require(first >= 0 && count >= 0 && first + count <= size(), "TokenShards: no such tokens");
  if (count == 0) return;
  auto file = static_cast<std::size_t>(std::ranges::upper_bound(begins_, first) - begins_.begin()) - 1;
  while (count > 0) {
    const std::int64_t here = std::min(count, begins_[file + 1] - first);
    const std::uint16_t* ids = maps_[file]->ids() + (first - begins_[file]);
    std::copy(ids, ids + here, out);
    first += here, out += here, count -= here, ++file;
  }
}

}  // namespace lockstep::data
