#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "run/launch.hpp"

namespace lockstep::run {

struct GenerateOptions {
  std::string prompt = "\n";
  std::int64_t tokens = 400;  ///< to add
  double temperature = 0.8;   ///< 0: always the likeliest symbol
  std::int64_t top_k = 0;     ///< 0: all symbols
  std::uint64_t seed = 1;
};

/// Continues a prompt with the newest checkpoint of a run, symbol by symbol; `emit` gets each piece as it comes.
/// One rank. ErrorKind::checkpoint without a checkpoint, ErrorKind::config for a model that is not a language model.
void generate(const std::string& run_folder, const GenerateOptions& options, RankContext& rank,
              const std::function<void(const std::string&)>& emit);

}  // namespace lockstep::run
