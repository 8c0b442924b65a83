#pragma once

#include <string>
#include <vector>

namespace lockstep {

/// A named line of values over update 0, 1, 2, ...
struct Curve {
  std::string name;
  std::vector<double> values;
};

/// A picture of the curves for a terminal, 72 columns by 16 rows of braille dots with both axes labelled. All curves
/// share the axes and have the same, positive number of values.
std::string terminal_chart(const std::vector<Curve>& curves);

/// The same as one self-contained SVG document: axes, ticks, grid, title, a line and a legend entry a curve.
std::string svg_chart(const std::vector<Curve>& curves, const std::string& title);

}  // namespace lockstep
