#include "tests/golden/checker.hpp"

#include <algorithm>
#include <fstream>
#include <map>

#include "core/error.hpp"
#include "tests/golden/trace.hpp"

namespace lockstep::golden {

using nlohmann::json;
namespace fs = std::filesystem;

std::vector<fs::path> split_folders(std::string_view list) {
  std::vector<fs::path> folders;
  while (!list.empty()) {
    const std::size_t colon = std::min(list.find(':'), list.size());
    if (colon > 0) folders.emplace_back(list.substr(0, colon));
    list.remove_prefix(std::min(list.size(), colon + 1));
  }
  return folders;
}

std::vector<fs::path> files_of(const fs::path& folder) {
  if (!fs::is_directory(folder)) fail(ErrorKind::data, "goldens: there is no folder {}", folder.string());
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  if (files.empty()) fail(ErrorKind::data, "goldens: the folder {} holds no *.json", folder.string());
  std::sort(files.begin(), files.end());
  return files;
}

namespace {

using Check = Mismatches (*)(const json&);
using KernelCheck = Mismatches (*)(const json&, const testing::Session*);

const std::map<std::string, Check>& checks() {
  static const std::map<std::string, Check> all = {{"lr_schedule", check_lr_schedule},
                                                   {"batch_rules", check_batch_rules}};
  return all;
}
const std::map<std::string, KernelCheck>& kernel_checks() {
  static const std::map<std::string, KernelCheck> all = {
      {"loss_scaler", check_loss_scaler}, {"engine", check_engine}, {"optimizer", check_optimizer}};
  return all;
}

}  // namespace

Mismatches check_file(const fs::path& file, const testing::Session* session) {
  try {
    std::ifstream in(file);
    if (!in) return {"cannot be opened"};
    const json trace = json::parse(in);
    const std::string kind = trace.at("kind").get<std::string>();
    if (const auto found = checks().find(kind); found != checks().end()) return found->second(trace);
    if (const auto found = kernel_checks().find(kind); found != kernel_checks().end())
      return found->second(trace, session);
    return {"unknown kind '" + kind + "'"};
  } catch (const std::exception& error) {
    return {std::string("cannot be checked: ") + error.what()};
  }
}

bool concerns_kernels(const fs::path& file) {
  try {
    std::ifstream in(file);
    return kernel_checks().contains(json::parse(in).at("kind").get<std::string>());
  } catch (const std::exception&) {
    return false;  // check_file tells why
  }
}

ParamValue to_param(const json& value) {
  if (value.is_null()) return {};
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return value.get<std::string>();
  ParamValue::List list;
  for (const json& entry : value) list.push_back(to_param(entry));
  return list;
}

Params to_params(const json& object) {
  Params params;
  for (const auto& [name, value] : object.items()) params.set(name, to_param(value));
  return params;
}

std::vector<sched::GroupInitial> to_groups(const json& optimizer_initial) {
  std::vector<sched::GroupInitial> groups;
  for (const json& entry : optimizer_initial.at("groups")) {
    sched::GroupInitial group;
    group.lr = entry.at("lr").get<double>();
    if (entry.contains("betas")) {
      group.has_betas = true;
      group.beta1 = entry["betas"].at(0).get<double>();
      group.beta2 = entry["betas"].at(1).get<double>();
    } else {
      group.momentum = entry.value("momentum", 0.0);
    }
    groups.push_back(group);
  }
  return groups;
}

void expect_equal(Mismatches& out, const std::string& what, const json& expected, double actual) {
  if (!expected.is_number()) {
    out.push_back(fmt::format("{}: the trace has {}, we have {}", what, expected.dump(), actual));
  } else if (const double value = expected.get<double>(); !(value == actual)) {
    out.push_back(fmt::format("{}: expected {}, got {}", what, value, actual));
  }
}

void expect_equal(Mismatches& out, const std::string& what, const json& expected, const std::vector<double>& actual) {
  if (!expected.is_array() || expected.size() != actual.size()) {
    out.push_back(fmt::format("{}: the trace has {}, we have {} values", what, expected.dump(), actual.size()));
    return;
  }
  for (std::size_t i = 0; i < actual.size(); ++i)
    expect_equal(out, fmt::format("{}[{}]", what, i), expected[i], actual[i]);
}

}  // namespace lockstep::golden
