#include "kernels/matmul/onednn_context.hpp"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "core/error.hpp"
#include "core/isa.hpp"

namespace lockstep::kernels {
namespace {

using dnnl::memory;

// A model of 1.5 billion parameters packs 6 GB when every weight is kept in both directions; beyond this bound the
// library packs on each call, which costs a tenth to a third of the product's time.
constexpr std::size_t packed_bytes_limit = std::size_t{2} << 30;
constexpr std::size_t piece_alignment = 64;
// Evaluation with odd batches adds shapes; a training step uses some tens.
constexpr std::size_t products_limit = 1024;

memory::desc matrix(std::int64_t rows, std::int64_t columns, std::int64_t leading, bool transpose,
                    memory::data_type type) {
  // oneDNN describes the logical matrix; a transposed one has its leading dimension on the columns.
  return {{rows, columns}, type, transpose ? memory::dims{1, leading} : memory::dims{leading, 1}};
}

dnnl_cpu_isa_t isa_limit() {
  switch (current_isa()) {
    case Isa::baseline:
      return dnnl_cpu_isa_sse41;
    case Isa::avx2:
      return dnnl_cpu_isa_avx2;
    case Isa::avx512:
      break;
  }
  switch (current_bf16_products()) {
    case Bf16Products::widened:
      return dnnl_cpu_isa_avx512_core;
    case Bf16Products::dot:
      return dnnl_cpu_isa_avx512_core_bf16;
    case Bf16Products::tiles:
      break;
  }
  return dnnl_cpu_isa_all;
}

bool apply_isa_limit() {
  if (std::getenv("LOCKSTEP_ISA") == nullptr && std::getenv("LOCKSTEP_BF16") == nullptr) return false;
  check_onednn(dnnl_set_max_cpu_isa(isa_limit()), "dnnl_set_max_cpu_isa");
  return true;
}

}  // namespace

void limit_onednn() { [[maybe_unused]] static const bool limited = apply_isa_limit(); }

void check_onednn(dnnl_status_t status, const char* call) {
  if (status != dnnl_success)
    fail(ErrorKind::environment, "{}: oneDNN answers status {}", call, static_cast<int>(status));
}

memory::desc weight_desc(const MatmulArgs& args, bool packed) {
  if (packed) return {{args.k, args.n}, memory::data_type::bf16, memory::format_tag::any};
  return matrix(args.k, args.n, args.ldb, args.transpose_b != 0, memory::data_type::bf16);
}

OnednnContext::OnednnContext() : engine_((limit_onednn(), dnnl::engine::kind::cpu), 0), stream_(engine_) {}

OnednnContext::Product OnednnContext::compile(const MatmulArgs& args) const {
  Product product;
  product.packed_b = args.b_param >= 0;
  const auto c_type = args.c_dtype == DType::f32 ? memory::data_type::f32 : memory::data_type::bf16;
  const auto a = matrix(args.m, args.k, args.lda, args.transpose_a != 0, memory::data_type::bf16);
  const auto c = matrix(args.m, args.n, args.ldc, false, c_type);
  const auto b = weight_desc(args, product.packed_b);
  dnnl::primitive_attr attributes;
  if (args.accumulate != 0) {
    dnnl::post_ops sum;
    sum.append_sum(1.0F);
    attributes.set_post_ops(sum);
  }
  const memory::desc bias({1, args.n}, memory::data_type::bf16, memory::format_tag::ab);
  const auto description = args.bias != nullptr ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c);
  const dnnl::matmul::primitive_desc compiled(description, attributes, engine_);
  product.supported = std::string_view(compiled.impl_info_str()).find("ref") == std::string_view::npos;
  product.primitive = dnnl::matmul(compiled);
  product.a = memory(a, engine_, nullptr);
  product.b = memory(compiled.weights_desc(), engine_, nullptr);
  product.c = memory(c, engine_, nullptr);
  if (args.bias != nullptr) product.bias = memory(bias, engine_, nullptr);
  return product;
}

OnednnContext::Product& OnednnContext::product(const MatmulArgs& args, int threads) {
  const ProductKey key = {args.m,
                          args.n,
                          args.k,
                          args.lda,
                          args.ldb,
                          args.ldc,
                          args.transpose_a,
                          args.transpose_b,
                          args.accumulate,
                          static_cast<std::int64_t>(args.c_dtype),
                          args.bias != nullptr ? 1 : 0,
                          args.b_param >= 0 ? 1 : 0,
                          threads};
  if (const auto known = products_.find(key); known != products_.end()) return known->second;
  if (products_.size() >= products_limit) products_.clear();
  return products_.emplace(key, compile(args)).first->second;
}

