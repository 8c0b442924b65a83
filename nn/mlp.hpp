#pragma once

#include <vector>

#include "nn/model.hpp"

namespace lockstep::nn {

struct MlpOptions {
  int features = 2;
  std::vector<int> hidden = {64, 64};
  int classes = 4;
};

/// Fully connected classifier with GELU: layers "layers.0.weight" [in, out], "layers.0.bias" [out], ...; one unit a
/// layer.
[[nodiscard]] std::unique_ptr<Model> make_mlp(const MlpOptions& options);

}  // namespace lockstep::nn
