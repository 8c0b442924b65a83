// kind optimizer: recorded updates on given gradients, through the element rules of the update kernels, in double (to
// 1e-12 relative) and in float (to 2e-6 absolute), or through the kernels themselves, which compute in float. A trace
// with `shapes` has several parameters, one after the other.

#include <fmt/format.h>

#include <map>
#include <span>

#include "kernels/adagrad/adagrad_rule.hpp"
#include "kernels/adam/adam_rule.hpp"
#include "kernels/lamb/lamb_rule.hpp"
#include "kernels/lion/lion_rule.hpp"
#include "kernels/muon/muon_rule.hpp"
#include "kernels/sgd/sgd_rule.hpp"
#include "optim/optimizer.hpp"
#include "tests/golden/trace.hpp"
#include "tests/support/kernel_backends.hpp"

namespace lockstep::golden {
namespace {

using nlohmann::json;

using Kind = optim::OptimizerOptions::Kind;

/// The settings of a trace, with the defaults of what it was recorded from.
struct Settings {
  optim::OptimizerOptions options;
  GroupStep group;
};

Settings settings_of(const json& trace) {
  const std::string name = trace.at("optimizer").get<std::string>();
  static const std::map<std::string, Kind> kinds = {
      {"Adam", Kind::adam},       {"AdamW", Kind::adam}, {"SGD", Kind::sgd},  {"Lion", Kind::lion},
      {"Adagrad", Kind::adagrad}, {"Lamb", Kind::lamb},  {"Muon", Kind::muon}};
  const auto kind = kinds.find(name);
  if (kind == kinds.end()) throw std::runtime_error("unknown optimizer " + name);
  const json& params = trace.at("params");
  Settings s;
  s.options.kind = kind->second;
  s.options.decoupled = name == "AdamW";
  s.group.lr = params.value("lr", 1e-3);
  s.group.weight_decay = params.value("weight_decay", s.options.decoupled ? 0.01 : 0.0);
  s.group.momentum = params.value("momentum", 0.0);
  const json betas = params.value("betas", json{0.9, 0.999});
  s.group.beta1 = betas.at(0).get<double>();
  s.group.beta2 = betas.at(1).get<double>();
  s.options.eps = params.value("eps", name == "Adagrad" ? 1e-10 : 1e-8);
  s.options.bias_correction = params.value("bias_correction", true);
  s.options.momentum = s.group.momentum != 0;
  s.options.dampening = params.value("dampening", 0.0);
  s.options.nesterov = params.value("nesterov", false);
  s.options.min_coeff = params.value("min_coeff", 0.01);
  s.options.max_coeff = params.value("max_coeff", 10.0);
  s.options.ns_steps = params.value("ns_steps", 5);
  if (s.options.kind == Kind::muon) {
    s.group.momentum = params.value("momentum", 0.95);
    s.group.weight_decay = params.value("weight_decay", 0.1);
    s.options.nesterov = params.value("nesterov", true);
  }
  s.options.initial_accumulator = params.value("initial_accumulator_value", 0.0);
  return s;
}

/// What decide makes of the settings for an update, the first of which is 0.
void prepare(Settings& s, const json& rates, std::size_t step) {
  if (!rates.is_null()) s.group.lr = rates.at(step).get<double>();
  const auto t = static_cast<double>(step + 1);
  s.group.correction1 = s.options.bias_correction ? 1.0 - std::pow(s.group.beta1, t) : 1.0;
  s.group.correction2 = s.options.bias_correction ? 1.0 - std::pow(s.group.beta2, t) : 1.0;
  s.group.round();
}

template <class T>
void update_lamb(const Settings& s, std::span<T> p, std::span<T> m, std::span<T> v, std::span<const T> g) {
  const auto scalars = lamb_scalars<T>(s.group, 1.0, s.options.eps);
  double p2 = 0, u2 = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const auto u = static_cast<double>(lamb_moments(p[i], m[i], v[i], g[i], scalars));
    p2 += static_cast<double>(p[i]) * static_cast<double>(p[i]);
    u2 += u * u;
  }
  const auto step = static_cast<T>(lamb_step(p2, u2, s.group, s.options.min_coeff, s.options.max_coeff));
  for (std::size_t i = 0; i < p.size(); ++i) lamb_apply(p[i], m[i], v[i], step, scalars);
}

/// Of a matrix [rows, p.size() / rows] = [out, in], as torch has them.
template <class T>
void update_muon(const Settings& s, std::size_t rows, std::span<T> p, std::span<T> momentum, std::span<const T> g) {
  const std::size_t cols = p.size() / rows;
  const auto scalars = muon_scalars<T>(s.group, 1.0, s.options.nesterov);
  std::vector<T> x(p.size());
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    x[i] = muon_direction_element(momentum[i], g[i], scalars);
    sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  for (T& value : x) value = value / static_cast<T>(std::sqrt(sum));
  // x <- (a I + b A + c A A) x with A = x x^T, whatever the sides: the same as from the right with x^T x.
  for (int step = 0; step < s.options.ns_steps; ++step) {
    std::vector<T> gram(rows * rows), factor(rows * rows), y(p.size());
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t j = 0; j < rows; ++j)
        for (std::size_t k = 0; k < cols; ++k) gram[i * rows + j] += x[i * cols + k] * x[j * cols + k];
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t j = 0; j < rows; ++j) {
        T square = 0;
        for (std::size_t k = 0; k < rows; ++k) square += gram[i * rows + k] * gram[k * rows + j];
        factor[i * rows + j] = muon_polynomial_element(square, gram[i * rows + j], i == j, static_cast<T>(3.4445),
                                                       static_cast<T>(-4.7750), static_cast<T>(2.0315));
      }
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t j = 0; j < cols; ++j)
        for (std::size_t k = 0; k < rows; ++k) y[i * cols + j] += factor[i * rows + k] * x[k * cols + j];
    x = y;
  }
  const double ratio = std::sqrt(std::max(1.0, static_cast<double>(rows) / static_cast<double>(cols)));
  for (std::size_t i = 0; i < p.size(); ++i) muon_apply_element(p[i], x[i], static_cast<T>(ratio), scalars);
}

