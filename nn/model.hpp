#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/context.hpp"
#include "nn/parameter.hpp"

namespace lockstep::nn {

struct BatchShape {
  std::int64_t batch = 0;   ///< samples
  std::int64_t length = 1;  ///< positions a sample; 1 for models without a sequence
  bool operator==(const BatchShape&) const = default;
};

/// One micro-batch on the device; pointers are null while planning.
struct Batch {
  BatchShape shape;
  const std::int32_t* tokens = nullptr;   ///< [batch, length], for language models
  const float* features = nullptr;        ///< [batch, features], for others
  const std::int32_t* targets = nullptr;  ///< [batch, length]; -1 is not counted
  /// In training: 1 / (counted targets * micro-batches a step). On the device too, so that a recorded pass can be
  /// replayed with another batch.
  const double* grad_factor = nullptr;
  const float* values = nullptr;  ///< [batch, outputs] for a regression: what is to be predicted
  /// Position of the first sample in the training sequence, on the device; null: 0. What dropout is a function of.
  const std::int64_t* first_sample = nullptr;
};

/// A model declares its parameters and computes its loss from operations; backward follows.
class Model {
 public:
  virtual ~Model() = default;
  [[nodiscard]] const std::vector<ParameterSpec>& parameters() const { return parameters_; }
  [[nodiscard]] int units() const { return units_; }
  [[nodiscard]] virtual std::string describe() const = 0;   ///< "gpt2 10.7M: 6 layers, 6 heads, 384 wide, context 256"
  [[nodiscard]] virtual int classes() const = 0;            ///< real columns of the logits
  [[nodiscard]] virtual int features() const { return 0; }  ///< columns of Batch::features; 0: it takes tokens
  [[nodiscard]] virtual int outputs() const { return 0; }   ///< columns of Batch::values; 0: it classifies
  /// Of each sample's last position: [batch, >= classes]. What generation goes on from.
  [[nodiscard]] virtual Tensor logits(Context& context, const Batch& batch) = 0;
  /// Adds the batch's loss to the context's LossSum; in training records what backward needs, and the sum is complete
  /// after backward.
  void loss(Context& context, const Batch& batch);
  [[nodiscard]] std::int64_t parameter_count() const;

 protected:
  /// Declares a parameter; its id is its position.
  ParamId add(ParameterSpec spec);
  int add_unit() { return units_++; }
  /// The operations of loss(). As it stands, cross_entropy and, in evaluation, accuracy of logits(), or, where there
  /// are outputs, their squared_error: right where a sample has one position.
  virtual void add_loss(Context& context, const Batch& batch);

 private:
  std::vector<ParameterSpec> parameters_;
  int units_ = 0;
};

/// Runs `model` on shapes alone: no memory, no kernels, no MPI. `kernels` are those that the passes will run on: they
/// say how much scratch they need. `train` false plans an evaluation pass.
[[nodiscard]] Plan plan(Model& model, const KernelTable& kernels, const BatchShape& shape, DType compute,
                        bool train = true);

}  // namespace lockstep::nn
