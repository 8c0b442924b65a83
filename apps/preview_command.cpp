#include "apps/preview_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/lr_command.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
#include "run/errors.hpp"
#include "run/launch.hpp"
#include "run/progress.hpp"

namespace lockstep {
namespace {

using run::Preview;

/// More updates than this make no better picture.
constexpr std::int64_t most_shown = 20'000;

std::string bytes(std::size_t count) { return count == 0 ? "-" : human_bytes(static_cast<double>(count)); }

struct Column {
  const char* name;
  const char* key;
  std::size_t (*of)(const Preview::Row& row);
};
/// What the bytes of a process are. Their sum is Preview::Row::total().
const std::vector<Column>& columns() {
  static const std::vector<Column> all = {
      {"parameters", "parameters", [](const Preview::Row& r) { return r.need.parts.parameters; }},
      {"gathered", "gathered_parameters", [](const Preview::Row& r) { return r.need.parts.gathered; }},
      {"masters", "masters", [](const Preview::Row& r) { return r.need.parts.masters; }},
      {"gradients", "gradients", [](const Preview::Row& r) { return r.need.parts.gradients; }},
      {"windows", "gradient_windows", [](const Preview::Row& r) { return r.need.parts.windows + r.need.parts.sums; }},
      {"moments", "moments", [](const Preview::Row& r) { return r.need.parts.moments; }},
      {"activations", "activations", [](const Preview::Row& r) { return r.need.activations; }},
      {"packed", "packed_weights", [](const Preview::Row& r) { return r.need.packed; }},
      {"other", "other", [](const Preview::Row& r) { return r.need.other; }},
      {"saving", "saving", [](const Preview::Row& r) { return r.process.snapshot; }},
      {"staging", "staging", [](const Preview::Row& r) { return r.process.staging; }},
      {"data", "data", [](const Preview::Row& r) { return r.process.data; }},
      {"program", "program", [](const Preview::Row& r) { return r.process.program + r.process.rounding; }}};
  return all;
}

std::string memory_table(const Preview& preview) {
  std::vector<Column> shown;
  for (const Column& column : columns())
    if (std::ranges::any_of(preview.rows, [&](const Preview::Row& row) { return column.of(row) > 0; }))
      shown.push_back(column);
  // Stages across, parts down: it stays within a terminal.
  std::string text = fmt::format("\n  {:<14}", "zero stage");
  for (const Preview::Row& row : preview.rows) text += fmt::format("{:>10}", row.stage);
  if (preview.rows.size() > 4) {
    text += fmt::format("\n  {:<14}", "recompute");
    for (const Preview::Row& row : preview.rows) text += fmt::format("{:>10}", row.recompute);
  }
  for (const Column& column : shown) {
    text += fmt::format("\n  {:<14}", column.name);
    for (const Preview::Row& row : preview.rows) text += fmt::format("{:>10}", bytes(column.of(row)));
  }
  text += fmt::format("\n  {:<14}", "in all");
  for (const Preview::Row& row : preview.rows) text += fmt::format("{:>10}", bytes(row.total()));
  text += fmt::format("\n  {:<14}", "on the wire");
  for (const Preview::Row& row : preview.rows) text += fmt::format("{:>10}", bytes(row.need.exchange));
  return text + "\n";
}

std::string time_text(const Preview& preview, const job::JobConfig& job) {
  const run::StepEstimate& step = preview.step;
  if (step.seconds == 0) return "time      not known: a GPU's speed is not measured here (lockstep bench step JOB)\n";
  std::string text = fmt::format("time      {:.3g} s a step, {} for {}: ", step.seconds,
                                 run::duration_text(step.seconds * static_cast<double>(job.run.steps)),
                                 counted(job.run.steps, "step"));
  if (step.recorded)
    return text + fmt::format("the median of the latest {} of {}/{}\n", counted(step.steps, "step"), job.run.output_dir,
                              job.run.name);
  return text +
         fmt::format(
             "an estimate for all ranks on this machine, from {:.3g} TFLOP/s and {:.3g} GB/s measured just now\n"
             "          products {:.3g} s, update {:.3g} s, exchange {:.3g} s; a real step has more than that to do\n",
             step.flops_per_s * 1e-12, step.bytes_per_s * 1e-9, step.products_s, step.update_s, step.exchange_s);
}

LrRequest lr_request(const job::JobConfig& job) {
  LrRequest request;
  request.updates = std::min({job.run.steps, most_shown, most_updates(job.parameter_groups.size() + 1)});
  return request;
}

/// A hundred updates of the run, evenly spread, the first and the last among them: lists of one rate a group.
nlohmann::ordered_json lr_samples(const job::LoadedJob& loaded) {
  nlohmann::ordered_json samples = nlohmann::ordered_json::array();
  std::vector<StepValues> values(loaded.schedule->groups());
  const std::int64_t last = loaded.config.run.steps - 1, count = std::min<std::int64_t>(last, 99);
  for (std::int64_t i = 0; i <= count; ++i) {
    const auto update = static_cast<std::int64_t>(static_cast<double>(last) * static_cast<double>(i) /
                                                  static_cast<double>(std::max<std::int64_t>(1, count)));
    loaded.schedule->values_at(update, values);
    nlohmann::ordered_json lr = nlohmann::ordered_json::array();
    for (const StepValues& group : values) lr.push_back(group.lr);  // null where it is not finite
    samples.push_back({{"update", update}, {"lr", lr}});
  }
  return samples;
}

}  // namespace

std::string preview_text(const job::LoadedJob& loaded, const Preview& preview) {
  const job::JobConfig& job = loaded.config;
  const Preview::Row& row = preview.job;
  std::string text = fmt::format("model     {}\nbatch     {}\ndevice    {}, {} compute\n", preview.model,
                                 preview.batch.text, preview.device, to_string(preview.compute));
  text += fmt::format("memory    {} a rank with zero_optimization.stage {}{}", bytes(row.total()), preview.stage,
                      job.model.type == "gpt2" ? " and model.recompute " + preview.recompute : "");
  if (preview.free_for_a_rank != run::FreeMemory::unlimited)
    text += fmt::format("; {} free for each{}", human_bytes(static_cast<double>(preview.free_for_a_rank)),
                        row.total() > preview.free_for_a_rank ? ": too little" : "");
  text += memory_table(preview);
  text += fmt::format("work      {:.4g} GFLOP a micro-batch, {:.4g} GFLOP a step of each rank\n", row.need.flops * 1e-9,
                      row.need.flops * 1e-9 * static_cast<double>(preview.batch.accumulation));
  if (preview.batch.world > 1)
    text += fmt::format("exchange  {} a step of each rank, in {}\n", bytes(row.need.exchange),
                        counted(static_cast<std::int64_t>(row.need.buckets), "bucket"));
  text += time_text(preview, job) + "\n" + lr_report(*loaded.schedule, lr_request(job));
  if (job.run.steps > most_shown) text += fmt::format("(the first {} of {} updates)\n", most_shown, job.run.steps);
  return text;
}

std::string preview_json(const job::LoadedJob& loaded, const Preview& preview) {
  using Json = nlohmann::ordered_json;
  const auto memory = [](const Preview::Row& row) {
    Json json = {{"stage", row.stage}, {"recompute", row.recompute}};
    for (const Column& column : columns()) json[column.key] = column.of(row);
    json["engine"] = row.need.total();
    json["total"] = row.total();
    json["exchange_per_step"] = row.need.exchange;
    json["flops_per_micro_batch"] = row.need.flops;
    return json;
  };
  const auto known = [](double value) { return value > 0 ? Json(value) : Json(nullptr); };
  const run::StepEstimate& step = preview.step;
  Json json = {{"model", preview.model},
               {"device", preview.device},
               {"compute", std::string(to_string(preview.compute))},
               {"ranks", preview.batch.world},
               {"train_batch_size", preview.batch.train},
               {"train_micro_batch_size_per_gpu", preview.batch.micro},
               {"gradient_accumulation_steps", preview.batch.accumulation}};
  json["free_for_a_rank"] =
      preview.free_for_a_rank == run::FreeMemory::unlimited ? Json(nullptr) : Json(preview.free_for_a_rank);
  json["memory"] = memory(preview.job);
  json["stages"] = Json::array();
  for (const Preview::Row& row : preview.rows) json["stages"].push_back(memory(row));
  json["buckets"] = preview.job.need.buckets;
  json["step"] = {{"seconds", known(step.seconds)},
                  {"from", step.seconds == 0 ? "nothing"
                           : step.recorded   ? "the run's own steps"
                                             : "FLOPs and bytes, and speeds measured just now"},
                  {"products_s", known(step.products_s)},
                  {"update_s", known(step.update_s)},
                  {"exchange_s", known(step.exchange_s)},
                  {"flops_per_s", known(step.flops_per_s)},
                  {"bytes_per_s", known(step.bytes_per_s)}};
  json["lr"] = lr_samples(loaded);
  return json.dump(1) + "\n";
}

int preview_command(const job::LoadedJob& job, std::int64_t ranks, bool json) {
  const job::CommConfig& comm = job.config.comm;
  if (comm.backend == "local" && ranks > 1) run::refuse_nested_ranks();
  const std::int64_t number = ranks > 0 ? ranks : comm.ranks;
  const char* const source = ranks > 0 ? "from MPI" : comm.ranks > 1 ? "comm.ranks" : "no launcher";
  std::string text;
  try {
    const Preview preview = run::preview(job, static_cast<int>(number), source);
    text = json ? preview_json(job, preview) : preview_text(job, preview);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::config) throw;
    run::print_failure({error.kind(), error.what()});
    return exit_code(error.kind());
  }
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace lockstep