/// One update of one parameter by the rules of its elements; a matrix has `rows`.
template <class T>
void update_elements(const Settings& s, bool is_first, std::size_t rows, std::span<T> p, std::span<T> first,
                     std::span<T> second, std::span<const T> g) {
  const optim::OptimizerOptions& o = s.options;
  const auto adam = adam_scalars<T>(s.group, 1.0, o.eps, o.decoupled);
  const auto sgd = sgd_scalars<T>(s.group, 1.0, o.dampening, o.nesterov, is_first);
  const auto lion = lion_scalars<T>(s.group, 1.0);
  if (o.kind == Kind::muon) return update_muon(s, rows, p, first, g);
  if (o.kind == Kind::lamb) return update_lamb(s, p, first, second, g);
  const auto adagrad = adagrad_scalars<T>(s.group, 1.0, o.eps, o.initial_accumulator, is_first);
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (o.kind == Kind::adam) adam_element(p[i], first[i], second[i], g[i], adam);
    if (o.kind == Kind::sgd) sgd_element(p[i], first[i], g[i], sgd);
    if (o.kind == Kind::lion) lion_element(p[i], first[i], g[i], lion);
    if (o.kind == Kind::adagrad) adagrad_element(p[i], first[i], g[i], adagrad);
  }
}

/// Elements and rows of each parameter.
struct Size {
  std::size_t elements = 0;
  std::size_t rows = 0;
};

std::vector<Size> sizes_of(const json& trace) {
  if (!trace.contains("shapes")) return {{trace.at("param0").size(), 1}};
  std::vector<Size> sizes;
  for (const auto& shape : trace["shapes"].get<std::vector<std::vector<std::size_t>>>()) {
    std::size_t elements = 1;
    for (const std::size_t n : shape) elements *= n;
    sizes.push_back({elements, shape.front()});
  }
  return sizes;
}

/// `products`: whether there are matrix products on the way, which lose what cancels in them.
template <class T>
bool close(double expected, T actual, bool products) {
  const double difference = std::abs(expected - static_cast<double>(actual));
  if (products) return difference <= (sizeof(T) == 8 ? 1e-12 : 2e-5);
  return sizeof(T) == 8 ? difference <= 1e-12 * std::abs(expected) : difference <= 2e-6;
}

template <class T>
void compare(Mismatches& out, const char* key, const json& expected, std::size_t step, const std::vector<T>& p,
             bool products = false) {
  for (std::size_t i = 0; i < p.size(); ++i)
    if (!close(expected.at(i).get<double>(), p[i], products))
      out.push_back(fmt::format("{}, after {} steps, element {}: expected {}, got {}", key, step, i,
                                expected.at(i).get<double>(), p[i]));
}

