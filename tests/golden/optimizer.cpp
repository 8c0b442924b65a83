// kind optimizer: torch's Adam, AdamW and SGD on given gradients, through the element rules of the update kernels, in
// double (to 1e-12 relative) and in float (to 2e-6 absolute), or through the kernels themselves, which compute in
// float.

#include <fmt/format.h>

#include "kernels/adam/adam_rule.hpp"
#include "kernels/sgd/sgd_rule.hpp"
#include "optim/optimizer.hpp"
#include "tests/golden/trace.hpp"
#include "tests/support/kernel_backends.hpp"

namespace lockstep::golden {
namespace {

using nlohmann::json;

/// The settings of a trace, with torch's defaults.
struct Settings {
  bool adam = true;
  bool decoupled = true;
  GroupStep group;
  double eps = 1e-8;
  double dampening = 0;
  bool nesterov = false;
};

Settings settings_of(const json& trace) {
  const std::string name = trace.at("optimizer").get<std::string>();
  if (name != "Adam" && name != "AdamW" && name != "SGD") throw std::runtime_error("unknown optimizer " + name);
  const json& params = trace.at("params");
  Settings s;
  s.adam = name != "SGD";
  s.decoupled = name == "AdamW";
  s.group.lr = params.value("lr", 1e-3);
  s.group.weight_decay = params.value("weight_decay", s.decoupled ? 0.01 : 0.0);
  s.group.momentum = params.value("momentum", 0.0);
  const json betas = params.value("betas", json{0.9, 0.999});
  s.group.beta1 = betas.at(0).get<double>();
  s.group.beta2 = betas.at(1).get<double>();
  s.eps = params.value("eps", 1e-8);
  s.dampening = params.value("dampening", 0.0);
  s.nesterov = params.value("nesterov", false);
  return s;
}

template <class T>
bool close(double expected, T actual) {
  const double difference = std::abs(expected - static_cast<double>(actual));
  return sizeof(T) == 8 ? difference <= 1e-12 * std::abs(expected) : difference <= 2e-6;
}

template <class T>
void compare(Mismatches& out, const char* key, const json& expected, std::size_t step, const std::vector<T>& p) {
  for (std::size_t i = 0; i < p.size(); ++i)
    if (!close(expected.at(i).get<double>(), p[i]))
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
    if (!rates.is_null()) s.group.lr = rates.at(step).get<double>();
    const auto t = static_cast<double>(step + 1);
    s.group.correction1 = 1.0 - std::pow(s.group.beta1, t);
    s.group.correction2 = 1.0 - std::pow(s.group.beta2, t);
    s.group.round();
    const AdamScalars<T> adam = adam_scalars<T>(s.group, 1.0, s.eps, s.decoupled);
    const SgdScalars<T> sgd = sgd_scalars<T>(s.group, 1.0, s.dampening, s.nesterov, step == 0);
    for (std::size_t i = 0; i < p.size(); ++i) {
      const T g = static_cast<T>(grads[step].at(i).get<double>());
      if (s.adam)
        adam_element(p[i], first[i], second[i], g, adam);
      else
        sgd_element(p[i], first[i], g, sgd);
    }
    compare(out, key, trace.at(key).at(step + 1), step + 1, p);
  }
  if (trace.at(key).size() != grads.size() + 1)
    out.push_back(fmt::format("{} has {} states for {} gradients", key, trace[key].size(), grads.size()));
  return out;
}

Mismatches run_kernels(const json& trace, const char* key, const testing::Session& session) {
  using testing::Array;
  Mismatches out;
  Settings s = settings_of(trace);
  const auto optimizer = optim::make_optimizer(
      s.adam
          ? optim::OptimizerOptions{.kind = optim::OptimizerOptions::Kind::adam, .eps = s.eps, .decoupled = s.decoupled}
          : optim::OptimizerOptions{.kind = optim::OptimizerOptions::Kind::sgd,
                                    .momentum = s.group.momentum != 0,
                                    .dampening = s.dampening,
                                    .nesterov = s.nesterov});
  const auto param0 = trace.at("param0").get<std::vector<float>>();
  const Array<float> master(session, param0);
  std::vector<std::unique_ptr<Array<float>>> moments;
  std::vector<float*> moment_pointers;
  for (std::size_t i = 0; i < optimizer->moments().size(); ++i) {
    moments.push_back(std::make_unique<Array<float>>(session, std::vector<float>(param0.size())));
    moment_pointers.push_back(moments.back()->data());
  }
  const Array<Tile> tiles(session, {unsharded_tile(0, static_cast<std::uint32_t>(param0.size()), 0)});
  const json& grads = trace.at("grads");
  const json rates = trace.value("lr_per_step", json());
  for (std::size_t step = 0; step < grads.size(); ++step) {
    if (!rates.is_null()) s.group.lr = rates.at(step).get<double>();
    const auto t = static_cast<double>(step + 1);
    s.group.correction1 = 1.0 - std::pow(s.group.beta1, t);
    s.group.correction2 = 1.0 - std::pow(s.group.beta2, t);
    s.group.round();
    const Array<GroupStep> groups(session, {s.group});
    // decide has counted this update already.
    const auto taken = static_cast<std::int64_t>(step) + 1;
    const Array<StepState> state(session, {StepState{.applied = taken, .attempted = taken}});
    const Array<float> grad(session, grads[step].get<std::vector<float>>());
    optimizer->update(session.exec(),
                      {.master = master.data(),
                       .grad = {.source = {grad.data()}, .count = 1, .dtype = DType::f32},
                       .tiles = tiles.data(),
                       .tile_count = 1,
                       .groups = groups.data(),
                       .state = state.data()},
                      moment_pointers);
    compare(out, key, trace.at(key).at(step + 1), step + 1, master.host());
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
