#include "run/report_chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/text.hpp"

namespace lockstep::run {
namespace {

constexpr double width = 860, left = 74, right = 828, top = 40, bottom = 262;
constexpr int columns = 754;  ///< pixels between left and right

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void take(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  [[nodiscard]] bool empty() const { return low > high; }
};

Range values_of(const Chart& chart) {
  Range range;
  for (const ChartLine& line : chart.lines)
    for (const double y : line.y) range.take(y);
  return range;
}

/// A round distance between ticks that gives about `count` of them: 1, 2 or 5 times a power of ten.
double tick_step(double span, double count) {
  const double raw = span / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power * (1 + 1e-9)) return factor * power;
  return 10 * power;
}

std::vector<double> linear_ticks(double low, double high, double count) {
  const double step = tick_step(high - low, count);
  std::vector<double> ticks;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) ticks.push_back(i * step);
  return ticks;
}

/// Powers of ten, with 2 and 5 times them where there are few.
std::vector<double> log_ticks(double low, double high) {
  const double decades = std::log10(high / low);
  const double every = std::max(1.0, std::ceil(decades / 7));
  std::vector<double> ticks;
  for (double power = std::floor(std::log10(low)); power <= std::ceil(std::log10(high)); ++power) {
    if (std::fmod(power, every) != 0) continue;
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor > 1 && decades > 2.5) continue;
      const double tick = factor * std::pow(10.0, power);
      if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push_back(tick);
    }
  }
  return ticks;
}

/// From data to pixels.
struct Frame {
  double first = 0, last = 1;  ///< x
  double low = 0, high = 1;    ///< y
  bool log = false;

  [[nodiscard]] double px(double x) const { return left + (right - left) * (x - first) / (last - first); }
  [[nodiscard]] double py(double y) const {
    const double part = log ? std::log(y / low) / std::log(high / low) : (y - low) / (high - low);
    return bottom - (bottom - top) * std::clamp(part, 0.0, 1.0);
  }
};

Frame frame_of(const Chart& chart) {
  Frame frame;
  Range xs;
  for (const ChartLine& line : chart.lines)
    for (const double x : line.x) xs.take(x);
  if (!xs.empty()) {
    frame.first = xs.low;
    frame.last = xs.high > xs.low ? xs.high : xs.low + 1;
  }
  Range ys = values_of(chart);
  if (chart.level && !ys.empty() && *chart.level < 3 * ys.high) ys.take(*chart.level);
  if (ys.empty()) return frame;
  frame.log = is_log(chart);
  if (frame.log) {
    const double room = std::pow(ys.high / ys.low, 0.04);
    frame.low = ys.low / room;
    frame.high = ys.high * room;
    return frame;
  }
  if (chart.from_zero) ys.low = std::min(ys.low, 0.0);
  if (ys.high - ys.low < 1e-300) {
    const double room = std::max(std::abs(ys.high) * 0.1, 1e-12);
    ys.high += room;
    if (!chart.from_zero) ys.low -= room;
  }
  const double room = (ys.high - ys.low) * 0.05;
  frame.low = chart.from_zero && ys.low == 0 ? 0 : ys.low - room;
  frame.high = ys.high + room;
  return frame;
}

/// The line's path. Where several values fall into one column of pixels, the first, least, greatest and last of them.
std::string path_of(const ChartLine& line, const Frame& frame) {
  std::string path;
  bool down = false;
  const auto to = [&](std::size_t i) {
    path +=
        fmt::format("{}{:.1f} {:.1f}", std::exchange(down, true) ? "L" : "M", frame.px(line.x[i]), frame.py(line.y[i]));
  };
  const bool dense = line.x.size() > 2 * columns;
  for (std::size_t i = 0; i < line.x.size();) {
    if (!std::isfinite(line.y[i])) {
      down = false;
      ++i;
      continue;
    }
    std::size_t end = i + 1, least = i, greatest = i;
    const double column = std::floor(frame.px(line.x[i]));
    while (dense && end < line.x.size() && std::isfinite(line.y[end]) && std::floor(frame.px(line.x[end])) == column) {
      if (line.y[end] < line.y[least]) least = end;
      if (line.y[end] > line.y[greatest]) greatest = end;
      ++end;
    }
    std::vector<std::size_t> kept = {i, least, greatest, end - 1};
    std::sort(kept.begin(), kept.end());
    kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
    for (const std::size_t k : kept) to(k);
    i = end;
  }
  return path;
}

std::string line_svg(const ChartLine& line, const Frame& frame) {
  const bool faint = line.look == ChartLine::Look::faint;
  std::string svg =
      fmt::format("<path class=\"l c{}{}\" d=\"{}\"/>\n", line.colour, faint ? " faint" : "", path_of(line, frame));
  // A value between two that are not finite makes no line; it is shown as a dot, like every one of a points line.
  for (std::size_t i = 0; i < line.x.size(); ++i) {
    if (!std::isfinite(line.y[i])) continue;
    const bool alone =
        (i == 0 || !std::isfinite(line.y[i - 1])) && (i + 1 == line.y.size() || !std::isfinite(line.y[i + 1]));
    if (alone || (line.look == ChartLine::Look::points && line.x.size() <= 200))
      svg += fmt::format(
          "<circle class=\"p c{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"><title>step {}: {:.6g}</title></circle>\n",
          line.colour, frame.px(line.x[i]), frame.py(line.y[i]), line.x[i], line.y[i]);
  }
  return svg;
}

