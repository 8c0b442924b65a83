#pragma once

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "safetensors/file.hpp"

namespace lockstep::testing {

/// The bytes of every tensor of a checkpoint, whole, whoever wrote which part of it: "exp_avg/NAME" -> bytes.
inline std::map<std::string, std::string> logical_tensors(const std::string& folder) {
  std::map<std::string, std::map<long, std::string>> pieces;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    const safetensors::File file(entry.path().string());
    for (const safetensors::Tensor& tensor : file.header().tensors) {
      std::string bytes(tensor.bytes(), '\0');
      file.read(tensor, 0, bytes.data(), bytes.size());
      const std::size_t at = tensor.name.rfind('@');
      const long begin = at == std::string::npos ? 0 : std::atol(tensor.name.c_str() + at + 1);
      pieces[tensor.name.substr(0, at)][begin] = bytes;
    }
  }
  std::map<std::string, std::string> whole;
  for (const auto& [name, parts] : pieces)
    for (const auto& [begin, bytes] : parts) whole[name] += bytes;
  return whole;
}

}  // namespace lockstep::testing
