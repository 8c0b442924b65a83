#include "apps/lr_find_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "apps/lr_curve.hpp"
#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep {
namespace {

/// The lines of one top-level block of a YAML text.
std::string block_of(const std::string& yaml, const std::string& name) {
  std::istringstream in(yaml);
  std::string block;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line[0] != ' ') inside = line.starts_with(name + ":");
    if (inside) block += line + "\n";
  }
  return block;
}

/// From a little below the smallest loss to a little above where it started; beyond, it only ran away.
std::pair<double, double> shown_range(const std::vector<double>& smooth) {
  const auto lowest = std::min_element(smooth.begin(), smooth.end());
  const double least = *lowest, start = *std::max_element(smooth.begin(), lowest + 1);
  const double span = std::max(start - least, 1e-3 * std::max(std::abs(start), 1e-12));
  return {least - 0.1 * span, start + 0.4 * span};
}

Axes axes_of(const run::LrSweep& sweep, const run::LrAdvice& advice) {
  Axes axes{.across = "learning rate", .up = "loss"};
  axes.exponential = {sweep.lr.front(), sweep.lr.back()};
  axes.range = shown_range(advice.smooth);
  axes.marks.push_back({"suggestion", rounded_rate(advice.lr)});
  for (const run::LrRule& rule : advice.rules) axes.marks.push_back({rule.name, rule.lr});
  return axes;
}

std::string rules_text(const run::LrAdvice& advice) {
  std::string text;
  for (const run::LrRule& rule : advice.rules) text += fmt::format("{:<14}{:<10.2g}{}\n", rule.name, rule.lr, rule.doc);
  text += fmt::format("{:<14}{:<10.2g}between steepest and half-way; all rules lie from {:.2g} to {:.2g}\n\n",
                      "suggestion", rounded_rate(advice.lr), advice.low, advice.high);
  if (!advice.agree)
    text +=
        "warning: steepest and half-way are more than a factor of 3 apart: the curve has no single fall. More --steps "
        "or "
        "a\n  larger train_batch_size make it clearer; start at the lower of the two.\n";
  if (advice.still_falling)
    text += "warning: the loss was still falling at the end: a higher --to may find a higher rate.\n";
  return text;
}

/// The rates of parameter groups that have one of their own. `schedule`: of the job as it was swept.
std::string groups_text(const sched::Schedule& schedule, double lr) {
  std::string text;
  const double base = schedule.initial()[0].lr;
  for (std::size_t g = 1; g < schedule.groups(); ++g)
    if (const double own = schedule.initial()[g].lr; base != 0 && own != base)
      text += fmt::format("# parameter_groups[{}]: lr: {}  (its ratio to optimizer.params.lr was kept)\n", g - 1,
                          rounded_rate(lr * own / base));
  return text;
}

}  // namespace

double rounded_rate(double lr) { return std::stod(fmt::format("{:.1e}", lr)); }

std::string lr_patch(const LrFindRequest& request, double lr) {
  std::vector<std::string> overrides = request.overrides;
  overrides.push_back(fmt::format("optimizer.params.lr={}", lr));
  const job::LoadedJob job = job::load_job(request.job, overrides);
  const job::LoadedJob before = job::load_job(request.job, request.overrides);
  const std::int64_t warmup = std::max<std::int64_t>(2, job.config.run.steps / 20);
  return block_of(job::effective_yaml(job.config), "optimizer") +
         fmt::format(
             "scheduler:\n  type: WarmupCosineLR\n  params: {{warmup_num_steps: {}, total_num_steps: auto, "
             "warmup_type: "
             "linear}}\n",
             warmup) +
         groups_text(*before.schedule, lr);
}

std::string lr_find_report(const run::LrFound& found, const run::LrFindOptions& options, const LrFindRequest& request) {
  const run::LrSweep& sweep = found.sweep;
  const std::string ended = found.ended.empty() ? "all rates were tried" : found.ended;
  if (sweep.lr.size() < 10)
    fail(ErrorKind::config, "lr-find: {}, after {}: too few to read; begin lower with --from (now {})", ended,
         counted(static_cast<std::int64_t>(sweep.lr.size()), "update"), options.from);
  const run::LrAdvice advice = run::read_sweep(sweep);
  if (advice.rules.empty())
    fail(ErrorKind::config,
         "lr-find: the loss fell nowhere between lr {:.2g} and {:.2g} ({}). Try a wider range (--from, --to), more "
         "--steps, or a larger train_batch_size",
         sweep.lr.front(), sweep.lr.back(), ended);
  const Axes axes = axes_of(sweep, advice);
  if (request.plot)
    write_picture(*request.plot, svg_chart({{{"loss of each update"}, sweep.loss}, {{"smoothed"}, advice.smooth}},
                                           "learning-rate range test", axes));
  const double lr = rounded_rate(advice.lr), top = rounded_rate(std::max(lr, advice.rules[2].lr));
  const job::LoadedJob job = job::load_job(request.job, request.overrides);
  return fmt::format(
      "\nlearning-rate range test: {} from lr {:.2g} to {:.2g}; {}\n\n{}\n{}"
      "# to paste into the job file in the place of its optimizer and scheduler:\n{}"
      "# or one cycle to the rate of '{}' and back:\n"
      "# scheduler:\n#   type: OneCycle\n#   params: {{cycle_min_lr: {}, cycle_max_lr: {}, cycle_first_step_size: {}, "
      "cycle_momentum: false}}\n",
      counted(static_cast<std::int64_t>(sweep.lr.size()), "update"), sweep.lr.front(), sweep.lr.back(), ended,
      terminal_chart({{{"smoothed"}, advice.smooth}}, axes), rules_text(advice), lr_patch(request, lr),
      top > lr ? advice.rules[2].name : "suggestion", rounded_rate(top / 10), top,
      std::max<std::int64_t>(1, job.config.run.steps / 2));
}

}  // namespace lockstep
