#include "fuzz/targets.hpp"

#include <fmt/ranges.h>

#include <vector>

#include "fuzz/target.hpp"

namespace lockstep::fuzz {
namespace {

constexpr Target all[] = {
    {"job", job, 4096},           {"ds_config", ds_config, 4096}, {"safetensors", safetensors, 4096},
    {"manifest", manifest, 4096}, {"metrics", metrics, 2048},     {"tokens", tokens, 2048},
    {"idx", idx, 1024},           {"idx_gz", idx_gz, 1024},       {"csv", csv, 1024},
    {"bpe", bpe, 8192},
};

}  // namespace

std::span<const Target> targets() { return all; }

const Target& target(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Target& one : all) {
    if (one.name == name) return one;
    names.push_back(one.name);
  }
  fail(ErrorKind::config, "there is no fuzzing target '{}'; there are {}", name, fmt::join(names, ", "));
}

}  // namespace lockstep::fuzz