OnednnContext::WeightKey OnednnContext::weight_key(const MatmulArgs& args) {
  return {args.b_param, args.transpose_b, args.k, args.n, args.ldb};
}

std::size_t OnednnContext::packed_bytes_of(const std::vector<MatmulArgs>& products, int threads) {
  std::map<WeightKey, std::vector<memory::desc>> counted;
  std::size_t total = 0;
  for (const MatmulArgs& args : products) {
    if (args.b_param < 0 || args.dtype != DType::bf16 || args.k == 0) continue;
    const Product& compiled = product(args, threads);
    const memory::desc wanted = compiled.b.get_desc();
    std::vector<memory::desc>& layouts = counted[weight_key(args)];
    if (!compiled.supported || std::find(layouts.begin(), layouts.end(), wanted) != layouts.end()) continue;
    if (total + wanted.get_size() > packed_bytes_limit) continue;
    layouts.push_back(wanted);
    total += wanted.get_size();
  }
  std::size_t pieces = 0;
  for (const auto& [key, layouts] : counted) pieces += layouts.size();
  if (!arena_) arena_bytes_ = std::max(arena_bytes_, total + pieces * piece_alignment);
  return total;
}

char* OnednnContext::take_place(std::size_t bytes) {
  if (const auto left = left_places_.find(bytes); left != left_places_.end()) {
    char* const place = left->second;
    left_places_.erase(left);
    packed_bytes_ -= bytes;
    return place;
  }
  if (!arena_ && arena_bytes_ > 0) {
    arena_ = host_memory(arena_bytes_);
    if (!arena_) arena_bytes_ = 0;
  }
  const std::size_t begin = (arena_used_ + piece_alignment - 1) / piece_alignment * piece_alignment;
  if (begin + bytes > arena_bytes_) return nullptr;
  arena_used_ = begin + bytes;
  return arena_.get() + begin;
}

bool OnednnContext::make_room(std::size_t bytes) {
  if (packed_bytes_ + bytes <= packed_bytes_limit || left_places_.contains(bytes)) return true;
  std::size_t count = 0;
  for (const auto& [key, list] : weights_) count += list.size();
  for (auto& [key, list] : weights_)
    std::erase_if(list, [&](const PackedWeight& weight) {
      const bool stale = weight.last_use + 4 * count < uses_;
      const std::size_t size = weight.packed.get_desc().get_size();
      if (stale && weight.place != nullptr)
        left_places_.emplace(size, weight.place);
      else if (stale)
        packed_bytes_ -= size;
      return stale;
    });
  std::erase_if(weights_, [](const auto& entry) { return entry.second.empty(); });
  return packed_bytes_ + bytes <= packed_bytes_limit || left_places_.contains(bytes);
}

memory OnednnContext::packed_weight(const MatmulArgs& args, const Product& product) {
  ++uses_;
  const WeightKey key = weight_key(args);
  const auto wanted = product.b.get_desc();
  auto known = weights_.find(key);
  PackedWeight* weight = nullptr;
  if (known != weights_.end())
    for (PackedWeight& candidate : known->second)
      if (candidate.packed.get_desc() == wanted) weight = &candidate;
  if (weight == nullptr) {
    if (!make_room(wanted.get_size())) return {};
    PackedWeight fresh;
    fresh.source = memory(weight_desc(args, false), engine_, nullptr);
    fresh.place = take_place(wanted.get_size());
    fresh.packed = fresh.place != nullptr ? memory(wanted, engine_, fresh.place) : memory(wanted, engine_);
    fresh.reorder = dnnl::reorder(fresh.source, fresh.packed);
    packed_bytes_ += wanted.get_size();
    auto& list = weights_[key];
    list.push_back(std::move(fresh));
    weight = &list.back();
  }
  weight->last_use = uses_;
  if (weight->version != args.b_version) {
    weight->source.set_data_handle(const_cast<void*>(args.b));
    weight->reorder.execute(stream_, weight->source, weight->packed);
    weight->version = args.b_version;
    ++packings_;
  }
  return weight->packed;
}

}  // namespace lockstep::kernels
