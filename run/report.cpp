#include "run/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "config/diagnostics.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
#include "run/job_changes.hpp"
#include "run/progress.hpp"
#include "run/report_chart.hpp"

namespace lockstep::run {
namespace {

constexpr const char* style = R"(
:root{color-scheme:light dark;--page:#fff;--ink:#0f172a;--soft:#475569;--rule:#cbd5e1;--grid:#e8edf3;--box:#f6f8fa;
--c0:#2563eb;--c1:#c2410c;--c2:#047857;--c3:#a21caf;--c4:#be123c;--c5:#475569;--bad:#dc2626;--warn:#b45309}
@media(prefers-color-scheme:dark){:root{--page:#0f1420;--ink:#e6eaf1;--soft:#9aa7b8;--rule:#3b4658;--grid:#212b3b;
--box:#171e2c;--c0:#6ea8fe;--c1:#fb923c;--c2:#34d399;--c3:#e879f9;--c4:#fb7185;--c5:#a3b1c4;--bad:#f87171;--warn:#fbbf24}}
body{margin:0 auto;max-width:900px;padding:24px 20px 60px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:24px;margin:0 0 2px}h2{font-size:18px;margin:34px 0 8px}p{margin:4px 0}.soft{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-size:14px}td,th{text-align:left;padding:5px 10px 5px 0;vertical-align:top;
border-bottom:1px solid var(--grid)}th{font-weight:600;white-space:nowrap}
.numbers{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px;margin:18px 0}
.numbers div{background:var(--box);border-radius:8px;padding:10px 12px}.numbers b{display:block;font-size:20px}
.numbers span{color:var(--soft);font-size:13px}
pre{background:var(--box);border-radius:8px;padding:12px;overflow:auto;font:13px/1.45 ui-monospace,monospace}
figure{margin:10px 0;overflow-x:auto}svg{width:100%;min-width:600px;height:auto;display:block}svg text{fill:var(--soft);font-size:12.5px}
svg .title{fill:var(--ink);font-size:15px;font-weight:600}svg .dim{fill:var(--soft);font-weight:400;font-size:12.5px}
svg .end{text-anchor:end}svg .mid{text-anchor:middle}.grid{stroke:var(--grid)}.axis{stroke:var(--rule);fill:none}
.l{fill:none;stroke-width:1.8;stroke-linejoin:round}.faint{stroke-width:1;opacity:.35}
.l.c0{stroke:var(--c0)}.l.c1{stroke:var(--c1)}.l.c2{stroke:var(--c2)}.l.c3{stroke:var(--c3)}.l.c4{stroke:var(--c4)}
.l.c5{stroke:var(--c5)}.p.c0{fill:var(--c0)}.p.c1{fill:var(--c1)}.p.c2{fill:var(--c2)}.p.c3{fill:var(--c3)}
.p.c4{fill:var(--c4)}.p.c5{fill:var(--c5)}.level{stroke:var(--soft);stroke-dasharray:5 4;fill:none}
.skip{stroke:var(--warn);stroke-width:2}.bad{stroke:var(--bad);stroke-width:2;fill:none}
.resume{stroke:var(--soft);stroke-dasharray:2 3}
)";

std::string number(double value, const char* format = "{:.4f}") {
  return std::isfinite(value) ? fmt::format(fmt::runtime(format), value) : "not finite";
}

/// A column of the run, against steps.
template <class Value>
ChartLine column(const RunRecord& run, const std::string& name, int colour, const Value& value) {
  ChartLine line{.name = name, .x = {}, .y = {}, .colour = colour};
  for (const MetricsRow& row : run.rows) {
    line.x.push_back(static_cast<double>(row.step));
    line.y.push_back(value(row));
  }
  return line;
}

/// The mean of the last `window` finite values: what the eye would draw through a noisy line.
ChartLine smoothed(const ChartLine& raw, std::size_t window, const std::string& name) {
  ChartLine line{.name = name, .x = raw.x, .y = {}, .colour = raw.colour};
  std::vector<double> recent;
  std::size_t at = 0;
  for (const double value : raw.y) {
    if (std::isfinite(value)) {
      if (recent.size() < window)
        recent.push_back(value);
      else
        recent[at++ % window] = value;
    }
    double sum = 0;
    for (const double v : recent) sum += v;
    line.y.push_back(std::isfinite(value) ? sum / static_cast<double>(recent.size()) : value);
  }
  return line;
}

/// The line, and if it is long its mean in front of it.
std::vector<ChartLine> with_mean(ChartLine raw) {
  const std::size_t window = raw.x.size() / 50;
  if (window < 3) return {std::move(raw)};
  ChartLine mean = smoothed(raw, window, fmt::format("its mean over {} steps", window));
  raw.look = ChartLine::Look::faint;
  return {std::move(raw), std::move(mean)};
}

std::vector<ChartMark> marks_of(const RunRecord& run) {
  ChartMark skipped{.name = "skipped step", .x = {}, .look = ChartMark::Look::skipped};
  ChartMark bad{.name = "loss not finite", .x = {}, .look = ChartMark::Look::not_finite};
  ChartMark resumed{.name = "resumed", .x = {}, .look = ChartMark::Look::resumed};
  for (const MetricsRow& row : run.rows) {
    if (row.skipped) skipped.x.push_back(static_cast<double>(row.step));
    if (!std::isfinite(row.loss)) bad.x.push_back(static_cast<double>(row.step));
  }
  for (const RunStart& start : run.starts)
    if (start.step > 0) resumed.x.push_back(static_cast<double>(start.step));
  for (const RunRecord::Rollback& back : run.rollbacks) resumed.x.push_back(static_cast<double>(back.to - 1));
  std::sort(resumed.x.begin(), resumed.x.end());
  resumed.x.erase(std::unique(resumed.x.begin(), resumed.x.end()), resumed.x.end());
  return {skipped, bad, resumed};
}

Chart loss_chart(const RunRecord& run) {
  Chart chart{.title = "Loss",
              .unit = "nats",
              .may_be_log = true,
              .lines = {},
              .marks = marks_of(run),
              .level = {},
              .level_name = {}};
  ChartLine train = column(run, "train_loss", 0, [](const MetricsRow& row) { return row.loss; });
  chart.lines = with_mean(std::move(train));
  ChartLine val{.name = "val_loss", .x = {}, .y = {}, .look = ChartLine::Look::points, .colour = 1};
  for (const MetricsRow& row : run.rows) {
    if (!row.val_loss) continue;
    val.x.push_back(static_cast<double>(row.step));
    val.y.push_back(*row.val_loss);
  }
  if (!val.x.empty()) chart.lines.push_back(std::move(val));
  return chart;
}

/// Groups with the same rates are one line with all their names.
Chart lr_chart(const RunRecord& run) {
  Chart chart{
      .title = "Learning rate", .unit = {}, .from_zero = true, .lines = {}, .marks = {}, .level = {}, .level_name = {}};
  std::size_t groups = 0;
  for (const MetricsRow& row : run.rows) groups = std::max(groups, row.lr.size());
  for (std::size_t g = 0; g < groups; ++g) {
    ChartLine line = column(run, groups == 1 ? "lr" : fmt::format("group {}", g), static_cast<int>(g % 6),
                            [g](const MetricsRow& row) { return g < row.lr.size() ? row.lr[g] : NAN; });
    const auto same =
        std::find_if(chart.lines.begin(), chart.lines.end(), [&](const ChartLine& other) { return other.y == line.y; });
    if (same != chart.lines.end())
      same->name += fmt::format(", {}", g);
    else
      chart.lines.push_back(std::move(line));
  }
  return chart;
}

Chart norm_chart(const RunRecord& run) {
  Chart chart{.title = "Gradient norm",
              .unit = "before clipping",
              .may_be_log = true,
              .from_zero = true,
              .lines = {},
              .marks = {},
              .level = {},
              .level_name = {}};
  chart.lines = with_mean(column(run, "grad_norm", 2, [](const MetricsRow& row) { return row.grad_norm; }));
  if (const auto job = job_of_then(run.job); job && job->gradient_clipping > 0) {
    chart.level = job->gradient_clipping;
    chart.level_name = fmt::format("gradient_clipping {}", job->gradient_clipping);
  }
  return chart;
}

Chart rate_chart(const RunRecord& run, double usual) {
  Chart chart{.title = "Throughput",
              .unit = run.item + "/s",
              .from_zero = true,
              .lines = {},
              .marks = {},
              .level = usual,
              .level_name = fmt::format("median {}", tick_text(usual))};
  chart.lines = with_mean(column(run, run.item + "_per_s", 3, [](const MetricsRow& row) { return row.items_per_s; }));
  if (!std::isfinite(usual)) chart.level.reset();
  return chart;
}

/// Empty where the scale never moves from 1: nothing is scaled.
std::optional<Chart> scale_chart(const RunRecord& run) {
  if (std::all_of(run.rows.begin(), run.rows.end(), [](const MetricsRow& row) { return row.loss_scale == 1; }))
    return {};
  Chart chart{.title = "Loss scale",
              .unit = {},
              .may_be_log = true,
              .lines = {},
              .marks = marks_of(run),
              .level = {},
              .level_name = {}};
  std::erase_if(chart.marks, [](const ChartMark& mark) { return mark.look != ChartMark::Look::skipped; });
  chart.lines = {column(run, "loss_scale", 4, [](const MetricsRow& row) { return row.loss_scale; })};
  return chart;
}

std::string numbers_html(const RunRecord& run, const RunSummary& sum) {
  std::string html = "<div class=\"numbers\">\n";
  const auto add = [&](const std::string& value, const std::string& what) {
    html += fmt::format("<div><b>{}</b><span>{}</span></div>\n", html_text(value), html_text(what));
  };
  add(number(sum.last_loss), "loss of the last step");
  if (sum.last_val_loss) add(number(*sum.last_val_loss), "last val_loss");
  if (sum.best_val_loss && sum.best_step > 0)
    add(number(*sum.best_val_loss), fmt::format("best val_loss, step {}", sum.best_step));
  add(fmt::format("{}", sum.steps), fmt::format("steps, {}", counted(sum.updates, "update")));
  if (sum.skipped > 0) add(fmt::format("{}", sum.skipped), "skipped steps");
  if (sum.not_finite > 0) add(fmt::format("{}", sum.not_finite), "steps with a loss that is not finite");
  add(short_number(sum.items_per_s), fmt::format("{}/s, median", run.item));
  add(duration_text(sum.seconds), "in steps");
  return html + "</div>\n";
}

std::string starts_html(const RunRecord& run) {
  if (run.starts.empty())
    return "<p class=\"soft\">The run's folder does not say who computed it (no starts.jsonl).</p>\n";
  std::string html =
      "<table><tr><th>from step</th><th>started (UTC)</th><th>ranks</th><th>batch</th><th>program</th></tr>\n";
  for (const RunStart& start : run.starts)
    html += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>lockstep {}<br><span class=\"soft\">build "
        "{}</span></td></tr>\n",
        start.step + 1, html_text(start.time), html_text(start.ranks), html_text(start.batch), html_text(start.version),
        html_text(start.build.substr(0, 12)));
  return html + "</table>\n";
}

/// A text of several lines as it stands.
std::string pre_html(const std::string& text) {
  std::string html;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) html += html_text(line) + "\n";
  return "<pre>" + html + "</pre>\n";
}

std::string remarks_html(const RunRecord& run) {
  std::string html;
  for (const RunRecord::Rollback& back : run.rollbacks)
    html += fmt::format("<p>Steps {} to {} were done again; the later values are shown.</p>\n", back.to, back.from);
  if (run.bad_lines > 0)
    html += fmt::format("<p>{} of metrics.jsonl could not be read.</p>\n", counted(run.bad_lines, "line"));
  if (run.rows.front().step > 1)
    html += fmt::format("<p>metrics.jsonl begins at step {}.</p>\n", run.rows.front().step);
  return html;
}

}  // namespace

std::string report_html(const RunRecord& run) {
  const RunSummary sum = summary_of(run);
  const std::string name = html_text(std::filesystem::path(run.folder).filename().string());
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{} - Lockstep</title>\n"
      "<style>{}</style>\n</head>\n<body>\n<h1>{}</h1>\n",
      name, style, name);
  if (!run.starts.empty())
    html += fmt::format("<p class=\"soft\">{}<br>{}</p>\n", html_text(run.starts.back().model),
                        html_text(run.starts.back().data));
  html += numbers_html(run, sum) + remarks_html(run);
  html += chart_svg(loss_chart(run)) + chart_svg(lr_chart(run)) + chart_svg(norm_chart(run)) +
          chart_svg(rate_chart(run, sum.items_per_s));
  if (const auto scale = scale_chart(run)) html += chart_svg(*scale);
  html += "<h2>Computed by</h2>\n" + starts_html(run);
  html += "<h2>The job</h2>\n";
  html += run.job.empty() ? "<p class=\"soft\">There is no job.yaml in the run's folder.</p>\n" : pre_html(run.job);
  return html + "</body>\n</html>\n";
}

std::string write_report(const std::string& folder, const std::string& output) {
  const RunRecord run = read_run(folder);
  const std::string html = report_html(run);
  const std::string path = output.empty() ? run.folder + "/report.html" : output;
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << html;
  out.flush();
  if (!out)
    fail(ErrorKind::environment, "{}: cannot be written: {}. Name another place with --output FILE", printable(path),
         std::strerror(errno));
  const RunSummary sum = summary_of(run);
  return fmt::format("{}: {} of {}, loss {}{}\n", printable(path), counted(sum.steps, "step"), printable(run.folder),
                     number(sum.last_loss), sum.last_val_loss ? ", val_loss " + number(*sum.last_val_loss) : "");
}

}  // namespace lockstep::run
