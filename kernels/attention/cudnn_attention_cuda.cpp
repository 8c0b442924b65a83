#include "kernels/attention/cudnn_attention.hpp"

#if !defined(LOCKSTEP_CUDNN)

namespace lockstep::kernels {

std::unique_ptr<CudnnAttention> CudnnAttention::with(CudnnGraphs& /*graphs*/) { return nullptr; }
std::size_t cudnn_backward_bytes(const AttentionBackwardArgs& /*args*/) noexcept { return 0; }

}  // namespace lockstep::kernels

#else

#include <cmath>
#include <compare>
#include <map>

#include "kernels/cuda/cudnn_graphs.hpp"

namespace lockstep::kernels {
namespace {

using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

constexpr std::int64_t widest_head = 128;

enum Uid : std::int64_t { query = 1, key, value, out, stats, out_grad, query_grad, key_grad, value_grad };

struct Key {
  std::int64_t batch, length, heads, head_size;
  DType dtype;
  bool backward;
  bool deterministic;
  auto operator<=>(const Key&) const = default;
};

template <class Args>
bool takes(const Args& args) {
  return args.dtype != DType::f32 && args.head_size % 8 == 0 && args.head_size <= widest_head;
}

class Attention final : public CudnnAttention {
 public:
  explicit Attention(CudnnGraphs& graphs) : graphs_(graphs) {}

  [[nodiscard]] bool forward(const Exec& exec, const AttentionForwardArgs& args) override {
    if (!takes(args)) return false;
    CudnnPlan& plan = plan_for(key_of(exec, args, false));
    if (plan.graph == nullptr) return false;
    CudnnTensors tensors = packed(const_cast<void*>(args.qkv), args, query);
    tensors[out] = args.y;
    tensors[stats] = args.lse;
    graphs_.run(exec, plan, tensors, nullptr, 0, "attention");
    return true;
  }

  [[nodiscard]] bool backward(const Exec& exec, const AttentionBackwardArgs& args, std::size_t work_bytes) override {
    if (!takes(args)) return false;
    CudnnPlan& plan = plan_for(key_of(exec, args, true));
    if (plan.graph == nullptr) return false;
    CudnnTensors tensors = packed(const_cast<void*>(args.qkv), args, query);
    tensors.merge(packed(args.dqkv, args, query_grad));
    tensors[out] = const_cast<void*>(args.y);
    tensors[stats] = const_cast<float*>(args.lse);
    tensors[out_grad] = const_cast<void*>(args.dy);
    graphs_.run(exec, plan, tensors, args.scratch, work_bytes, "attention's backward pass");
    return true;
  }

 private:
  CudnnGraphs& graphs_;
  std::map<Key, CudnnPlan> plans_;

  template <class Args>
  static Key key_of(const Exec& exec, const Args& args, bool backward) {
    return {.batch = args.batch,
            .length = args.length,
            .heads = args.heads,
            .head_size = args.head_size,
            .dtype = args.dtype,
            .backward = backward,
            .deterministic = !exec.tune};
  }

  /// The three parts of qkv, or of its gradient, numbered from `first`.
  template <class Args>
  static CudnnTensors packed(void* data, const Args& args, std::int64_t first) {
    auto* bytes = static_cast<std::byte*>(data);
    const auto part = static_cast<std::size_t>(args.heads * args.head_size) * size_of(args.dtype);
    return {{first, bytes}, {first + 1, bytes + part}, {first + 2, bytes + 2 * part}};
  }

  CudnnPlan& plan_for(const Key& key) {
    const auto found = plans_.find(key);
    return found != plans_.end() ? found->second : plans_.emplace(key, make_plan(key)).first->second;
  }

  CudnnPlan make_plan(const Key& key) const {
    auto graph = CudnnGraphs::graph_of(key.dtype);
    if (key.backward)
      describe_backward(*graph, key);
    else
      describe_forward(*graph, key);
    return graphs_.build(std::move(graph));
  }

