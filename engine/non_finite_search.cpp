#include "engine/non_finite_search.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/text.hpp"

namespace lockstep::engine {
namespace {

constexpr std::int64_t piece_elements = std::int64_t{1} << 18;

double number_at(const std::byte* data, DType dtype, std::int64_t i) {
  const auto index = static_cast<std::size_t>(i);
  switch (dtype) {
    case DType::bf16:
      return static_cast<float>(reinterpret_cast<const bf16*>(data)[index]);
    case DType::f16:
      return static_cast<float>(reinterpret_cast<const f16*>(data)[index]);
    default:
      return reinterpret_cast<const float*>(data)[index];
  }
}

/// "transformer.h.0.attn.c_attn" of its weight and of its bias.
std::string layer_of(const nn::Model& model, int param) {
  const std::string& name = model.parameters()[static_cast<std::size_t>(param)].name;
  return name.substr(0, name.rfind('.'));
}

}  // namespace

NonFiniteSearch::NonFiniteSearch(DeviceApi& device, StreamRef stream, const nn::Model& model, const nn::Plan& plan,
                                 DType compute)
    : device_(device),
      stream_(stream),
      model_(model),
      plan_(plan),
      compute_(compute),
      looked_at_(model.parameters().size()),
      layer_(plan.ops.size(), -1),
      uses_layer_(plan.ops.size()) {}

NonFiniteSearch::Scan NonFiniteSearch::scan(const void* data, DType dtype, std::int64_t count) {
  Scan seen;
  const std::size_t width = size_of(dtype);
  piece_.resize(static_cast<std::size_t>(std::min(count, piece_elements)) * width);
  for (std::int64_t begin = 0; begin < count; begin += piece_elements) {
    const std::int64_t n = std::min(piece_elements, count - begin);
    device_.copy(piece_.data(), static_cast<const std::byte*>(data) + static_cast<std::size_t>(begin) * width,
                 static_cast<std::size_t>(n) * width, stream_);
    device_.synchronize(stream_);
    for (std::int64_t i = 0; i < n; ++i) {
      const double value = number_at(piece_.data(), dtype, i);
      if (!std::isfinite(value)) {
        if (seen.bad++ == 0) seen = {.first = begin + i, .bad = 1, .value = value};
      } else if (std::abs(value) > seen.largest) {
        seen.largest = std::abs(value);
        seen.largest_at = begin + i;
      }
    }
  }
  return seen;
}

void NonFiniteSearch::begin_micro_batch(int micro, const data::HostBatch& batch) {
  end();
  micro_ = micro;
  first_sample_ = batch.position;
  batch_ = {batch.batch, batch.length};
  looked_at_.assign(looked_at_.size(), false);
  last_gradient_ = {};
  op_ = -1;
  order_ = 0;
  phase_ = nn::Phase::forward;
  for (const std::vector<float>* numbers : {&batch.features, &batch.values}) {
    const auto is_bad = [](float value) { return !std::isfinite(value); };
    const auto first = std::ranges::find_if(*numbers, is_bad);
    if (done() || first == numbers->end()) continue;
    const auto per_sample = static_cast<std::int64_t>(numbers->size()) / batch.batch;
    const std::int64_t index = first - numbers->begin();
    met({.what = NonFinite::What::sample,
         .first = index % per_sample,
         .bad = std::ranges::count_if(*numbers, is_bad),
         .elements = static_cast<std::int64_t>(numbers->size()),
         .value = *first,
         .row = index / per_sample,
         .sample = first_sample_ + index / per_sample},
        4);
  }
}

void NonFiniteSearch::end() { closed_ = closed_ || found_.what != NonFinite::What::nothing; }

void NonFiniteSearch::begin(int op, nn::Phase phase) {
  end();
  op_ = op;
  phase_ = phase;
  ++order_;
  int& layer = layer_[static_cast<std::size_t>(op)];
  if (phase == nn::Phase::forward && layer < 0) layer = last_used_;
}

void NonFiniteSearch::met(NonFinite finding, int weight) {
  if (done() || weight <= weight_) return;
  weight_ = weight;
  finding.micro = micro_;
  finding.op = op_;
  finding.backward = phase_ == nn::Phase::backward ? 1 : 0;
  finding.order = order_;
  if (op_ >= 0) {
    finding.layer = layer_[static_cast<std::size_t>(op_)];
    finding.uses_layer = uses_layer_[static_cast<std::size_t>(op_)] ? 1 : 0;
  }
  found_ = finding;
}

void NonFiniteSearch::place(NonFinite& finding, const nn::Shape& shape, std::int64_t at) const {
  // Only what is laid out by sample: not means and deviations by row, whose first dimension may be as large by chance.
  if (shape.rank < 2 || shape.dim[0] != batch_.batch) return;
  const bool by_sample = shape.rank > 2 || op_ < 0 || phase_ == nn::Phase::backward ||
                         shape == plan_.ops[static_cast<std::size_t>(op_)].out;
  if (!by_sample) return;
  finding.row = at / (shape.elements() / shape.dim[0]);
  finding.sample = first_sample_ + finding.row;
  if (batch_.length > 1 && shape.rank == 3 && shape.dim[1] == batch_.length)
    finding.position = at / shape.dim[2] % shape.dim[1];
}

void NonFiniteSearch::value(nn::ParamId id, const void* data) {
  if (const auto op = static_cast<std::size_t>(op_); op_ >= 0 && !uses_layer_[op]) {
    layer_[op] = id;
    uses_layer_[op] = true;
  }
  if (phase_ == nn::Phase::forward) last_used_ = id;
  const auto index = static_cast<std::size_t>(id);
  if (done() || looked_at_[index]) return;
  looked_at_[index] = true;
  const std::int64_t count = model_.parameters()[index].stored_elements();
  if (const Scan seen = scan(data, compute_, count); seen.bad > 0)
    met({.what = NonFinite::What::parameter,
         .param = id,
         .first = seen.first,
         .bad = seen.bad,
         .elements = count,
         .value = seen.value},
        4);
}

void NonFiniteSearch::result(const nn::Tensor& tensor) {
  const DType dtype = tensor.dtype();
  if (done() || (dtype != DType::f32 && dtype != DType::bf16 && dtype != DType::f16)) return;
  const Scan seen = scan(tensor.data(), dtype, tensor.shape().elements());
  if (seen.bad == 0) return;
  NonFinite finding{.what = NonFinite::What::result,
                    .first = seen.first,
                    .bad = seen.bad,
                    .elements = tensor.shape().elements(),
                    .value = seen.value};
  place(finding, tensor.shape(), seen.first);
  met(finding, finding.row >= 0 ? 3 : 2);
}

void NonFiniteSearch::gradient(const nn::TensorRef& of, const nn::Tensor& gradient) {
  if (done()) return;
  const std::int64_t count = of.shape.elements();
  const Scan seen = scan(gradient.data(), gradient.dtype(), count);
  if (seen.bad == 0) {
    last_gradient_ = {.largest = seen.largest};
    if (seen.largest_at >= 0) place(last_gradient_, of.shape, seen.largest_at);
    return;
  }
  NonFinite finding{
      .what = NonFinite::What::gradient, .first = seen.first, .bad = seen.bad, .elements = count, .value = seen.value};
  place(finding, of.shape, seen.first);
  met(finding, 3);
}

void NonFiniteSearch::gradient(nn::ParamId id, const float* data) {
  if (done()) return;
  const std::int64_t count = model_.parameters()[static_cast<std::size_t>(id)].stored_elements();
  const Scan seen = scan(data, DType::f32, count);
  if (seen.bad == 0) return;
  NonFinite finding = last_gradient_;
  finding.what = NonFinite::What::parameter_gradient;
  finding.param = id;
  finding.first = seen.first;
  finding.bad = seen.bad;
  finding.elements = count;
  finding.value = seen.value;
  met(finding, 1);
}

std::optional<std::int64_t> NonFiniteSearch::look_at_sum(const float* data, std::int64_t count) {
  const Scan seen = scan(data, DType::f32, count);
  if (seen.bad == 0) return std::nullopt;
  found_ = {.what = NonFinite::What::sum, .first = seen.first, .bad = seen.bad, .elements = count, .value = seen.value};
  return seen.first;
}

std::string to_text(const NonFinite& found, const nn::Model& model, const nn::Plan& plan, int world,
                    std::int64_t micro_batches, const std::string& sample_name) {
  using What = NonFinite::What;
  const std::string again = "Run again operation by operation, with the same parameters, samples and loss scale: ";
  const std::string everywhere = world == 1 ? "" : fmt::format(" on all {} ranks", world);
  if (found.what == What::nothing)
    return again + fmt::format(
                       "everything is finite{}. So it does not come from the numbers of this step: a fault of "
                       "memory or of a core, or one that was made on purpose (LOCKSTEP_FAULT), is likely. The "
                       "same command goes on from the newest checkpoint",
                       everywhere);
  const auto name = [&](std::int32_t param) { return model.parameters()[static_cast<std::size_t>(param)].name; };
  const std::string how_many =
      fmt::format("{} of {} {} not finite, the first is {}", found.bad, counted(found.elements, "element"),
                  found.bad == 1 ? "is" : "are", std::isnan(found.value) ? "nan" : fmt::format("{}", found.value));
  if (found.what == What::sum)
    return again + fmt::format(
                       "the gradient of each rank is finite, their sum over the {} ranks is not, from {}[{}] "
                       "on: it overflows. prescale_gradients: true divides before the sum",
                       world, name(found.param), found.first);
  std::string text = again;
  if (found.what == What::parameter)
    text += fmt::format(
        "parameter {} is read with numbers that are not finite: {}[{}], {}. An update before this step, "
        "or what it was loaded from, did that",
        name(found.param), name(found.param), found.first, how_many);
  else if (found.what == What::sample)
    text += fmt::format("a sample itself has number {} of its features or values that is not finite: {}", found.first,
                        how_many);
  else {
    const auto op = static_cast<std::size_t>(found.op);
    std::string where = fmt::format("{} (operation {} of {}", plan.ops[op].name, op + 1, plan.ops.size());
    if (found.layer >= 0)
      where += fmt::format(", {}{}", found.uses_layer != 0 ? "" : "behind ", layer_of(model, found.layer));
    where += ")";
    text += found.what == What::result ? fmt::format("the first result that is not finite is that of {}", where)
            : found.what == What::gradient
                ? fmt::format(
                      "forward is finite; the first gradient that is not finite is the one that {} gives back to its "
                      "gradient of its input",
                      where)
                : fmt::format("forward is finite; the first gradient that is not finite is that of {} in {}",
                              name(found.param), where);
    text += ": " + how_many;
  }
  text += fmt::format(".\n  That is on rank {} of {}", found.rank, world);
  if (found.what != What::parameter) text += fmt::format(", micro-batch {} of {}", found.micro + 1, micro_batches);
  if (found.row >= 0) {
    const std::string sample = fmt::format("row {} of it{}: sample {} of the training sequence{}", found.row,
                                           found.position >= 0 ? fmt::format(", position {}", found.position) : "",
                                           found.sample, sample_name.empty() ? "" : ", " + sample_name);
    text += found.what == What::parameter_gradient
                ? fmt::format(". All samples add to it; the largest number before it, {:.3g}, is in {}", found.largest,
                              sample)
                : ", " + sample;
  }
  return text;
}

}  // namespace lockstep::engine
