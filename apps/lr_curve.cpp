#include "apps/lr_curve.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <utility>

#include "config/words.hpp"
#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep {
namespace {

struct Range {
  double low = 0;
  double high = 1;
};

/// The span of the vertical axis: from 0 if the values allow it, never empty, and narrow enough to calculate with.
Range value_range(const std::vector<Curve>& curves, const Axes& axes) {
  if (axes.range) return {axes.range->first, axes.range->second};
  constexpr double widest = std::numeric_limits<double>::max() / 4;
  constexpr double narrowest = 1e-300;
  Range range{0.0, 0.0};
  for (const Curve& curve : curves)
    for (const double value : curve.values) {
      if (!std::isfinite(value)) continue;
      range.low = std::min(range.low, std::max(value, -widest));
      range.high = std::max(range.high, std::min(value, widest));
    }
  if (range.high - range.low < narrowest) range.high = range.low + 1.0;
  return range;
}

/// Where a value lies on a logarithmic axis: 0 at its begin, 1 at its end.
double part_of(double value, const std::pair<double, double>& axis) {
  return std::log(value / axis.first) / std::log(axis.second / axis.first);
}

/// The least and greatest finite of the values begin .. end - 1, if there is one.
std::optional<Range> range_of(const std::vector<double>& values, std::size_t begin, std::size_t end) {
  std::optional<Range> range;
  for (std::size_t k = begin; k < end; ++k) {
    if (!std::isfinite(values[k])) continue;
    if (!range) range = {values[k], values[k]};
    range->low = std::min(range->low, values[k]);
    range->high = std::max(range->high, values[k]);
  }
  return range;
}

/// The range of the updates that fall into column `x` of `columns`, and, so that the line does not break, of the last
/// value of the column before.
std::optional<Range> column_range(const std::vector<double>& values, std::size_t x, std::size_t columns) {
  const std::size_t last = values.size() - 1;
  const auto update_at = [&](std::size_t column) { return column * last / (columns - 1); };
  return range_of(values, x == 0 ? 0 : update_at(x - 1), update_at(x) + 1);
}

constexpr std::size_t chart_columns = 60;
constexpr std::size_t chart_rows = 16;

/// A grid of 2 x 4 dots a character.
class BrailleGrid {
 public:
  static constexpr std::size_t width = chart_columns * 2;
  static constexpr std::size_t height = chart_rows * 4;

  /// `y` counts from the bottom.
  void set(std::size_t x, std::size_t y) {
    static constexpr std::array<std::array<unsigned, 2>, 4> bits = {
        {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}};
    const std::size_t from_top = height - 1 - y;
    cells_[from_top / 4][x / 2] |= bits[from_top % 4][x % 2];
  }

  [[nodiscard]] std::string row(std::size_t r) const {
    std::string text;
    for (const unsigned cell : cells_[r]) {
      if (cell == 0) {
        text += ' ';
        continue;
      }
      const unsigned code = 0x2800U + cell;  // UTF-8 of U+2800 + dots
      text += static_cast<char>(0xE0U | (code >> 12U));
      text += static_cast<char>(0x80U | ((code >> 6U) & 0x3FU));
      text += static_cast<char>(0x80U | (code & 0x3FU));
    }
    while (!text.empty() && text.back() == ' ') text.pop_back();
    return text;
  }

 private:
  std::array<std::array<unsigned, chart_columns>, chart_rows> cells_ = {};
};

/// A round distance between ticks that gives about `count` of them: 1, 2 or 5 times a power of ten.
double tick_step(double span, double count) {
  const double raw = span / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power * (1 + 1e-9)) return factor * power;
  return 10.0 * power;
}

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : printable(text)) {
    if (c == '&')
      result += "&amp;";
    else if (c == '<')
      result += "&lt;";
    else if (c == '>')
      result += "&gt;";
    else
      result += c;
  }
  return result;
}

