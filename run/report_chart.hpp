#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lockstep::run {

/// One line of a chart. Where y is not finite the line is broken.
struct ChartLine {
  std::string name;
  std::vector<double> x, y;
  enum class Look {
    line,
    faint,   ///< thin and pale, behind the others
    points,  ///< a dot at each value, joined
  };
  Look look = Look::line;
  int colour = 0;  ///< 0 to 5: CSS class c0 to c5
};

/// Something that happened at an x.
struct ChartMark {
  std::string name;  ///< for the legend: "skipped", "not finite", "resumed"
  std::vector<double> x;
  enum class Look { skipped, not_finite, resumed };
  Look look = Look::skipped;
};

struct Chart {
  std::string title;
  std::string unit;         ///< of y; may be empty
  bool may_be_log = false;  ///< logarithmic if all values are positive and span more than a factor of 30
  bool from_zero = false;   ///< the axis begins at 0, if it is linear
  std::vector<ChartLine> lines;
  std::vector<ChartMark> marks;
  std::optional<double> level;  ///< a dashed horizontal line
  std::string level_name;
};

/// A figure with one inline SVG element: axes with ticks, grid, lines, marks, legend. Colours are CSS classes and
/// variables of the page, so that it follows the page's light or dark look. Lines of more values than the chart has
/// columns keep the least and the greatest of each column.
[[nodiscard]] std::string chart_svg(const Chart& chart);

/// Whether the chart's vertical axis is logarithmic.
[[nodiscard]] bool is_log(const Chart& chart);

/// Text for HTML and SVG: markup characters escaped, control bytes shown as \x1b.
[[nodiscard]] std::string html_text(const std::string& text);

/// "1.5k", "20M", "0.0025": a number beside a tick.
[[nodiscard]] std::string tick_text(double value);

}  // namespace lockstep::run
