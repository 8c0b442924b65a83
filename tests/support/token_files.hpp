#pragma once

// Files of token ids, as others' tools write them.

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::testing {

/// nanoGPT's: ids alone.
inline std::string bare_shard(const std::vector<std::uint16_t>& ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(std::uint16_t)};
}

/// llm.c's: 256 int32, of which the first three count, then the ids.
inline std::string llm_c_shard(const std::vector<std::uint16_t>& ids, std::int32_t magic = 20240520,
                               std::int32_t version = 1) {
  std::vector<std::int32_t> header(256, 0);
  header[0] = magic, header[1] = version, header[2] = static_cast<std::int32_t>(ids.size());
  return std::string(reinterpret_cast<const char*>(header.data()), header.size() * sizeof(std::int32_t)) +
         bare_shard(ids);
}

}  // namespace lockstep::testing