/// A line of the legend, cut to what the picture has room for.
std::string clipped(const std::string& text) {
  std::size_t room = 95;
  if (text.size() <= room) return text;
  while ((static_cast<unsigned char>(text[room]) & 0xC0U) == 0x80) --room;
  return text.substr(0, room) + "\u2026";
}

/// Names, and where the curve is first not finite: one line each.
std::vector<std::string> legend_of(const Curve& curve) {
  std::vector<std::string> lines = curve.names;
  const auto broken =
      std::find_if(curve.values.begin(), curve.values.end(), [](double v) { return !std::isfinite(v); });
  if (broken != curve.values.end())
    lines.push_back(fmt::format("{} at update {}: left out", *broken, broken - curve.values.begin()));
  return lines;
}

/// The path of a line through values: "M x y H x V y". Its pen is lifted where a value is not finite.
class Path {
 public:
  void line_to(double x, double y) {
    text_ += fmt::format("{}{:.2f} {:.2f}", std::exchange(down_, true) ? "L" : "M", x, y);
  }
  /// From (x, y) on to the right, after a vertical step if the pen was at another height.
  void tread(double x, double next_x, double y) {
    const std::string height = fmt::format("{:.2f}", y);
    if (!down_)
      text_ += fmt::format("M{:.2f} {}", x, height);
    else if (height != height_)
      text_ += fmt::format("H{:.2f}V{}", x, height);
    down_ = true;
    height_ = height;
    end_ = next_x;
  }
  void lift() {
    finish_tread();
    down_ = false;
  }
  [[nodiscard]] std::string take() {
    finish_tread();
    return std::move(text_);
  }

 private:
  void finish_tread() {
    if (end_) text_ += fmt::format("H{:.2f}", *end_);
    end_.reset();
  }

  std::string text_;
  bool down_ = false;
  std::string height_;
  std::optional<double> end_;  ///< where the tread at hand ends
};

/// Where the picture's axes are.
struct Frame {
  double left = 88, right = 796, top = 52, bottom = 372;
  double low, high;  ///< of the values
  double updates;    ///< the right end

  [[nodiscard]] double x_of(double update) const { return left + (right - left) * update / updates; }
  [[nodiscard]] double y_of(double value) const {
    return bottom - (bottom - top) * ((std::clamp(value, low, high) - low) / (high - low));
  }
};

/// Straight from value to value; of many values a pixel all are there.
std::string joined_path(const std::vector<double>& values, const Frame& frame) {
  Path path;
  for (std::size_t k = 0; k < values.size(); ++k) {
    if (std::isfinite(values[k]))
      path.line_to(frame.x_of(static_cast<double>(k)), frame.y_of(values[k]));
    else
      path.lift();
  }
  return path.take();
}

std::string path_of(const std::vector<double>& values, const Frame& frame) {
  // At most two points a pixel: the least and the greatest value there, so that no peak is lost.
  constexpr std::size_t columns = 1416;
  Path path;
  if (values.size() <= columns) {
    for (std::size_t k = 0; k < values.size(); ++k) {
      const auto update = static_cast<double>(k);
      if (std::isfinite(values[k]))
        path.tread(frame.x_of(update), frame.x_of(update + 1), frame.y_of(values[k]));
      else
        path.lift();
    }
    return path.take();
  }
  for (std::size_t x = 0; x < columns; ++x) {
    const std::size_t begin = x * values.size() / columns, end = (x + 1) * values.size() / columns;
    const std::optional<Range> column = range_of(values, begin, end);
    if (!column) {
      path.lift();
      continue;
    }
    const double at = frame.x_of(static_cast<double>(begin));
    const bool falling = values[end - 1] == column->low;
    path.line_to(at, frame.y_of(falling ? column->high : column->low));
    if (column->low != column->high) path.line_to(at, frame.y_of(falling ? column->low : column->high));
  }
  return path.take();
}

}  // namespace

