#pragma once

#include <string>
#include <vector>

namespace lockstep {

/// Values over update 0, 1, 2, ..., and the names of all that have them. Values that are not finite are left out of a
/// picture.
struct Curve {
  std::vector<std::string> names;
  std::vector<double> values;
};

/// A picture of the curves for a terminal, 72 columns by 16 rows of braille dots with both axes labelled. All curves
/// share the axes and have the same, positive number of values.
std::string terminal_chart(const std::vector<Curve>& curves);

/// The same as one self-contained SVG document: axes, ticks, grid, title, a line a curve, and a legend that has all
/// names and where a curve stops being finite. A value holds from its update to the next, so a step is drawn as one.
std::string svg_chart(const std::vector<Curve>& curves, const std::string& title);

}  // namespace lockstep
