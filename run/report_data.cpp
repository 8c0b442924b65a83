#include "run/report_data.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/json.hpp"
#include "core/text.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Run folders in `folder`, to suggest; a few.
std::string runs_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (fs::exists(it->path() / "metrics.jsonl", error)) names.push_back(it->path().lexically_normal().string());
  std::sort(names.begin(), names.end());
  if (names.size() > 4) names.resize(4);
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + printable(name);
  return text;
}

[[noreturn]] void refuse(const std::string& folder, const std::string& why) {
  std::string runs = runs_in(folder);
  if (runs.empty()) runs = runs_in("runs");
  fail(ErrorKind::config, "{}: {}. Give the folder of a run, which lockstep train names in its last line{}",
       printable(folder), why, runs.empty() ? ": runs/NAME" : "; there is " + runs);
}

double number_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

std::optional<MetricsRow> row_of(const std::string& line, std::string& item) {
  const json object = parse_json(line);
  if (!object.is_object() || !object.contains("step") || !object["step"].is_number_integer()) return {};
  MetricsRow row{.step = object["step"].get<std::int64_t>(),
                 .update = 0,
                 .loss = number_of(object, "loss"),
                 .loss_bits = {},
                 .lr = {},
                 .grad_norm = number_of(object, "grad_norm"),
                 .loss_scale = number_of(object, "loss_scale"),
                 .skipped = false,
                 .items_per_s = number_of(object, "samples_per_s"),
                 .step_ms = number_of(object, "step_ms"),
                 .val_loss = {}};
  if (const auto it = object.find("update"); it != object.end() && it->is_number_integer())
    row.update = it->get<std::int64_t>();
  if (const auto it = object.find("loss_bits"); it != object.end() && it->is_string())
    row.loss_bits = it->get<std::string>();
  if (const auto it = object.find("lr"); it != object.end() && it->is_array())
    for (const json& value : *it)
      row.lr.push_back(value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN());
  if (const auto it = object.find("skipped"); it != object.end() && it->is_boolean()) row.skipped = it->get<bool>();
  if (object.contains("tokens_per_s")) {
    item = "tokens";
    row.items_per_s = number_of(object, "tokens_per_s");
  }
  if (object.contains("val_loss")) row.val_loss = number_of(object, "val_loss");
  return row;
}

}  // namespace

RunRecord read_run(const std::string& folder) {
  std::error_code error;
  if (!fs::exists(folder, error)) refuse(folder, "there is no such folder");
  if (!fs::is_directory(folder, error)) refuse(folder, "it is a file");
  RunRecord run;
  run.folder = fs::path(folder).lexically_normal().string();
  while (run.folder.size() > 1 && run.folder.ends_with('/')) run.folder.pop_back();
  const std::string path = run.folder + "/metrics.jsonl";
  std::ifstream in(path, std::ios::binary);
  if (!in) refuse(folder, "it holds no metrics.jsonl, so it is no run's folder");
  for (std::string line; std::getline(in, line);) {
    std::optional<MetricsRow> row = row_of(line, run.item);
    if (!row) {
      run.bad_lines += in.eof() ? 0 : 1;  // the last line of a run under way may be half there
      continue;
    }
    if (!run.rows.empty() && row->step <= run.rows.back().step) {
      run.rollbacks.push_back({.from = run.rows.back().step, .to = row->step});
      while (!run.rows.empty() && run.rows.back().step >= row->step) run.rows.pop_back();
    }
    run.rows.push_back(std::move(*row));
  }
  if (run.rows.empty())
    fail(ErrorKind::data, "{} holds no line of metrics yet: {}", printable(path),
         run.bad_lines > 0 ? counted(run.bad_lines, "line") + " that cannot be read" : "the run has not done a step");
  std::ifstream job(run.folder + "/job.yaml", std::ios::binary);
  run.job.assign(std::istreambuf_iterator<char>(job), {});
  run.starts = read_starts(run.folder);
  return run;
}

double median(std::vector<double> values) {
  std::erase_if(values, [](double v) { return !std::isfinite(v); });
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

RunSummary summary_of(const RunRecord& run) {
  RunSummary sum;
  std::vector<double> rates;
  for (const MetricsRow& row : run.rows) {
    sum.skipped += row.skipped ? 1 : 0;
    sum.not_finite += std::isfinite(row.loss) ? 0 : 1;
    if (std::isfinite(row.step_ms)) sum.seconds += row.step_ms / 1e3;
    rates.push_back(row.items_per_s);
    if (!row.val_loss) continue;
    sum.last_val_loss = row.val_loss;
    if (sum.best_val_loss && !(*row.val_loss < *sum.best_val_loss)) continue;
    sum.best_val_loss = row.val_loss;
    sum.best_step = row.step;
  }
  const MetricsRow& last = run.rows.back();
  sum.steps = last.step;
  sum.updates = last.update;
  sum.last_loss = last.loss;
  sum.items_per_s = median(std::move(rates));
  return sum;
}

}  // namespace lockstep::run