std::string terminal_chart(const std::vector<Curve>& curves, const Axes& axes) {
  const Range range = value_range(curves, axes);
  BrailleGrid grid;
  const auto level = [&](double value) {
    const double part = (std::clamp(value, range.low, range.high) - range.low) / (range.high - range.low);
    return static_cast<std::size_t>(std::lround(part * static_cast<double>(BrailleGrid::height - 1)));
  };
  for (const Curve& curve : curves)
    for (std::size_t x = 0; x < BrailleGrid::width; ++x) {
      const std::optional<Range> column = column_range(curve.values, x, BrailleGrid::width);
      if (!column) continue;
      for (std::size_t y = level(column->low); y <= level(column->high); ++y) grid.set(x, y);
    }

  std::string text;
  for (std::size_t r = 0; r < chart_rows; ++r) {
    std::string label;
    if (r % 5 == 0) {
      const double part = 1.0 - static_cast<double>(r) / static_cast<double>(chart_rows - 1);
      label = fmt::format("{:.3g}", range.low + part * (range.high - range.low));
    }
    text += fmt::format("{:>9} {}{}\n", label, label.empty() ? "\u2502" : "\u2524", grid.row(r));
  }
  const std::string first = axes.exponential ? fmt::format("{:.3g}", axes.exponential->first) : "0";
  const std::string last = axes.exponential ? fmt::format("{:.3g}", axes.exponential->second)
                                            : std::to_string(curves.front().values.size() - 1);
  text += std::string(10, ' ') + "\u2514";
  for (std::size_t x = 0; x < chart_columns; ++x) text += "\u2500";
  text += fmt::format("\n{:11}{}{:^{}}{}\n", "", first, axes.across, chart_columns - first.size() - last.size(), last);
  if (axes.exponential && !axes.marks.empty()) {
    const double part = std::clamp(part_of(axes.marks[0].at, *axes.exponential), 0.0, 1.0);
    const auto column = static_cast<std::size_t>(std::lround(part * static_cast<double>(chart_columns - 1)));
    const std::string label = fmt::format("{} {:.3g}", axes.marks[0].name, axes.marks[0].at);
    text += column + 2 + label.size() <= chart_columns ? fmt::format("{:{}}\u25b2 {}\n", "", 11 + column, label)
                                                       : fmt::format("{:>{}} \u25b2\n", label, 10 + column);
  }
  return text;
}