  /// [batch, heads, length, head_size] where a token's elements lie `token` apart.
  static fe::graph::Tensor_attributes strided(const Key& key, const char* name, std::int64_t uid, std::int64_t token) {
    return fe::graph::Tensor_attributes()
        .set_name(name)
        .set_uid(uid)
        .set_dim({key.batch, key.heads, key.length, key.head_size})
        .set_stride({key.length * token, key.head_size, token, 1});
  }
  static std::int64_t plain_token(const Key& key) { return key.heads * key.head_size; }
  static std::int64_t packed_token(const Key& key) { return 3 * plain_token(key); }
  static float scale(const Key& key) { return 1.0F / std::sqrt(static_cast<float>(key.head_size)); }
  static fe::graph::Tensor_attributes row_numbers(const Key& key) {
    return fe::graph::Tensor_attributes()
        .set_name("stats")
        .set_uid(stats)
        .set_data_type(fe::DataType_t::FLOAT)
        .set_dim({key.batch, key.heads, key.length, 1})
        .set_stride({key.heads * key.length, key.length, 1, 1});
  }
  static void set_output(const Tensor& tensor, const fe::graph::Tensor_attributes& as) {
    tensor->set_output(true).set_uid(as.get_uid()).set_dim(as.get_dim()).set_stride(as.get_stride());
    if (as.get_data_type() != fe::DataType_t::NOT_SET) tensor->set_data_type(as.get_data_type());
  }

  static void describe_forward(fe::graph::Graph& graph, const Key& key) {
    const auto q = graph.tensor(strided(key, "q", query, packed_token(key)));
    const auto k = graph.tensor(strided(key, "k", Uid::key, packed_token(key)));
    const auto v = graph.tensor(strided(key, "v", value, packed_token(key)));
    const auto options = fe::graph::SDPA_attributes()
                             .set_name("attention")
                             .set_generate_stats(true)
                             .set_causal_mask(true)
                             .set_attn_scale(scale(key));
    const auto [y, lse] = graph.sdpa(q, k, v, options);
    set_output(y, strided(key, "y", out, plain_token(key)));
    set_output(lse, row_numbers(key));
  }

  static void describe_backward(fe::graph::Graph& graph, const Key& key) {
    const auto q = graph.tensor(strided(key, "q", query, packed_token(key)));
    const auto k = graph.tensor(strided(key, "k", Uid::key, packed_token(key)));
    const auto v = graph.tensor(strided(key, "v", value, packed_token(key)));
    const auto y = graph.tensor(strided(key, "y", out, plain_token(key)));
    const auto dy = graph.tensor(strided(key, "dy", out_grad, plain_token(key)));
    const auto lse = graph.tensor(row_numbers(key));
    const auto options = fe::graph::SDPA_backward_attributes()
                             .set_name("attention_backward")
                             .set_causal_mask(true)
                             .set_attn_scale(scale(key))
                             .set_deterministic_algorithm(key.deterministic);
    const auto [dq, dk, dv] = graph.sdpa_backward(q, k, v, y, dy, lse, options);
    set_output(dq, strided(key, "dq", query_grad, packed_token(key)));
    set_output(dk, strided(key, "dk", key_grad, packed_token(key)));
    set_output(dv, strided(key, "dv", value_grad, packed_token(key)));
  }
};

}  // namespace

std::unique_ptr<CudnnAttention> CudnnAttention::with(CudnnGraphs& graphs) {
  return std::make_unique<Attention>(graphs);
}

std::size_t cudnn_backward_bytes(const AttentionBackwardArgs& args) noexcept {
  if (!takes(args)) return 0;
  const std::int64_t queries = args.batch * args.heads * ((args.length + 127) / 128 * 128);
  return static_cast<std::size_t>(queries * (args.head_size + 2)) * sizeof(float);
}

}  // namespace lockstep::kernels

#endif
