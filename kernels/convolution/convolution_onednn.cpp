#include "kernels/convolution/convolution_onednn.hpp"

#include <array>
#include <dnnl.hpp>
#include <map>
#include <unordered_map>

#include "core/error.hpp"
#include "kernels/cpu/thread_limit.hpp"
#include "kernels/matmul/onednn_context.hpp"

namespace lockstep::kernels {
namespace {

using dnnl::memory;

/// Beyond it a rank's compiled convolutions are forgotten. A model has three a layer.
constexpr std::size_t most_compiled = 256;

/// A compiled convolution. The library chooses how weights, or their gradient, lie; `plain` is how ours do.
struct Compiled {
  dnnl::primitive primitive;
  memory images, result;          ///< what is read and written beside the weights
  memory plain, inner;            ///< of the weights or their gradient
  dnnl::reorder reorder;          ///< from plain to inner, or, of a gradient, back
  dnnl::reorder accumulate = {};  ///< adds inner to plain
};

enum class Kind : std::int64_t { forward, input_grad, weight_grad };

class Convolutions {
 public:
  Convolutions() : engine_((limit_onednn(), dnnl::engine::kind::cpu), 0), stream_(engine_) {}

  Compiled& get(Kind kind, const ConvolutionShape& s, int threads) {
    const Key key = {static_cast<std::int64_t>(kind), s.batch, s.height, s.width, s.in, s.out, s.kernel, threads};
    if (const auto known = compiled_.find(key); known != compiled_.end()) return known->second;
    if (compiled_.size() >= most_compiled) compiled_.clear();
    return compiled_.emplace(key, compile(kind, s)).first->second;
  }
  dnnl::stream& stream() { return stream_; }

 private:
  using Key = std::array<std::int64_t, 8>;

  static memory::desc images(const ConvolutionShape& s, std::int64_t channels) {
    return {{s.batch, channels, s.height, s.width}, memory::data_type::f32, memory::format_tag::nhwc};
  }

  Compiled compile(Kind kind, const ConvolutionShape& s) const {
    const memory::dims strides = {1, 1}, padding = {s.kernel / 2, s.kernel / 2};
    const memory::dims weight_dims = {s.out, s.in, s.kernel, s.kernel};
    const memory::desc plain(weight_dims, memory::data_type::f32, memory::format_tag::hwio);
    const memory::desc any(weight_dims, memory::data_type::f32, memory::format_tag::any);
    const memory::desc x = images(s, s.in), y = images(s, s.out);
    const auto algorithm = dnnl::algorithm::convolution_direct;
    const dnnl::convolution_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, algorithm, x, any, y, strides, padding, padding}, engine_);
    Compiled c;
    c.plain = memory(plain, engine_, nullptr);
    const auto with_inner = [&](const memory::desc& inner) { c.inner = memory(inner, engine_); };
    switch (kind) {
      case Kind::forward:
        with_inner(forward.weights_desc());
        c.primitive = dnnl::convolution_forward(forward);
        c.images = memory(x, engine_, nullptr);
        c.result = memory(y, engine_, nullptr);
        break;
      case Kind::input_grad: {
        const dnnl::convolution_backward_data::primitive_desc backward(
            {algorithm, x, any, y, strides, padding, padding}, engine_, forward);
        with_inner(backward.weights_desc());
        c.primitive = dnnl::convolution_backward_data(backward);
        c.images = memory(y, engine_, nullptr);
        c.result = memory(x, engine_, nullptr);
        break;
      }
      case Kind::weight_grad: {
        const dnnl::convolution_backward_weights::primitive_desc backward(
            {algorithm, x, any, y, strides, padding, padding}, engine_, forward);
        with_inner(backward.diff_weights_desc());
        c.primitive = dnnl::convolution_backward_weights(backward);
        c.images = memory(x, engine_, nullptr);
        c.result = memory(y, engine_, nullptr);
        dnnl::primitive_attr adds;
        dnnl::post_ops sum;
        sum.append_sum(1.0F);
        adds.set_post_ops(sum);
        c.reorder = dnnl::reorder(c.inner, c.plain);
        c.accumulate = dnnl::reorder(dnnl::reorder::primitive_desc(c.inner, c.plain, adds));
        return c;
      }
    }
    c.reorder = dnnl::reorder(c.plain, c.inner);
    return c;
  }

  dnnl::engine engine_;
  dnnl::stream stream_;
  std::map<Key, Compiled> compiled_;
};

/// A rank calls kernels from one thread.
Convolutions& convolutions() {
  thread_local Convolutions own;
  return own;
}

/// body(the calling thread's convolution, its stream) on so many threads.
template <class Body>
void with_compiled(Kind kind, const ConvolutionShape& shape, int threads, const Body& body) {
  const ThreadLimit limit(threads);
  try {
    Convolutions& own = convolutions();
    body(own.get(kind, shape, threads), own.stream());
    own.stream().wait();
  } catch (const dnnl::error& error) {
    fail(ErrorKind::environment, "convolution of {} images {} x {}, {} to {} channels: oneDNN: {}", shape.batch,
         shape.height, shape.width, shape.in, shape.out, error.what());
  }
}

float* writable(const float* data) { return const_cast<float*>(data); }

/// The two that take weights: `from` and `to` are images.
void with_weights(Kind kind, int images_argument, int result_argument, const ConvolutionShape& shape, const float* from,
                  const float* weight, float* to, int threads) {
  with_compiled(kind, shape, threads, [&](Compiled& c, dnnl::stream& stream) {
    c.plain.set_data_handle(writable(weight));
    c.reorder.execute(stream, c.plain, c.inner);
    c.images.set_data_handle(writable(from));
    c.result.set_data_handle(to);
    c.primitive.execute(stream,
                        {{images_argument, c.images}, {DNNL_ARG_WEIGHTS, c.inner}, {result_argument, c.result}});
  });
}

}  // namespace

void onednn_convolution_forward(const ConvolutionShape& shape, const float* x, const float* weight, float* y,
                                int threads) {
  with_weights(Kind::forward, DNNL_ARG_SRC, DNNL_ARG_DST, shape, x, weight, y, threads);
}

void onednn_convolution_input_grad(const ConvolutionShape& shape, const float* dy, const float* weight, float* dx,
                                   int threads) {
  with_weights(Kind::input_grad, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_SRC, shape, dy, weight, dx, threads);
}

void onednn_convolution_weight_grad(const ConvolutionShape& shape, const float* x, const float* dy, float* dweight,
                                    bool accumulate, int threads) {
  with_compiled(Kind::weight_grad, shape, threads, [&](Compiled& c, dnnl::stream& stream) {
    c.images.set_data_handle(writable(x));
    c.result.set_data_handle(writable(dy));
    c.plain.set_data_handle(dweight);
    c.primitive.execute(stream,
                        {{DNNL_ARG_SRC, c.images}, {DNNL_ARG_DIFF_DST, c.result}, {DNNL_ARG_DIFF_WEIGHTS, c.inner}});
    (accumulate ? c.accumulate : c.reorder).execute(stream, c.inner, c.plain);
  });
}

}  // namespace lockstep::kernels
