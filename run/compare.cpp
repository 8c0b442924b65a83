#include "run/compare.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/text.hpp"
#include "run/job_changes.hpp"
#include "run/progress.hpp"
#include "run/report_data.hpp"

namespace lockstep::run {
namespace {

/// A table of three columns: what, in A, in B. Cells may be long; the second column is as wide as its widest, up to a
/// limit.
class Table {
 public:
  void row(std::string what, std::string a, std::string b) {
    rows_.push_back({std::move(what), std::move(a), std::move(b)});
  }
  [[nodiscard]] std::string text() const {
    constexpr std::size_t widest = 44;
    std::size_t first = 0, second = 0;
    for (const Row& row : rows_) {
      first = std::max(first, row.what.size());
      second = std::max(second, std::min(row.a.size(), widest));
    }
    std::string text;
    for (const Row& row : rows_) text += fmt::format("  {:<{}}  {:<{}}  {}\n", row.what, first, row.a, second, row.b);
    return text;
  }
  [[nodiscard]] bool empty() const { return rows_.empty(); }

 private:
  struct Row {
    std::string what, a, b;
  };
  std::vector<Row> rows_;
};

std::string number(double value) { return std::isfinite(value) ? fmt::format("{:.6g}", value) : "not finite"; }
std::string number(const std::optional<double>& value) { return value ? number(*value) : "-"; }

std::string jobs_text(const RunRecord& a, const RunRecord& b) {
  const auto job_a = job_of_then(a.job), job_b = job_of_then(b.job);
  if (!job_a || !job_b) return "job: one of the two job.yaml cannot be read by this version\n";
  Table table;
  for (const JobChange& change : changes_between(*job_a, *job_b))
    table.row(printable(change.key), printable(change.before), printable(change.now));
  return table.empty() ? "job: the same\n" : "job: differs in\n" + table.text();
}

std::string starts_text(const RunRecord& a, const RunRecord& b) {
  if (a.starts.empty() || b.starts.empty()) return {};
  const RunStart &last_a = a.starts.back(), &last_b = b.starts.back();
  Table table;
  table.row("ranks", printable(last_a.ranks), printable(last_b.ranks));
  table.row("program", printable(last_a.version + " " + last_a.build.substr(0, 12)),
            printable(last_b.version + " " + last_b.build.substr(0, 12)));
  table.row("starts", fmt::format("{}", a.starts.size()), fmt::format("{}", b.starts.size()));
  return "computed by\n" + table.text();
}

std::string ends_text(const RunRecord& a, const RunRecord& b) {
  const RunSummary sum_a = summary_of(a), sum_b = summary_of(b);
  Table table;
  const auto row = [&](const char* what, const auto& value) { table.row(what, value(a, sum_a), value(b, sum_b)); };
  row("steps", [](const RunRecord&, const RunSummary& s) { return fmt::format("{}", s.steps); });
  row("updates", [](const RunRecord&, const RunSummary& s) { return fmt::format("{}", s.updates); });
  row("skipped", [](const RunRecord&, const RunSummary& s) { return fmt::format("{}", s.skipped); });
  row("loss, last", [](const RunRecord&, const RunSummary& s) { return number(s.last_loss); });
  row("val_loss, last", [](const RunRecord&, const RunSummary& s) { return number(s.last_val_loss); });
  row("val_loss, best", [](const RunRecord&, const RunSummary& s) {
    return s.best_val_loss ? fmt::format("{} (step {})", number(s.best_val_loss), s.best_step) : std::string("-");
  });
  row("rate, median", [](const RunRecord& run, const RunSummary& s) {
    return fmt::format("{} {}/s", short_number(s.items_per_s), run.item);
  });
  return "ends\n" + table.text();
}

std::string at_step(const MetricsRow& a, const MetricsRow& b) {
  Table table;
  table.row("loss", fmt::format("{} ({})", number(a.loss), a.loss_bits),
            fmt::format("{} ({})", number(b.loss), b.loss_bits));
  table.row("lr", a.lr.empty() ? "-" : fmt::format("{}", a.lr.front()),
            b.lr.empty() ? "-" : fmt::format("{}", b.lr.front()));
  table.row("grad_norm", number(a.grad_norm), number(b.grad_norm));
  table.row("loss_scale", number(a.loss_scale), number(b.loss_scale));
  return table.text();
}

/// Walks the steps that both have.
Comparison steps_of(const RunRecord& a, const RunRecord& b) {
  std::int64_t common = 0, differing = 0;
  double furthest = 0;
  std::optional<std::pair<const MetricsRow*, const MetricsRow*>> first;
  for (std::size_t i = 0, k = 0; i < a.rows.size() && k < b.rows.size();) {
    const MetricsRow &row_a = a.rows[i], &row_b = b.rows[k];
    if (row_a.step != row_b.step) {
      ++(row_a.step < row_b.step ? i : k);
      continue;
    }
    ++common;
    if (row_a.loss_bits != row_b.loss_bits) {
      ++differing;
      if (!first) first.emplace(&row_a, &row_b);
      if (const double gap = std::abs(row_a.loss - row_b.loss); std::isfinite(gap)) furthest = std::max(furthest, gap);
    }
    ++i;
    ++k;
  }
  if (common == 0) return {.same = false, .text = "losses: there is no step that both runs have\n"};
  if (!first)
    return {.same = true,
            .text = fmt::format("losses: the same bits in all {} that both have\n", counted(common, "step"))};
  return {.same = false,
          .text = fmt::format("losses: the first other bits are at step {}; {} of {} differ, by {} at most\n{}",
                              first->first->step, differing, counted(common, "common step"), number(furthest),
                              at_step(*first->first, *first->second))};
}

}  // namespace

Comparison compare_runs(const std::string& a, const std::string& b) {
  const RunRecord run_a = read_run(a), run_b = read_run(b);
  Comparison result = steps_of(run_a, run_b);
  result.text = fmt::format("A: {}\nB: {}\n", printable(run_a.folder), printable(run_b.folder)) +
                jobs_text(run_a, run_b) + starts_text(run_a, run_b) + ends_text(run_a, run_b) + result.text;
  return result;
}

}  // namespace lockstep::run
