#include "apps/lr_command.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>

#include "apps/arguments.hpp"
#include "apps/lr_curve.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
#include "sched/outlook.hpp"

namespace lockstep {
namespace {

/// What the updates use, a list a parameter group and quantity.
struct Table {
  struct Group {
    std::string name;
    std::vector<double> lr = {}, beta1 = {}, beta2 = {};  ///< without betas, beta1 is the momentum
  };
  std::vector<Group> groups;
  std::int64_t updates = 0;
  bool betas = true;
};

Table evaluate(const sched::Schedule& schedule, const LrRequest& request) {
  const std::int64_t most = most_updates(schedule.groups());
  if (request.updates < 1 || request.updates > most)
    fail(ErrorKind::config, "lockstep lr: --updates is {}, but must be {} with {}", with_separators(request.updates),
         limits_text<std::int64_t>(1, most), counted(static_cast<std::int64_t>(schedule.groups()), "parameter group"));
  Table table{.groups = {}, .updates = request.updates, .betas = schedule.initial().front().has_betas};
  for (std::size_t g = 0; g < schedule.groups(); ++g)
    table.groups.push_back(
        {.name = g < request.group_names.size() ? request.group_names[g] : fmt::format("group {}", g)});
  std::vector<StepValues> values(schedule.groups());
  for (std::int64_t k = 0; k < request.updates; ++k) {
    schedule.values_at(k, values);
    for (std::size_t g = 0; g < values.size(); ++g) {
      table.groups[g].lr.push_back(values[g].lr);
      table.groups[g].beta1.push_back(table.betas ? values[g].beta1 : values[g].momentum);
      if (table.betas) table.groups[g].beta2.push_back(values[g].beta2);
    }
  }
  return table;
}

std::string csv_of(const Table& table) {
  std::string text = table.betas ? "update,group,lr,beta1,beta2\n" : "update,group,lr,momentum\n";
  const auto out = std::back_inserter(text);
  for (std::size_t k = 0; k < static_cast<std::size_t>(table.updates); ++k)
    for (std::size_t g = 0; g < table.groups.size(); ++g) {
      const Table::Group& v = table.groups[g];
      fmt::format_to(out, "{},{},{},{}", k, g, v.lr[k], v.beta1[k]);
      if (table.betas) fmt::format_to(out, ",{}", v.beta2[k]);
      text += '\n';
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

/// JSON has no infinite number and no NaN: null.
std::string list_of(const std::vector<double>& values) {
  std::string text = "[";
  for (const double value : values) {
    if (text.size() > 1) text += ", ";
    text += std::isfinite(value) ? fmt::format("{}", value) : "null";
  }
  return text + "]";
}

/// What the schedule warns of, and what these very updates show.
std::vector<std::string> warnings_of(const sched::Schedule& schedule, const Table& table) {
  std::vector<std::string> warnings = schedule.warnings();
  for (const std::string& sentence : sched::outlook(schedule, table.updates))
    if (std::find(warnings.begin(), warnings.end(), sentence) == warnings.end()) warnings.push_back(sentence);
  return warnings;
}

std::string json_of(const sched::Schedule& schedule, const Table& table) {
  std::string text =
      fmt::format("{{\n  \"scheduler\": {},\n  \"updates\": {},\n  \"warnings\": {},\n  \"notes\": {},\n",
                  quoted(std::string(schedule.type())), table.updates, quoted_list(warnings_of(schedule, table)),
                  quoted_list(schedule.notes()));
  text += "  \"groups\": [";
  for (const Table::Group& group : table.groups) {
    text += fmt::format("{}\n    {{\n      \"name\": {},\n      \"lr\": {}", &group == table.groups.data() ? "" : ",",
                        quoted(group.name), list_of(group.lr));
    if (table.betas)
      text += fmt::format(",\n      \"beta1\": {},\n      \"beta2\": {}", list_of(group.beta1), list_of(group.beta2));
    else
      text += fmt::format(",\n      \"momentum\": {}", list_of(group.beta1));
    text += "\n    }";
  }
  return text + "\n  ]\n}\n";
}

struct Extremes {
  std::size_t least = 0;
  std::size_t greatest = 0;
  std::size_t finite = 0;  ///< how many of the values are
};

/// Of the finite values.
Extremes extremes_of(const std::vector<double>& values) {
  Extremes result;
  for (std::size_t k = 0; k < values.size(); ++k) {
    if (!std::isfinite(values[k])) continue;
    if (result.finite == 0) result.least = result.greatest = k;
    if (values[k] < values[result.least]) result.least = k;
    if (values[k] > values[result.greatest]) result.greatest = k;
    ++result.finite;
  }
  return result;
}

/// "first 0, least 0 (update 0), greatest 0.001 (update 9), last 0.0005", and how many values are not finite.
std::string summary_of(const std::vector<double>& values) {
  const Extremes at = extremes_of(values);
  std::string text = fmt::format("first {}", values.front());
  if (at.finite > 0)
    text += fmt::format(", least {} (update {}), greatest {} (update {})", values[at.least], at.least,
                        values[at.greatest], at.greatest);
  text += fmt::format(", last {}", values.back());
  if (at.finite < values.size())
    text += fmt::format("; {} of {} values are not finite", values.size() - at.finite, values.size());
  return text;
}

/// Equal bits, so that NaN equals itself.
bool coincide(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

/// The learning rates, each distinct one once.
std::vector<Curve> curves_of(const Table& table) {
  std::vector<Curve> curves;
  for (const Table::Group& group : table.groups) {
    const auto same = std::find_if(curves.begin(), curves.end(),
                                   [&](const Curve& curve) { return coincide(curve.values, group.lr); });
    if (same == curves.end())
      curves.push_back({{group.name}, group.lr});
    else
      same->names.push_back(group.name);
  }
  return curves;
}

std::string momentum_line(const Table& table) {
  const std::vector<double>& values = table.groups.front().beta1;
  const char* name = table.betas ? "beta1" : "momentum";
  const bool stays = std::all_of(values.begin(), values.end(), [&](double v) { return v == values[0]; });
  return stays ? fmt::format("{} stays {}\n", name, values[0])
               : fmt::format("{} moves: {}\n", name, summary_of(values));
}

// What the numbers themselves say, whatever the scheduler.
std::string observations(const Table& table) {
  std::string text;
  const std::vector<double>& lr = table.groups.front().lr;
  if (lr[0] == 0) {
    std::size_t zeros = 1;
    while (zeros < lr.size() && lr[zeros] == 0) ++zeros;
    text += zeros == 1 ? "note: the first update uses lr 0 and changes no parameter\n"
                       : fmt::format("note: the first {} updates use lr 0 and change no parameter\n", zeros);
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
  std::string text = fmt::format("learning rate, {}, {}\n\n{}\n", schedule.type(), counted(table.updates, "update"),
                                 terminal_chart(curves));
  for (const Curve& curve : curves)
    text += fmt::format("{}: {}\n", fmt::join(curve.names, " = "), summary_of(curve.values));
  text += momentum_line(table);
  for (const std::string& warning : warnings_of(schedule, table)) text += "warning: " + warning + "\n";
  for (const std::string& note : schedule.notes()) text += "note: " + note + "\n";
  return text + observations(table);
}

void write_plot(const std::filesystem::path& file, const sched::Schedule& schedule, const Table& table) {
  write_picture(file, svg_chart(curves_of(table), fmt::format("{}: learning rate of {}", schedule.type(),
                                                              counted(table.updates, "update"))));
}

}  // namespace

std::int64_t most_updates(std::size_t groups) { return 10'000'000 / static_cast<std::int64_t>(groups); }

LrFormat parse_lr_format(std::string_view word) {
  if (word == "text") return LrFormat::text;
  if (word == "csv") return LrFormat::csv;
  if (word == "json") return LrFormat::json;
  fail(ErrorKind::config, "--format {}: expected text, csv or json", word);
}

std::string lr_report(const sched::Schedule& schedule, const LrRequest& request) {
  if (request.plot) require_svg(*request.plot);
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
