// torch_traces.json holds what torch's own schedulers used, update by update; torch_traces.py records it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/sched/cases.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/source_dir.hpp"

namespace lockstep::sched {
namespace {

using nlohmann::json;

const json& recorded() {
  static const json file = json::parse(testing::text_of(source_dir() + "/tests/sched/torch_traces.json"));
  return file;
}

ParamValue to_param(const json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return value.get<std::string>();
  ParamValue::List list;
  for (const json& entry : value) list.push_back(to_param(entry));
  return list;
}

std::unique_ptr<Schedule> schedule_of(const json& trace) {
  Params params;
  for (const auto& [name, value] : trace.at("params").items()) params.set(name, to_param(value));
  std::vector<GroupInitial> groups;
  for (const json& entry : trace.at("optimizer").at("groups")) {
    GroupInitial group;
    group.lr = entry.at("lr").get<double>();
    group.has_betas = entry.contains("betas");
    if (group.has_betas) {
      group.beta1 = entry["betas"].at(0).get<double>();
      group.beta2 = entry["betas"].at(1).get<double>();
    } else {
      group.momentum = entry.at("momentum").get<double>();
    }
    groups.push_back(group);
  }
  return make_schedule(trace.at("scheduler").get<std::string>(), params, groups);
}

/// The difference as a part of the value. LinearLR's recurrence in torch ends at a few 1e-17 of its start where 0 is
/// meant: what is below 1e-15 of the trace's largest rate in both is 0.
double difference(double expected, double actual, double largest) {
  const double size = std::max(std::abs(expected), std::abs(actual));
  return size <= 1e-15 * largest ? 0.0 : std::abs(expected - actual) / size;
}

/// The worst difference over all updates and groups of a trace. What torch's scheduler leaves alone must be untouched.
double worst_difference(const json& trace) {
  const auto schedule = schedule_of(trace);
  double largest = 0;
  for (const json& row : trace.at("lr"))
    for (const json& lr : row) largest = std::max(largest, lr.get<double>());
  double worst = 0;
  std::vector<StepValues> values(schedule->groups());
  for (std::size_t i = 0; i < trace.at("update").size(); ++i) {
    schedule->values_at(trace["update"][i].get<std::int64_t>(), values);
    for (std::size_t g = 0; g < values.size(); ++g) {
      const GroupInitial& initial = schedule->initial()[g];
      const double momentum = initial.has_betas ? values[g].beta1 : values[g].momentum;
      const double of_lr = difference(trace["lr"][i].at(g).get<double>(), values[g].lr, largest);
      const double of_momentum = difference(trace["momentum"][i].at(g).get<double>(), momentum, 1);
      worst = std::max({worst, of_lr, of_momentum});
      EXPECT_LE(std::max(of_lr, of_momentum), 1e-12)
          << trace["scheduler"] << trace["params"] << " update " << trace["update"][i] << ", group " << g << ": lr "
          << values[g].lr << " for torch's " << trace["lr"][i].at(g) << ", momentum " << momentum << " for "
          << trace["momentum"][i].at(g);
      EXPECT_EQ(values[g].beta2, initial.beta2);
      EXPECT_EQ(initial.has_betas ? values[g].momentum : values[g].beta1, 0.0);
    }
  }
  return worst;
}

TEST(TorchTraces, EveryUpdateUsesWhatTorchUses) {
  std::map<std::string, double> worst;
  ASSERT_GE(recorded().at("traces").size(), 40U);

  for (const json& trace : recorded()["traces"]) {
    double& so_far = worst[trace.at("scheduler").get<std::string>()];
    so_far = std::max(so_far, worst_difference(trace));
  }

  for (const auto& [type, value] : worst) RecordProperty(type, fmt::format("{:.1e}", value));
}

TEST(TorchTraces, EveryTypeOfTorchHasSome) {
  std::map<std::string, int> counted;
  for (const json& trace : recorded().at("traces")) ++counted[trace.at("scheduler").get<std::string>()];

  int of_torch = 0;
  for (const std::string& type : types()) {
    if (!doc_of(type).starts_with("torch's: ")) continue;
    ++of_torch;
    EXPECT_GE(counted[type], 3) << type;
  }
  EXPECT_EQ(of_torch, 10);
}

}  // namespace
}  // namespace lockstep::sched
