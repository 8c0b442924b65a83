#include "kernels/convolution/cudnn_convolution.hpp"

#if !defined(LOCKSTEP_CUDNN)

namespace lockstep::kernels {

std::unique_ptr<CudnnConvolution> CudnnConvolution::with(CudnnGraphs& /*graphs*/) { return nullptr; }
std::size_t cudnn_filter_bytes(const ConvolutionShape& /*shape*/, DType /*dtype*/) noexcept { return 0; }

}  // namespace lockstep::kernels

#else

#include <compare>
#include <map>

#include "kernels/convolution/direct_convolution.hpp"
#include "kernels/cuda/cuda_context.hpp"
#include "kernels/cuda/cudnn_graphs.hpp"

namespace lockstep::kernels {
namespace {

enum class Pass { forward, input_grad, weight_grad };
enum Uid : std::int64_t { images = 1, filter, results };

struct Key {
  std::int64_t batch, height, width, in, out, kernel;
  DType dtype;
  Pass pass;
  bool deterministic;
  bool tf32;
  auto operator<=>(const Key&) const = default;
};

fe::DataType_t type_of(DType dtype) {
  if (dtype == DType::bf16) return fe::DataType_t::BFLOAT16;
  return dtype == DType::f16 ? fe::DataType_t::HALF : fe::DataType_t::FLOAT;
}

/// [batch, channels, height, width], the channels of a pixel side by side.
fe::graph::Tensor_attributes pixels(const Key& key, const char* name, Uid uid, std::int64_t channels) {
  return fe::graph::Tensor_attributes()
      .set_name(name)
      .set_uid(uid)
      .set_data_type(type_of(key.dtype))
      .set_dim({key.batch, channels, key.height, key.width})
      .set_stride({key.height * key.width * channels, 1, key.width * channels, channels});
}

/// [out, in, kernel, kernel], the channels of a tap side by side.
fe::graph::Tensor_attributes taps(const Key& key, const char* name, DType dtype) {
  return fe::graph::Tensor_attributes()
      .set_name(name)
      .set_uid(filter)
      .set_data_type(type_of(dtype))
      .set_dim({key.out, key.in, key.kernel, key.kernel})
      .set_stride({key.kernel * key.kernel * key.in, 1, key.kernel * key.in, key.in});
}

template <class Options>
Options same_size(const Key& key, const char* name) {
  const std::int64_t radius = key.kernel / 2;
  return Options().set_name(name).set_padding({radius, radius}).set_stride({1, 1}).set_dilation({1, 1});
}

void set_output(const std::shared_ptr<fe::graph::Tensor_attributes>& tensor, const fe::graph::Tensor_attributes& as) {
  tensor->set_output(true)
      .set_uid(as.get_uid())
      .set_dim(as.get_dim())
      .set_stride(as.get_stride())
      .set_data_type(as.get_data_type());
}

class Convolution final : public CudnnConvolution {
 public:
  explicit Convolution(CudnnGraphs& graphs) : graphs_(graphs) {}

  [[nodiscard]] bool forward(const Exec& exec, const ConvolutionForwardArgs& args) override {
    const CudnnPlan* plan = plan_for(exec, args.shape, args.dtype, Pass::forward);
    if (plan == nullptr) return false;
    cuda::convolution_filter(exec, {args.weight, args.scratch, args.shape, args.dtype});
    CudnnTensors tensors = {{images, const_cast<void*>(args.x)}, {filter, args.scratch}, {results, args.y}};
    graphs_.run(exec, *plan, tensors, nullptr, 0, "a convolution");
    return true;
  }

