#include "run/bench/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/host.hpp"
#include "core/isa.hpp"
#include "core/text.hpp"
#include "kernels/cuda_loader.hpp"
#include "run/commit.hpp"

namespace lockstep::run::bench {
namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name"))
      if (const std::size_t colon = line.find(": "); colon != std::string::npos) return line.substr(colon + 2);
  return "unknown CPU";
}

std::string time_text(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.2f} us", seconds * 1e6);
  return seconds < 1 ? fmt::format("{:.3f} ms", seconds * 1e3) : fmt::format("{:.3f} s", seconds);
}

double per_second(double work, const Measured& line) { return work / line.median(); }

std::string rates_text(const Measured& line) {
  const Task& task = line.task;
  std::string text;
  if (task.items > 0) text += fmt::format("  {:.0f} {}/s", per_second(task.items, line), task.item);
  if (const double flops = task.flops > 0 ? per_second(task.flops, line) : 0; flops >= 1e11)
    text += fmt::format("  {:.3f} TFLOP/s", flops * 1e-12);
  else if (flops > 0)
    text += fmt::format("  {:.2f} GFLOP/s", flops * 1e-9);
  // Where FLOPs are what limits, bytes would only confuse.
  if (task.flops == 0 && task.bytes > 0) text += fmt::format("  {:.1f} GB/s", per_second(task.bytes, line) * 1e-9);
  return text;
}

std::string samples_text(const Measured& line) {
  const auto tried = static_cast<std::int64_t>(line.samples.size());
  if (line.disturbed) return fmt::format("median of the {} least disturbed of {}", line.kept.size(), tried);
  if (line.rejected() == 0) return fmt::format("median of {}", tried);
  return fmt::format("median of {}, {} disturbed", line.kept.size(), line.rejected());
}

nlohmann::ordered_json line_json(const Measured& line, const std::vector<Measured>& all) {
  const Task& task = line.task;
  nlohmann::ordered_json json = {{"name", task.name}, {"shape", task.shape}};
  json["seconds"] = {{"median", line.median()}, {"p10", line.quantile(0.1)}, {"p90", line.quantile(0.9)}};
  if (task.bytes > 0) json["bytes"] = task.bytes, json["gb_s"] = per_second(task.bytes, line) * 1e-9;
  if (task.flops > 0) json["flops"] = task.flops, json["tflop_s"] = per_second(task.flops, line) * 1e-12;
  if (task.items > 0)
    json["items"] = task.items, json["item"] = task.item, json["items_s"] = per_second(task.items, line);
  if (!task.group.empty()) json["group"] = task.group;
  if (!task.ceiling.empty()) json["ceiling"] = task.ceiling, json["share"] = share_of_ceiling(line, all);
  json["calls_a_sample"] = line.calls;
  json["rejected"] = line.rejected();
  json["disturbed"] = line.disturbed;
  json["samples"] = nlohmann::ordered_json::array();
  for (const Sample& sample : line.samples)
    json["samples"].push_back({{"seconds", sample.seconds}, {"waited", sample.waited}});
  return json;
}

}  // namespace

Machine machine_of(const RankContext& rank) {
  return {.version = LOCKSTEP_VERSION,
          .commit = build_commit(),
          .build = std::string(build_id()).substr(0, 12),
          .device = rank.place.device->name(),
          .cpu = cpu_name(),
          .isa = fmt::format("{}, bf16 products {}", to_string(current_isa()), to_string(current_bf16_products())),
          .host = host_name(),
          .comm = rank.comm.name(),
          .ranks = rank.comm.size(),
          .threads = rank.place.threads};
}

std::string header_text(const Machine& m) {
  return fmt::format("lockstep {} ({}, build {}) on {}: {}, {}; {}; {} ({}) x {}\n", m.version, m.commit, m.build,
                     printable(m.host), printable(m.cpu), m.isa, m.device, counted(m.ranks, "rank"), m.comm,
                     counted(m.threads, "thread"));
}

std::string report_text(const Report& report) {
  std::string text = fmt::format("\n{}\n", report.bench);
  std::size_t widest = 0;
  for (const Measured& line : report.lines) widest = std::max(widest, line.task.name.size());
  for (const Measured& line : report.lines) {
    const double share = share_of_ceiling(line, report.lines);
    text += fmt::format("  {:<{}}  {:>11} ({} to {}){}{}  [{}; {}]\n", line.task.name, widest, time_text(line.median()),
                        time_text(line.quantile(0.1)), time_text(line.quantile(0.9)), rates_text(line),
                        share > 0 ? fmt::format("  {:.3f} of {}", share, line.task.ceiling) : "", line.task.shape,
                        samples_text(line));
  }
  for (const std::string& note : report.notes) text += fmt::format("  {}\n", note);
  return text;
}

nlohmann::ordered_json json_of(const Machine& m, const std::vector<Report>& reports) {
  nlohmann::ordered_json json;
  json["machine"] = {{"version", m.version}, {"commit", m.commit},  {"build", m.build}, {"host", m.host},
                     {"device", m.device},   {"cpu", m.cpu},        {"isa", m.isa},     {"comm", m.comm},
                     {"ranks", m.ranks},     {"threads", m.threads}};
  json["benches"] = nlohmann::ordered_json::array();
  for (const Report& report : reports) {
    nlohmann::ordered_json bench = {{"bench", report.bench}, {"notes", report.notes}};
    bench["figures"] = nlohmann::ordered_json::object();
    for (const auto& [name, value] : report.figures) bench["figures"][name] = value;
    bench["lines"] = nlohmann::ordered_json::array();
    for (const Measured& line : report.lines) bench["lines"].push_back(line_json(line, report.lines));
    json["benches"].push_back(bench);
  }
  return json;
}

}  // namespace lockstep::run::bench
