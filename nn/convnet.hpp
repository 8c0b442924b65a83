#pragma once

#include <vector>

#include "nn/model.hpp"

namespace lockstep::nn {

struct ConvnetOptions {
  int height = 28;
  int width = 28;
  int channels = 1;                     ///< of the images
  std::vector<int> filters = {32, 64};  ///< output channels of each convolution
  int kernel = 3;                       ///< odd
  int pool = 2;                         ///< side of the windows behind each convolution; 1: no pooling
  std::vector<int> hidden = {128};      ///< widths of the fully connected layers behind them
  int classes = 10;
  double dropout = 0;  ///< probability, behind the last convolution and each hidden layer
};

/// A classifier of images: convolutions, each with a bias, a rectifier and a maximum over windows; then fully connected
/// layers with GELU. Features are images [height, width, channels]. Parameters "convolutions.0.weight" [kernel, kernel,
/// in, out], "convolutions.0.bias" [out], ..., "layers.0.weight" [in, out], "layers.0.bias" [out], ...; one unit a
/// layer.
[[nodiscard]] std::unique_ptr<Model> make_convnet(const ConvnetOptions& options);

}  // namespace lockstep::nn
