#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/device.hpp"
#include "data/dataset.hpp"
#include "nn/model.hpp"
#include "nn/watch.hpp"

namespace lockstep::engine {

/// The first number that is not finite when a step is run again, or that there is none.
struct NonFinite {
  enum class What : std::int32_t {
    nothing,
    sample,              ///< a feature, or a number that is to be predicted
    parameter,           ///< as the passes read it: in 16-bit training the copy
    result,              ///< of an operation, forward
    gradient,            ///< of an operation's input, backward
    parameter_gradient,  ///< of one rank, backward
    sum,                 ///< every rank's own gradient is finite, what they add up to is not
  };
  What what = What::nothing;
  std::int32_t rank = 0;
  std::int32_t micro = 0;       ///< micro-batch of the rank's step, from 0
  std::int32_t op = -1;         ///< of the plan
  std::int32_t backward = 0;    ///< it was met in the backward pass
  std::int32_t param = -1;      ///< whose value or gradient it is
  std::int32_t layer = -1;      ///< the parameter that the operation uses, or the last one used before it
  std::int32_t uses_layer = 0;  ///< which of the two
  std::int64_t order = 0;       ///< operations of the pass before it: all ranks do the same ones
  std::int64_t first = 0;       ///< index of the first bad element
  std::int64_t bad = 0;         ///< elements that are not finite
  std::int64_t elements = 0;    ///< of so many
  double value = 0;             ///< of the first
  /// Where one is to blame: its row in the micro-batch and its position in the training sequence, and of a sequence the
  /// place in it. -1: not known.
  std::int64_t row = -1, sample = -1, position = -1;
  /// Of a parameter's gradient, which all samples add to, the above are those of the largest number in what it was made
  /// from, which is this.
  double largest = 0;
};

/// Looks at all that a rank's passes read and make, until it meets a number that is not finite. Reads the device's
/// memory and waits for it each time: a pass under it is several times as slow as another one.
class NonFiniteSearch final : public nn::Watch {
 public:
  NonFiniteSearch(DeviceApi& device, StreamRef stream, const nn::Model& model, const nn::Plan& plan, DType compute);

  /// Micro-batch `micro`, of these samples, is run next.
  void begin_micro_batch(int micro, const data::HostBatch& batch);
  /// All micro-batches have been run: looks at `count` numbers of the sum of gradients, which are at `data`. Gives back
  /// the index of the first that is not finite.
  [[nodiscard]] std::optional<std::int64_t> look_at_sum(const float* data, std::int64_t count);
  [[nodiscard]] const NonFinite& found() const { return found_; }
  /// After the last micro-batch.
  void end();

  void begin(int op, nn::Phase phase) override;
  void value(nn::ParamId id, const void* data) override;
  void result(const nn::Tensor& tensor) override;
  void gradient(const nn::TensorRef& of, const nn::Tensor& gradient) override;
  void gradient(nn::ParamId id, const float* data) override;

 private:
  struct Scan {
    std::int64_t first = -1, bad = 0;
    double value = 0;
    std::int64_t largest_at = -1;
    double largest = 0;
  };
  [[nodiscard]] Scan scan(const void* data, DType dtype, std::int64_t count);
  [[nodiscard]] bool done() const { return closed_; }
  /// Of the operations that are under way: a better one takes the place of what was met before in the same operation.
  void met(NonFinite finding, int weight);
  void place(NonFinite& finding, const nn::Shape& shape, std::int64_t at) const;

  DeviceApi& device_;
  StreamRef stream_;
  const nn::Model& model_;
  const nn::Plan& plan_;
  DType compute_;
  std::vector<std::byte> piece_;
  std::vector<bool> looked_at_;  ///< by parameter, in this micro-batch
  std::vector<int> layer_;       ///< by operation
  std::vector<bool> uses_layer_;
  int last_used_ = -1;
  NonFinite found_;
  int weight_ = 0;
  bool closed_ = false;

  int micro_ = 0;
  std::int64_t first_sample_ = 0;
  nn::BatchShape batch_;
  int op_ = -1;
  nn::Phase phase_ = nn::Phase::forward;
  std::int64_t order_ = 0;
  NonFinite last_gradient_;  ///< place and value of its largest number
};

/// A sentence or two for people. `world` ranks looked; `sample_name` is what the data calls the sample, or
/// empty.
[[nodiscard]] std::string to_text(const NonFinite& found, const nn::Model& model, const nn::Plan& plan, int world,
                                  std::int64_t micro_batches, const std::string& sample_name);

}  // namespace lockstep::engine
