#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lockstep {

/// Values over update 0, 1, 2, ..., and the names of all that have them. Values that are not finite are left out of a
/// picture.
struct Curve {
  std::vector<std::string> names;
  std::vector<double> values;
};

/// What a picture's axes show. As it stands: learning rates over updates.
struct Axes {
  std::string across = "update";
  std::string up = "learning rate";
  /// The first and the last value of a logarithmic horizontal axis, on which a curve's values lie at equal distances
  /// and are joined by straight lines. Without it they belong to 0, 1, 2, ... and hold until the next.
  std::optional<std::pair<double, double>> exponential = {};
  /// The vertical axis; what is above or below is drawn at its edge. Without it all values fit, from 0 if they may.
  std::optional<std::pair<double, double>> range = {};
  struct Mark {
    std::string name;
    double at = 0;  ///< on the logarithmic axis
  };
  std::vector<Mark> marks = {};  ///< the first is the one that matters; only on a logarithmic axis
};

/// A picture of the curves for a terminal, 72 columns by 16 rows of braille dots with both axes labelled. All curves
/// share the axes and have the same, positive number of values. Of the marks the first is shown.
std::string terminal_chart(const std::vector<Curve>& curves, const Axes& axes = {});

/// The same as one self-contained SVG document: axes, ticks, grid, title, a line a curve, and a legend that has all
/// names and where a curve stops being finite. All marks are shown.
std::string svg_chart(const std::vector<Curve>& curves, const std::string& title, const Axes& axes = {});

/// A picture under the name of another format would open nowhere: ErrorKind::config unless the name ends in .svg.
void require_svg(const std::filesystem::path& file);

/// ErrorKind::environment if it cannot be written.
void write_picture(const std::filesystem::path& file, const std::string& svg);

}  // namespace lockstep
