#include "kernels/attention/cudnn_attention.hpp"

#if !defined(LOCKSTEP_CUDNN)

namespace lockstep::kernels {

std::unique_ptr<CudnnAttention> CudnnAttention::open(std::string& text) {
  text = "built without cuDNN's headers";
  return nullptr;
}
std::size_t cudnn_backward_bytes(const AttentionBackwardArgs& /*args*/) noexcept { return 0; }

}  // namespace lockstep::kernels

#else

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cmath>
#include <compare>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#include <cudnn_frontend.h>

#include "core/error.hpp"

/// Where cudnn_frontend looks its functions up.
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace lockstep::kernels {
namespace {

namespace fe = cudnn_frontend;
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

/// A plan, or none where cuDNN has no engine for it.
struct Plan {
  std::unique_ptr<fe::graph::Graph> graph;
  std::int64_t workspace = 0;
};

class Cudnn final : public CudnnAttention {
 public:
  explicit Cudnn(cudnnHandle_t handle) : handle_(handle) {}
  ~Cudnn() override {
    plans_.clear();
    (void)fe::detail::destroy_handle(handle_);
  }

  [[nodiscard]] bool forward(const Exec& exec, const AttentionForwardArgs& args) override {
    if (!takes(args)) return false;
    Plan& plan = plan_for(key_of(exec, args, false));
    if (plan.graph == nullptr) return false;
    std::unordered_map<std::int64_t, void*> tensors = packed(const_cast<void*>(args.qkv), args, query);
    tensors[out] = args.y;
    tensors[stats] = args.lse;
    run(exec, plan, tensors, nullptr, 0);
    return true;
  }

  [[nodiscard]] bool backward(const Exec& exec, const AttentionBackwardArgs& args, std::size_t work_bytes) override {
    if (!takes(args)) return false;
    Plan& plan = plan_for(key_of(exec, args, true));
    if (plan.graph == nullptr) return false;
    std::unordered_map<std::int64_t, void*> tensors = packed(const_cast<void*>(args.qkv), args, query);
    tensors.merge(packed(args.dqkv, args, query_grad));
    tensors[out] = const_cast<void*>(args.y);
    tensors[stats] = const_cast<float*>(args.lse);
    tensors[out_grad] = const_cast<void*>(args.dy);
    run(exec, plan, tensors, args.scratch, work_bytes);
    return true;
  }

 private:
  cudnnHandle_t handle_;
  std::map<Key, Plan> plans_;
  std::optional<Arena> more_work_;  ///< for plans that want more than they are given

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
  static std::unordered_map<std::int64_t, void*> packed(void* data, const Args& args, std::int64_t first) {
    auto* bytes = static_cast<std::byte*>(data);
    const auto part = static_cast<std::size_t>(args.heads * args.head_size) * size_of(args.dtype);
    return {{first, bytes}, {first + 1, bytes + part}, {first + 2, bytes + 2 * part}};
  }

  void run(const Exec& exec, Plan& plan, std::unordered_map<std::int64_t, void*>& tensors, void* work,
           std::size_t work_bytes) {
    const auto wanted = static_cast<std::size_t>(plan.workspace);
    if (wanted > work_bytes) {
      if (!more_work_ || more_work_->bytes() < wanted) {
        more_work_.reset();
        more_work_.emplace(*exec.device, wanted);
      }
      work = more_work_->data();
    }
    check(fe::detail::set_stream(handle_, static_cast<cudaStream_t>(exec.stream.handle)), "choosing the stream");
    fe::error_t error = plan.graph->execute(handle_, tensors, work);
    if (error.is_bad()) fail(ErrorKind::environment, "cuDNN: attention was not started: {}", error.get_message());
  }

  static void check(cudnnStatus_t status, const char* what) {
    if (status != CUDNN_STATUS_SUCCESS)
      fail(ErrorKind::environment, "cuDNN: {} failed: {}", what, fe::detail::get_error_string(status));
  }

  Plan& plan_for(const Key& key) {
    const auto found = plans_.find(key);
    return found != plans_.end() ? found->second : plans_.emplace(key, make_plan(key)).first->second;
  }

  Plan make_plan(const Key& key) const {
    auto graph = std::make_unique<fe::graph::Graph>();
    graph->set_io_data_type(key.dtype == DType::bf16 ? fe::DataType_t::BFLOAT16 : fe::DataType_t::HALF)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (key.backward)
      describe_backward(*graph, key);
    else
      describe_forward(*graph, key);
    const fe::error_t error = graph->build(handle_, {fe::HeurMode_t::A});
    std::int64_t workspace = 0;
    // It has engines for some sizes and some GPUs only.
    if (error.is_bad() || graph->get_workspace_size(workspace).is_bad()) return {};
    return {.graph = std::move(graph), .workspace = workspace};
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

std::unique_ptr<CudnnAttention> CudnnAttention::open(std::string& text) {
  if (fe::cudnn_dlhandle == nullptr) fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
  if (fe::cudnn_dlhandle == nullptr) {
    text = dlerror();
    return nullptr;
  }
  // Else it looks for the runtimes of several CUDA versions, and prints what it finds.
  const std::string runtime = "libcudart.so." + std::to_string(CUDART_VERSION / 1000);
  (void)setenv("CUDNN_FRONTEND_CUDART_LIB_NAME", runtime.c_str(), 0);
  try {
    cudnnHandle_t handle = nullptr;
    const cudnnStatus_t status = fe::detail::create_handle(&handle);
    const std::size_t version = fe::detail::get_backend_version();
    text = fmt::format("cuDNN {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
    if (status == CUDNN_STATUS_SUCCESS) return std::make_unique<Cudnn>(handle);
    text += fmt::format(" does not start: {}", fe::detail::get_error_string(status));
  } catch (const std::exception& error) {
    text = error.what();
  }
  return nullptr;
}

std::size_t cudnn_backward_bytes(const AttentionBackwardArgs& args) noexcept {
  if (!takes(args)) return 0;
  const std::int64_t queries = args.batch * args.heads * ((args.length + 127) / 128 * 128);
  return static_cast<std::size_t>(queries * (args.head_size + 2)) * sizeof(float);
}

}  // namespace lockstep::kernels

#endif
