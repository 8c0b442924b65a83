#include "data/shard_writer.hpp"

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::data {

static_assert(std::endian::native == std::endian::little, "shards are little-endian");

ShardWriter::ShardWriter(std::string name, std::int64_t shard_tokens)
    : name_(std::move(name)), shard_tokens_(static_cast<std::size_t>(shard_tokens)) {
  require(shard_tokens >= 1 && shard_tokens < (std::int64_t{1} << 31), "ShardWriter: a shard has 1 to 2^31 - 1 tokens");
}

void ShardWriter::write(std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens) {
    if (token < 0 || token > 65535)
      fail(ErrorKind::data, "token {} does not fit into the 16 bits of a shard: a vocabulary of at most 65,536 does",
           token);
    shard_.push_back(static_cast<std::uint16_t>(token));
    ++tokens_;
    if (shard_.size() == shard_tokens_) flush();
  }
}

void ShardWriter::finish() {
  if (!shard_.empty()) flush();
}

void ShardWriter::flush() {
  const std::string path = fmt::format("{}_{:06}.bin", name_, files_.size());
  std::array<std::int32_t, 256> header{};
  header[0] = 20240520;
  header[1] = 1;
  header[2] = static_cast<std::int32_t>(shard_.size());
  errno = 0;
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(header.data()), sizeof header);
  file.write(reinterpret_cast<const char*>(shard_.data()),
             static_cast<std::streamsize>(shard_.size() * sizeof(std::uint16_t)));
  file.close();
  if (!file)
    fail(ErrorKind::environment, "{}: cannot be written: {}", printable(path),
         errno == 0 ? "unknown error" : std::strerror(errno));
  files_.push_back(path);
  shard_.clear();
}

}  // namespace lockstep::data