template <class T>
Mismatches run(const json& trace, const char* key) {
  Mismatches out;
  Settings s = settings_of(trace);
  const auto param0 = trace.at("param0").get<std::vector<double>>();
  std::vector<T> p(param0.begin(), param0.end());
  std::vector<T> first(p.size()), second(p.size());  // m and v, or the momentum buffer
  const json& grads = trace.at("grads");
  const json rates = trace.value("lr_per_step", json());
  compare(out, key, trace.at(key).at(0), 0, p);
  for (std::size_t step = 0; step < grads.size(); ++step) {
    prepare(s, rates, step);
    const auto given = grads[step].get<std::vector<double>>();
    const std::vector<T> g(given.begin(), given.end());
    std::size_t at = 0;
    for (const auto& [size, rows] : sizes_of(trace)) {
      const auto part = [&, at, size = size](auto& values) { return std::span(values).subspan(at, size); };
      update_elements<T>(s, step == 0, rows, part(p), part(first), part(second), part(g));
      at += size;
    }
    compare(out, key, trace.at(key).at(step + 1), step + 1, p, s.options.kind == Kind::muon);
  }
  if (trace.at(key).size() != grads.size() + 1)
    out.push_back(fmt::format("{} has {} states for {} gradients", key, trace[key].size(), grads.size()));
  return out;
}

/// Matrices one after the other, from [out, in] to [in, out], or `back`. `shapes` are those of [in, out].
std::vector<float> transposed(const std::vector<float>& from, const std::vector<optim::Tensor>& shapes, bool back) {
  std::vector<float> to(from.size());
  std::size_t at = 0;
  for (const optim::Tensor& shape : shapes) {
    const auto in = static_cast<std::size_t>(shape.rows), out = static_cast<std::size_t>(shape.cols);
    for (std::size_t i = 0; i < in; ++i)
      for (std::size_t o = 0; o < out; ++o)
        (back ? to[at + o * in + i] : to[at + i * out + o]) = back ? from[at + i * out + o] : from[at + o * in + i];
    at += in * out;
  }
  return to;
}

Mismatches run_kernels(const json& trace, const char* key, const testing::Session& session) {
  using testing::Array;
  Mismatches out;
  Settings s = settings_of(trace);
  std::vector<Tile> tile_list;
  std::size_t elements = 0;
  std::vector<optim::Tensor> shapes;
  for (const auto& [size, rows] : sizes_of(trace)) {
    const auto tile = static_cast<std::uint32_t>(tile_list.size());
    shapes.push_back({{tile, 1}, static_cast<std::int64_t>(size / rows), static_cast<std::int64_t>(rows)});
    tile_list.push_back(unsharded_tile(elements, static_cast<std::uint32_t>(size), 0));
    elements += size;
  }
  const auto optimizer = optim::make_optimizer(s.options, shapes);
  const bool products = s.options.kind == Kind::muon;
  // Our matrices are [in, out].
  const auto ours = [&](const json& values) {
    auto result = values.get<std::vector<float>>();
    if (products) result = transposed(result, shapes, false);
    return result;
  };
  const std::vector<float> param0 = ours(trace.at("param0"));
  const Array<float> master(session, param0);
  std::vector<std::unique_ptr<Array<float>>> moments;
  std::vector<float*> moment_pointers;
  for (std::size_t i = 0; i < optimizer->moments().size(); ++i) {
    moments.push_back(std::make_unique<Array<float>>(session, std::vector<float>(param0.size())));
    moment_pointers.push_back(moments.back()->data());
  }
  const Array<Tile> tiles(session, tile_list);
  std::vector<TileRun> tensor_list;
  for (std::uint32_t t = 0; t < tile_list.size(); ++t) tensor_list.push_back({t, 1});
  const Array<TileRun> tensors(session, tensor_list);
  const Array<std::byte> scratch(session, optimizer->scratch_bytes(tile_list.size()));
  const json& grads = trace.at("grads");
  const json rates = trace.value("lr_per_step", json());
  for (std::size_t step = 0; step < grads.size(); ++step) {
    prepare(s, rates, step);
    const Array<GroupStep> groups(session, {s.group});
    // decide has counted this update already.
    const auto taken = static_cast<std::int64_t>(step) + 1;
    const Array<StepState> state(session, {StepState{.applied = taken, .attempted = taken}});
    const Array<float> grad(session, ours(grads[step]));
    optimizer->update(session.exec(),
                      {.master = master.data(),
                       .grad = {.source = {grad.data()}, .count = 1, .dtype = DType::f32},
                       .tiles = tiles.data(),
                       .tile_count = static_cast<std::uint32_t>(tile_list.size()),
                       .tensors = tensors.data(),
                       .tensor_count = static_cast<std::uint32_t>(tensor_list.size()),
                       .scratch = scratch.data(),
                       .groups = groups.data(),
                       .state = state.data()},
                      moment_pointers);
    compare(out, key, trace.at(key).at(step + 1), step + 1,
            products ? transposed(master.host(), shapes, true) : master.host(), products);
  }
  return out;
}

}  // namespace

Mismatches check_optimizer(const json& trace, const testing::Session* session) {
  if (session != nullptr) return run_kernels(trace, "float32", *session);
  Mismatches out = run<double>(trace, "float64");
  for (std::string& mismatch : run<float>(trace, "float32")) out.push_back(std::move(mismatch));
  return out;
}

}  // namespace lockstep::golden