std::string svg_chart(const std::vector<Curve>& curves, const std::string& title, const Axes& axes) {
  static constexpr std::array<const char*, 6> colours = {"#2563eb", "#d97706", "#059669",
                                                         "#c026d3", "#dc2626", "#475569"};
  constexpr double width = 820;
  std::vector<std::vector<std::string>> legends;
  std::size_t legend_lines = 0;
  for (const Curve& curve : curves) {
    legends.push_back(legend_of(curve));
    legend_lines += legends.back().size();
  }
  if (legend_lines == 1 && axes.marks.empty()) legend_lines = 0;  // one name says nothing
  const double height = 428 + 20.0 * static_cast<double>(legend_lines + axes.marks.size());
  const Range range = value_range(curves, axes);
  const double step = tick_step(range.high - range.low, 5);
  const Frame frame{.low = std::floor(range.low / step) * step,
                    .high = std::ceil(range.high / step - 1e-9) * step,
                    .updates = static_cast<double>(curves.front().values.size() - (axes.exponential ? 1U : 0U))};
  const auto [left, right, top, bottom, low, high, updates] = frame;

  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "font-family=\"sans-serif\" font-size=\"13\" fill=\"#334155\">\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n"
      "<text x=\"{2}\" y=\"30\" font-size=\"17\" font-weight=\"bold\" fill=\"#0f172a\">{3}</text>\n",
      width, height, left, escaped(title));
  for (int i = 0; low + i * step <= high + step * 1e-6; ++i) {
    const double value = std::abs(low + i * step) < step * 1e-6 ? 0.0 : low + i * step;
    const double y = frame.y_of(value);
    svg += fmt::format("<path d=\"M{:.1f} {:.1f}H{:.1f}\" stroke=\"#e2e8f0\"/>\n", left, y, right);
    svg +=
        fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{:.6g}</text>\n", left - 10, y + 4.5, value);
  }
  const auto tick = [&svg, base = bottom](double x, const std::string& text) {
    svg += fmt::format("<path d=\"M{:.1f} {:.1f}v6\" stroke=\"#64748b\"/>\n", x, base);
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", x, base + 22, text);
  };
  if (axes.exponential) {
    for (int power = -300; power <= 300; ++power)
      if (const double part = part_of(std::pow(10.0, power), *axes.exponential); part > -1e-6 && part < 1 + 1e-6)
        tick(frame.x_of(part * updates), fmt::format("1e{}", power));
  } else {
    const double update_step = std::max(1.0, tick_step(updates, 7));
    for (double update = 0; update <= updates; update += update_step)
      tick(frame.x_of(update), fmt::format("{:.0f}", update));
  }
  svg += fmt::format("<path d=\"M{:.1f} {:.1f}V{:.1f}H{:.1f}\" fill=\"none\" stroke=\"#64748b\"/>\n", left, top, bottom,
                     right);
  svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", (left + right) / 2,
                     bottom + 44, escaped(axes.across));
  svg += fmt::format(
      "<text x=\"22\" y=\"{0:.1f}\" text-anchor=\"middle\" transform=\"rotate(-90 22 {0:.1f})\">{1}</text>\n",
      (top + bottom) / 2, escaped(axes.up));

  double y = 432;
  for (std::size_t c = 0; c < curves.size(); ++c) {
    const char* colour = colours[c % colours.size()];
    const char* dash = c < colours.size() ? "" : " stroke-dasharray=\"6 4\"";
    svg += fmt::format("<path class=\"curve\" d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{}/>\n",
                       axes.exponential ? joined_path(curves[c].values, frame) : path_of(curves[c].values, frame),
                       colour, dash);
    if (legend_lines == 0) continue;
    svg += fmt::format("<path d=\"M{:.1f} {:.1f}h22\" stroke=\"{}\" stroke-width=\"3\"{}/>\n", left, y, colour, dash);
    for (const std::string& line : legends[c]) {
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", left + 30, y + 4.5, escaped(clipped(line)));
      y += 20;
    }
  }
  for (std::size_t m = 0; m < axes.marks.size() && axes.exponential; ++m) {
    const double x = frame.x_of(std::clamp(part_of(axes.marks[m].at, *axes.exponential), 0.0, 1.0) * updates);
    const std::string look =
        m == 0 ? "stroke=\"#dc2626\" stroke-width=\"2\"" : "stroke=\"#64748b\" stroke-dasharray=\"3 4\"";
    svg += fmt::format("<path class=\"mark\" d=\"M{:.1f} {:.1f}V{:.1f}\" {}/>\n", x, top, bottom, look);
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\" font-size=\"11\">{}</text>\n", x,
                       top - 5, m == 0 ? std::string("\u25bc") : std::to_string(m));
    svg += fmt::format("<path d=\"M{:.1f} {:.1f}h22\" {}/>\n", left, y, look);
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}{} {:.3g}</text>\n", left + 30, y + 4.5,
                       m == 0 ? "" : fmt::format("{}: ", m), escaped(axes.marks[m].name), axes.marks[m].at);
    y += 20;
  }
  return svg + "</svg>\n";
}

void require_svg(const std::filesystem::path& file) {
  if (!config::same_ignoring_case(file.extension().string(), ".svg"))
    fail(ErrorKind::config, "--plot {}: the picture is written as SVG; give it a name that ends in .svg, such as {}",
         file.string(), std::filesystem::path(file).replace_extension(".svg").string());
}

void write_picture(const std::filesystem::path& file, const std::string& svg) {
  std::ofstream out(file, std::ios::binary);
  out << svg;
  out.close();
  if (!out) fail(ErrorKind::environment, "cannot write the picture {}", file.string());
}

}  // namespace lockstep
