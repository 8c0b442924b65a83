#pragma once

#include <vector>

#include "nn/model.hpp"

namespace lockstep::nn {

struct MlpOptions {
  int features = 2;
  std::vector<int> hidden = {64, 64};
  int classes = 4;          ///< or, of a regression, numbers to predict
  bool regression = false;  ///< the loss is the mean squared error
  double dropout = 0;       ///< probability, behind each hidden layer
};

/// Fully connected layers with GELU between them, a classifier or a regression: layers "layers.0.weight" [in, out],
/// "layers.0.bias" [out], ...; one unit a layer.
[[nodiscard]] std::unique_ptr<Model> make_mlp(const MlpOptions& options);

}  // namespace lockstep::nn