std::string mark_svg(const ChartMark& mark, const Frame& frame) {
  std::string svg;
  double drawn = -1;
  for (const double x : mark.x) {
    const double px = frame.px(x);
    if (px < left - 0.5 || px > right + 0.5 || std::floor(px) == drawn) continue;  // one a column of pixels
    drawn = std::floor(px);
    switch (mark.look) {
      case ChartMark::Look::skipped:
        svg += fmt::format("<path class=\"skip\" d=\"M{:.1f} {}v-9\"/>\n", px, bottom);
        break;
      case ChartMark::Look::not_finite:
        svg += fmt::format("<path class=\"bad\" d=\"M{0:.1f} {1}l7 7m0 -7l-7 7\"/>\n", px - 3.5, top + 2);
        break;
      case ChartMark::Look::resumed:
        svg += fmt::format("<path class=\"resume\" d=\"M{:.1f} {}V{}\"/>\n", px, top, bottom);
        break;
    }
  }
  return svg;
}

std::string axes_svg(const Chart& chart, const Frame& frame) {
  std::string svg;
  for (const double y : frame.log ? log_ticks(frame.low, frame.high) : linear_ticks(frame.low, frame.high, 5)) {
    const double at = frame.py(y);
    svg +=
        fmt::format("<path class=\"grid\" d=\"M{} {:.1f}H{}\"/><text x=\"{}\" y=\"{:.1f}\" class=\"end\">{}</text>\n",
                    left, at, right, left - 8, at + 4, tick_text(y));
  }
  for (const double x : linear_ticks(frame.first, frame.last, 8)) {
    if (x != std::floor(x)) continue;
    const double at = frame.px(x);
    svg += fmt::format("<path class=\"axis\" d=\"M{:.1f} {}v5\"/><text x=\"{:.1f}\" y=\"{}\" class=\"mid\">{}</text>\n",
                       at, bottom, at, bottom + 20, tick_text(x));
  }
  svg += fmt::format("<path class=\"axis\" d=\"M{} {}V{}H{}\"/>\n", left, top, bottom, right);
  svg += fmt::format("<text x=\"{}\" y=\"{}\" class=\"end\">step</text>\n", right, bottom + 38);
  std::string title = html_text(chart.title);
  if (!chart.unit.empty() || frame.log)
    title += fmt::format("<tspan class=\"dim\" dx=\"8\">{}{}{}</tspan>", html_text(chart.unit),
                         chart.unit.empty() || !frame.log ? "" : ", ", frame.log ? "log scale" : "");
  return svg + fmt::format("<text x=\"{}\" y=\"22\" class=\"title\">{}</text>\n", left, title);
}

/// Entries side by side, as many a line as fit.
std::string legend_svg(const Chart& chart, double& y) {
  std::string svg;
  double x = left;
  const auto entry = [&](const std::string& name, const std::string& sample) {
    const double wide = 34 + 7.3 * static_cast<double>(std::min<std::size_t>(name.size(), 90));
    if (x > left && x + wide > right) {
      x = left;
      y += 20;
    }
    svg += fmt::format("<g transform=\"translate({:.1f} {:.1f})\">{}<text x=\"24\" y=\"4\">{}</text></g>\n", x, y,
                       sample, html_text(name.size() <= 90 ? name : name.substr(0, 87) + "..."));
    x += wide + 14;
  };
  for (const ChartLine& line : chart.lines)
    entry(line.name, fmt::format("<path class=\"l c{}{}\" d=\"M0 0h18\"/>", line.colour,
                                 line.look == ChartLine::Look::faint ? " faint" : ""));
  if (chart.level) entry(chart.level_name, "<path class=\"level\" d=\"M0 0h18\"/>");
  for (const ChartMark& mark : chart.marks) {
    if (mark.x.empty()) continue;
    const char* sample = mark.look == ChartMark::Look::skipped      ? "<path class=\"skip\" d=\"M9 5v-9\"/>"
                         : mark.look == ChartMark::Look::not_finite ? "<path class=\"bad\" d=\"M5 -4l7 7m0 -7l-7 7\"/>"
                                                                    : "<path class=\"resume\" d=\"M9 7V-7\"/>";
    entry(mark.name, sample);
  }
  return svg;
}

}  // namespace

bool is_log(const Chart& chart) {
  const Range range = values_of(chart);
  return chart.may_be_log && !range.empty() && range.low > 0 && range.high > 30 * range.low;
}

std::string html_text(const std::string& text) {
  std::string result;
  for (const char c : printable(text)) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string tick_text(double value) {
  const double size = std::abs(value);
  if (size >= 999.5e9 || (size > 0 && size < 1e-3)) return fmt::format("{:.3g}", value);
  for (const auto& [unit, letter] : {std::pair(1e9, "G"), std::pair(1e6, "M"), std::pair(1e4, "k")}) {
    if (size < unit) continue;
    const double divisor = unit == 1e4 ? 1e3 : unit;
    return fmt::format("{:.4g}{}", value / divisor, letter);
  }
  return fmt::format("{:.4g}", size < 1e-12 ? 0.0 : value);
}

std::string chart_svg(const Chart& chart) {
  const Frame frame = frame_of(chart);
  std::string body = axes_svg(chart, frame);
  for (const ChartMark& mark : chart.marks) body += mark_svg(mark, frame);
  for (const ChartLine& line : chart.lines) body += line_svg(line, frame);
  if (chart.level && *chart.level >= frame.low && *chart.level <= frame.high)
    body += fmt::format("<path class=\"level\" d=\"M{} {:.1f}H{}\"/>\n", left, frame.py(*chart.level), right);
  double y = bottom + 58;
  body += legend_svg(chart, y);
  return fmt::format("<figure><svg viewBox=\"0 0 {0} {1}\" role=\"img\" aria-label=\"{2}\">\n{3}</svg></figure>\n",
                     width, y + 14, html_text(chart.title), body);
}

}  // namespace lockstep::run