  [[nodiscard]] bool input_grad(const Exec& exec, const ConvolutionInputGradArgs& args) override {
    const CudnnPlan* plan = plan_for(exec, args.shape, args.dtype, Pass::input_grad);
    if (plan == nullptr) return false;
    cuda::convolution_filter(exec, {args.weight, args.scratch, args.shape, args.dtype});
    CudnnTensors tensors = {{images, args.dx}, {filter, args.scratch}, {results, const_cast<void*>(args.dy)}};
    graphs_.run(exec, *plan, tensors, nullptr, 0, "a convolution's gradient of its images");
    return true;
  }

  [[nodiscard]] bool weight_grad(const Exec& exec, const ConvolutionWeightGradArgs& args) override {
    const CudnnPlan* plan = plan_for(exec, args.shape, args.dtype, Pass::weight_grad);
    if (plan == nullptr) return false;
    CudnnTensors tensors = {
        {images, const_cast<void*>(args.x)}, {filter, args.scratch}, {results, const_cast<void*>(args.dy)}};
    graphs_.run(exec, *plan, tensors, nullptr, 0, "a convolution's gradient of its weights");
    cuda::convolution_filter_grad(exec, {args.scratch, args.dweight, args.shape, args.accumulate, DType::f32});
    return true;
  }

 private:
  CudnnGraphs& graphs_;
  std::map<Key, CudnnPlan> plans_;

  /// Null where cuDNN has none.
  const CudnnPlan* plan_for(const Exec& exec, const ConvolutionShape& s, DType dtype, Pass pass) {
    if (s.batch == 0) return nullptr;
    const Key key = {.batch = s.batch,
                     .height = s.height,
                     .width = s.width,
                     .in = s.in,
                     .out = s.out,
                     .kernel = s.kernel,
                     .dtype = dtype,
                     .pass = pass,
                     .deterministic = !exec.tune,
                     .tf32 = cuda_context(exec).tf32()};
    auto found = plans_.find(key);
    if (found == plans_.end()) found = plans_.emplace(key, make_plan(key)).first;
    return found->second.graph != nullptr ? &found->second : nullptr;
  }

  CudnnPlan make_plan(const Key& key) const {
    auto graph = CudnnGraphs::graph_of(key.dtype);
    const fe::graph::Tensor_attributes x = pixels(key, "x", images, key.in), y = pixels(key, "y", results, key.out);
    if (key.pass == Pass::forward)
      set_output(graph->conv_fprop(graph->tensor(x), graph->tensor(taps(key, "weight", key.dtype)),
                                   same_size<fe::graph::Conv_fprop_attributes>(key, "convolution")),
                 y);
    else if (key.pass == Pass::input_grad)
      set_output(graph->conv_dgrad(graph->tensor(y), graph->tensor(taps(key, "weight", key.dtype)),
                                   same_size<fe::graph::Conv_dgrad_attributes>(key, "convolution_input_grad")),
                 x);
    else
      set_output(graph->conv_wgrad(graph->tensor(y), graph->tensor(x),
                                   same_size<fe::graph::Conv_wgrad_attributes>(key, "convolution_weight_grad")),
                 taps(key, "dweight", DType::f32));
    std::vector<fe::NumericalNote_t> unwanted;
    if (key.deterministic) unwanted.push_back(fe::NumericalNote_t::NONDETERMINISTIC);
    // Products of fp32 on tensor cores round their operands to TF32.
    if (key.dtype == DType::f32 && !key.tf32)
      unwanted.insert(unwanted.end(), {fe::NumericalNote_t::TENSOR_CORE, fe::NumericalNote_t::DOWN_CONVERT_INPUTS});
    return graphs_.build(std::move(graph), unwanted);
  }
};

}  // namespace

std::unique_ptr<CudnnConvolution> CudnnConvolution::with(CudnnGraphs& graphs) {
  return std::make_unique<Convolution>(graphs);
}

std::size_t cudnn_filter_bytes(const ConvolutionShape& shape, DType dtype) noexcept {
  return static_cast<std::size_t>(shape.taps() * shape.in * shape.out) * size_of(dtype);
}

}  // namespace lockstep::kernels

#endif
