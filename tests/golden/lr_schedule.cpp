// kind lr_schedule: a DeepSpeed scheduler object driven by a list of calls; every value written or answered must be
// the same double.

#include "core/error.hpp"
#include "tests/golden/trace.hpp"
#include "tests/support/scheduler.hpp"

namespace lockstep::golden {
namespace {

using nlohmann::json;

struct Replay {
  const json& trace;
  sched::Scheduler scheduler;
  bool betas = true;
  Mismatches mismatches = {};

  void compare_state(std::size_t i) {
    const std::string at = fmt::format("after action {}: ", i);
    std::vector<double> lr;
    for (const auto& group : scheduler.groups()) lr.push_back(group.lr);
    expect_equal(mismatches, at + "lr", trace.at("lr").at(i), lr);
    if (trace.contains("last_batch_iteration")) {
      const json& index = trace["last_batch_iteration"].at(i);
      if (index != scheduler.state())
        mismatches.push_back(at + fmt::format("index: expected {}, got {}", index.dump(), scheduler.state()));
    }
    compare_momentum(at, i);
  }

  // Traces hold the momentum only where it changes; otherwise it must stay what the optimizer had.
  void compare_momentum(const std::string& at, std::size_t i) {
    const auto& groups = scheduler.groups();
    const std::string key = betas ? "betas" : "momentum";
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const json& initial = trace.at("optimizer_initial").at("groups").at(g);
      if (!trace.contains(key) && !initial.contains(key)) continue;
      const json& expected = trace.contains(key) ? trace[key].at(i).at(g) : initial[key];
      const std::string what = fmt::format("{}{}, group {}", at, key, g);
      if (betas)
        expect_equal(mismatches, what, expected, std::vector<double>{groups[g].beta1, groups[g].beta2});
      else
        expect_equal(mismatches, what, expected, groups[g].momentum);
    }
  }

  // The answer of one action, null for those that answer nothing. Throws where the scheduler refuses.
  json act(const json& action) {
    const std::string name = action.is_array() ? action.at(0).get<std::string>() : action.get<std::string>();
    if (name == "step" && action.is_array()) return scheduler.step(action.at(1).get<std::int64_t>()), nullptr;
    if (name == "step") return scheduler.step(), nullptr;
    if (name == "load") return scheduler.load(action.at(1).get<std::int64_t>()), nullptr;
    if (name == "rebuild") return scheduler.rebuild(to_params(action.at(1))), nullptr;
    if (name == "get_lr") return scheduler.get_lr();
    if (name == "get_last_lr") return scheduler.last_lr();
    if (name == "state_dict") return {{"last_batch_iteration", scheduler.state()}};
    throw std::runtime_error("unknown action " + action.dump());
  }

  // `expected` is null (nothing recorded, or nothing to answer), a value, or {error: ...}.
  void compare_result(std::size_t i, const json& action, const json& expected) {
    const bool refusal = expected.is_object() && expected.contains("error");
    const std::string what = fmt::format("action {} {}", i, action.dump());
    json actual;
    try {
      actual = act(action);
    } catch (const Error& error) {
      if (!refusal) mismatches.push_back(what + ": refused: " + error.what());
      return;
    }
    if (refusal) {
      mismatches.push_back(what + ": DeepSpeed refuses, we do not");
    } else if (expected.is_array()) {
      expect_equal(mismatches, what, expected, actual.get<std::vector<double>>());
    } else if (!expected.is_null() && expected != actual) {
      mismatches.push_back(fmt::format("{}: expected {}, got {}", what, expected.dump(), actual.dump()));
    }
  }

  void compare_construction() {
    if (!trace.contains("at_construction")) return;
    const json& expected = trace["at_construction"];
    try {
      const auto& lr = scheduler.last_lr();
      if (expected.at("get_last_lr").is_object())
        mismatches.push_back("at construction: get_last_lr answers, DeepSpeed's refuses");
      else
        expect_equal(mismatches, "at construction: get_last_lr", expected["get_last_lr"], lr);
    } catch (const Error& error) {
      if (!expected["get_last_lr"].is_object())
        mismatches.push_back(std::string("at construction: get_last_lr: ") + error.what());
    }
    const bool told = !scheduler.schedule().warnings().empty() || !scheduler.schedule().notes().empty();
    if (expected.value("warnings", 0) > 0 && !told)
      mismatches.push_back("at construction: DeepSpeed warns, we say nothing");
  }
};

}  // namespace

Mismatches check_lr_schedule(const json& trace) {
  const json error = trace.value("error", json());
  const std::string phase = error.is_object() ? error.at("phase").get<std::string>() : "";
  const std::vector<sched::GroupInitial> groups = to_groups(trace.at("optimizer_initial"));
  std::optional<Replay> replay;
  try {
    replay.emplace(Replay{trace,
                          {trace.at("scheduler").get<std::string>(), to_params(trace.at("params")), groups},
                          groups.at(0).has_betas});
  } catch (const Error& refusal) {
    if (!phase.empty()) return {};
    return {std::string("refused at construction: ") + refusal.what()};
  }
  if (phase == "construct") return {"DeepSpeed refuses the construction, we do not"};

  replay->compare_construction();
  replay->compare_state(0);
  json actions = trace.value("actions", json());
  if (actions.is_null()) actions = json(trace.at("steps").get<std::size_t>(), "step");
  const json results = trace.value("results", json(actions.size(), nullptr));
  const std::size_t failing = phase == "action" ? error.at("index").get<std::size_t>() : actions.size();
  for (std::size_t i = 0; i < std::min(failing + 1, actions.size()); ++i) {
    if (i == failing) {
      replay->compare_result(i, actions[i],
                             error.contains("type") ? json{{"error", error["type"]}} : json{{"error", ""}});
      break;
    }
    replay->compare_result(i, actions[i], results.at(i));
    replay->compare_state(i + 1);
  }
  return replay->mismatches;
}

}  // namespace lockstep::golden
