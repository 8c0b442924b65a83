// torch_traces.json holds what torch's own schedulers used, update by update; torch_traces.py records it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
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
  if (value.is_object()) {
    ParamValue::Block block;
    for (const auto& [name, entry] : value.items()) block.emplace_back(name, to_param(entry));
    return block;
  }
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
  return make_schedule(trace.value("scheduler", "ReduceLROnPlateau"), params, groups);
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

double metric_of(const json& value) {
  return value.is_string() ? std::stod(value.get<std::string>()) : value.get<double>();
}

/// The worst difference after each metric of a plateau's trace; the counters are torch's too.
double worst_plateau_difference(const json& trace) {
  const auto schedule = schedule_of(trace);
  MetricState state = schedule->metric_state().value();
  std::vector<StepValues> values(schedule->groups());
  double worst = 0;
  for (std::size_t i = 0; i < trace.at("metric").size(); ++i) {
    const auto update = static_cast<std::int64_t>(10 * (i + 1));
    schedule->observe(update, metric_of(trace["metric"][i]), state);
    schedule->values_at(update, values);
    schedule->follow(update, state, values);
    for (std::size_t g = 0; g < values.size(); ++g) {
      const double of_lr = difference(trace["lr"][i].at(g).get<double>(), values[g].lr, 1);
      worst = std::max(worst, of_lr);
      EXPECT_LE(of_lr, 1e-12) << trace["params"] << " metric " << i << ", group " << g << ": lr " << values[g].lr
                              << " for torch's " << trace["lr"][i].at(g);
      EXPECT_EQ(values[g].beta1, schedule->initial()[g].beta1);
      EXPECT_EQ(values[g].momentum, schedule->initial()[g].momentum);
    }
  }
  EXPECT_EQ(state.best, trace.at("best").get<double>());
  EXPECT_EQ(state.bad, trace.at("bad").get<std::int64_t>());
  EXPECT_EQ(state.cooldown, trace.at("cooldown").get<std::int64_t>());
  EXPECT_EQ(state.seen, static_cast<std::int64_t>(trace["metric"].size()));
  return worst;
}

/// "torch 2.15.0"
std::string oracle() {
  const std::string version = recorded().at("torch");
  return "torch " + version.substr(0, version.find('+'));
}

/// Of the table in docs/schedulers.md: by type, the cases and the worst difference.
std::string table_of(const std::map<std::string, std::pair<int, double>>& rows) {
  std::string text;
  for (const std::string& type : types())
    if (const auto row = rows.find(type); row != rows.end())
      text += fmt::format("| `{}` | {} | {} | {} |\n", type, oracle(), row->second.first,
                          row->second.second == 0 ? "0" : fmt::format("{:.1e}", row->second.second));
  return text;
}

TEST(TorchTraces, EveryUpdateUsesWhatTorchUses) {
  std::map<std::string, std::pair<int, double>> rows;  // cases, worst difference
  const auto add = [&rows](const std::string& type, double worst) {
    auto& [cases, so_far] = rows[type];
    ++cases;
    so_far = std::max(so_far, worst);
  };

  for (const json& trace : recorded().at("traces")) add(trace.at("scheduler"), worst_difference(trace));
  for (const json& trace : recorded().at("plateau")) add("ReduceLROnPlateau", worst_plateau_difference(trace));

  // The page's table is what this very test finds. Its last digits hang on the machine's libm.
  const std::string page = testing::text_of(source_dir() + "/docs/schedulers.md");
  for (const auto& [type, row] : rows) {
    const std::string begin = fmt::format("| `{}` | {} | {} | ", type, oracle(), row.first);
    const std::size_t at = page.find(begin);
    ASSERT_NE(at, std::string::npos) << "docs/schedulers.md needs this table:\n" << table_of(rows);
    EXPECT_LE(row.second, 2 * std::stod(page.substr(at + begin.size()))) << "docs/schedulers.md needs this table:\n"
                                                                         << table_of(rows);
  }
}

// golden_test holds DeepSpeed's five against these files, bit for bit.
TEST(DeepSpeedTraces, AreCountedInTheTableOfThePage) {
  const std::string page = testing::text_of(source_dir() + "/docs/schedulers.md");
  std::map<std::string, int> cases;
  for (const auto& entry : std::filesystem::directory_iterator(source_dir() + "/tests/goldens")) {
    const json golden = json::parse(testing::text_of(entry.path().string()));
    if (golden.value("kind", "") == "lr_schedule") ++cases[golden.at("scheduler").get<std::string>()];
  }
  ASSERT_EQ(cases.size(), 5U);
  for (const auto& [type, count] : cases)
    EXPECT_NE(page.find(fmt::format("| `{}` | DeepSpeed 0.19.6 | {} | 0, every bit |", type, count)), std::string::npos)
        << type << " has " << count;
}

TEST(TorchTraces, EveryTypeOfTorchHasSome) {
  std::map<std::string, int> counted;
  for (const json& trace : recorded().at("traces")) ++counted[trace.at("scheduler").get<std::string>()];
  counted["ReduceLROnPlateau"] = static_cast<int>(recorded().at("plateau").size());

  int of_torch = 0;
  for (const std::string& type : types()) {
    if (!doc_of(type).starts_with("torch's")) continue;
    ++of_torch;
    EXPECT_GE(counted[type], 3) << type;
  }
  EXPECT_EQ(of_torch, 12);
}

}  // namespace
}  // namespace lockstep::sched
