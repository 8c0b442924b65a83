#include "apps/lr_command.hpp"

#include <fstream>

#include "apps/lr_curve.hpp"
#include "core/error.hpp"

namespace lockstep {
namespace {

using Row = std::vector<StepValues>;  // one entry a group

struct Table {
  std::vector<Row> rows;  // one entry an update
  std::vector<std::string> names;
  bool betas = true;

  [[nodiscard]] std::vector<double> column(std::size_t group, double StepValues::*member) const {
    std::vector<double> values;
    values.reserve(rows.size());
    for (const Row& row : rows) values.push_back(row[group].*member);
    return values;
  }
};

Table evaluate(const sched::Schedule& schedule, const LrRequest& request) {
  if (request.updates < 1)
    fail(ErrorKind::config, "lockstep lr: --updates is {}, but must be at least 1", request.updates);
  Table table;
  table.betas = schedule.initial().front().has_betas;
  for (std::size_t g = 0; g < schedule.groups(); ++g)
    table.names.push_back(g < request.group_names.size() ? request.group_names[g] : fmt::format("group {}", g));
  table.rows.assign(static_cast<std::size_t>(request.updates), Row(schedule.groups()));
  for (std::size_t k = 0; k < table.rows.size(); ++k) schedule.values_at(static_cast<std::int64_t>(k), table.rows[k]);
  return table;
}

std::string csv_of(const Table& table) {
  std::string text = table.betas ? "update,group,lr,beta1,beta2\n" : "update,group,lr,momentum\n";
  for (std::size_t k = 0; k < table.rows.size(); ++k)
    for (std::size_t g = 0; g < table.names.size(); ++g) {
      const StepValues& v = table.rows[k][g];
      text += table.betas ? fmt::format("{},{},{},{},{}\n", k, g, v.lr, v.beta1, v.beta2)
                          : fmt::format("{},{},{},{}\n", k, g, v.lr, v.momentum);
    }
  return text;
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (static_cast<unsigned char>(c) < 0x20)
      result += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      result += c;
  }
  return result + '"';
}

std::string quoted_list(const std::vector<std::string>& texts) {
  std::string result;
  for (const std::string& text : texts) result += (result.empty() ? "" : ", ") + quoted(text);
  return "[" + result + "]";
}

std::string json_of(const sched::Schedule& schedule, const Table& table) {
  const auto list = [&](std::size_t group, double StepValues::*member) {
    return fmt::format("[{}]", fmt::join(table.column(group, member), ", "));
  };
  std::string text =
      fmt::format("{{\n  \"scheduler\": {},\n  \"updates\": {},\n  \"warnings\": {},\n  \"notes\": {},\n",
                  quoted(std::string(schedule.type())), table.rows.size(), quoted_list(schedule.warnings()),
                  quoted_list(schedule.notes()));
  text += "  \"groups\": [";
  for (std::size_t g = 0; g < table.names.size(); ++g) {
    text += fmt::format("{}\n    {{\n      \"name\": {},\n      \"lr\": {}", g == 0 ? "" : ",", quoted(table.names[g]),
                        list(g, &StepValues::lr));
    if (table.betas)
      text += fmt::format(",\n      \"beta1\": {},\n      \"beta2\": {}", list(g, &StepValues::beta1),
                          list(g, &StepValues::beta2));
    else
      text += fmt::format(",\n      \"momentum\": {}", list(g, &StepValues::momentum));
    text += "\n    }";
  }
  return text + "\n  ]\n}\n";
}

struct Extremes {
  std::size_t least = 0;
  std::size_t greatest = 0;
};

Extremes extremes_of(const std::vector<double>& values) {
  Extremes result;
  for (std::size_t k = 0; k < values.size(); ++k) {
    if (values[k] < values[result.least]) result.least = k;
    if (values[k] > values[result.greatest]) result.greatest = k;
  }
  return result;
}

std::vector<Curve> curves_of(const Table& table) {
  std::vector<Curve> curves;
  for (std::size_t g = 0; g < table.names.size(); ++g)
    curves.push_back({table.names[g], table.column(g, &StepValues::lr)});
  return curves;
}

std::string momentum_line(const Table& table) {
  const auto values = table.column(0, table.betas ? &StepValues::beta1 : &StepValues::momentum);
  const Extremes at = extremes_of(values);
  const char* name = table.betas ? "beta1" : "momentum";
  if (values[at.least] == values[at.greatest]) return fmt::format("{} stays {}\n", name, values[0]);
  return fmt::format("{} moves: first {}, least {} (update {}), greatest {} (update {}), last {}\n", name,
                     values.front(), values[at.least], at.least, values[at.greatest], at.greatest, values.back());
}

// What the numbers themselves say, whatever the scheduler.
std::string observations(const Table& table) {
  std::string text;
  const std::vector<double> lr = table.column(0, &StepValues::lr);
  if (lr[0] == 0) {
    std::size_t zeros = 1;
    while (zeros < lr.size() && lr[zeros] == 0) ++zeros;
    text += fmt::format("note: the first {} use lr 0 and change no parameter\n",
                        zeros == 1 ? "update" : fmt::format("{} updates", zeros));
  }
  for (std::size_t k = 0; k < lr.size(); ++k)
    if (lr[k] < 0) {
      text += fmt::format("note: from update {} on the learning rate is negative\n", k);
      break;
    }
  if (lr.size() > 1 && lr.back() == 0 && lr[lr.size() - 2] == 0) {
    std::size_t from = lr.size() - 1;
    while (from > 0 && lr[from - 1] == 0) --from;
    if (from > 0) text += fmt::format("note: from update {} on the learning rate is 0: nothing is learnt\n", from);
  }
  return text;
}

std::string text_of(const sched::Schedule& schedule, const Table& table) {
  const std::vector<Curve> curves = curves_of(table);
  std::string text =
      fmt::format("learning rate, {}, {} updates\n\n{}\n", schedule.type(), table.rows.size(), terminal_chart(curves));
  for (const Curve& curve : curves) {
    const Extremes at = extremes_of(curve.values);
    text += fmt::format("{}: first {}, least {} (update {}), greatest {} (update {}), last {}\n", curve.name,
                        curve.values.front(), curve.values[at.least], at.least, curve.values[at.greatest], at.greatest,
                        curve.values.back());
  }
  text += momentum_line(table);
  for (const std::string& warning : schedule.warnings()) text += "warning: " + warning + "\n";
  for (const std::string& note : schedule.notes()) text += "note: " + note + "\n";
  return text + observations(table);
}

void write_plot(const std::filesystem::path& file, const sched::Schedule& schedule, const Table& table) {
  std::ofstream out(file, std::ios::binary);
  out << svg_chart(curves_of(table),
                   fmt::format("{}: learning rate of {} updates", schedule.type(), table.rows.size()));
  out.close();
  if (!out) fail(ErrorKind::environment, "lockstep lr: cannot write the picture {}", file.string());
}

}  // namespace

LrFormat parse_lr_format(std::string_view word) {
  if (word == "text") return LrFormat::text;
  if (word == "csv") return LrFormat::csv;
  if (word == "json") return LrFormat::json;
  fail(ErrorKind::config, "--format {}: expected text, csv or json", word);
}

std::string lr_report(const sched::Schedule& schedule, const LrRequest& request) {
  const Table table = evaluate(schedule, request);
  if (request.plot) write_plot(*request.plot, schedule, table);
  switch (request.format) {
    case LrFormat::csv:
      return csv_of(table);
    case LrFormat::json:
      return json_of(schedule, table);
    case LrFormat::text:
      break;
  }
  return text_of(schedule, table);
}

}  // namespace lockstep
