#include "run/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "core/log.hpp"
#include "run/launcher.hpp"

namespace lockstep::run {

using Clock = std::chrono::steady_clock;

std::string duration_text(double seconds) {
  const auto s = static_cast<std::int64_t>(std::ceil(seconds));
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string short_number(double value) {
  // The bounds are where rounding reaches the next unit: 999,960 is "1.00M", not "1000.0k".
  if (value >= 999.995e6) return fmt::format("{:.2f}G", value / 1e9);
  if (value >= 999.95e3) return fmt::format("{:.2f}M", value / 1e6);
  if (value >= 999.5) return fmt::format("{:.1f}k", value / 1e3);
  return fmt::format("{:.0f}", value);
}

std::string step_line(const StepMetrics& m, std::int64_t total_steps, double seconds_left, std::size_t columns) {
  const double percent = 100.0 * static_cast<double>(m.step) / static_cast<double>(total_steps);
  const std::string step = fmt::format("step {:>{}}/{}", m.step, std::to_string(total_steps).size(), total_steps);
  // As they stand in the line, with what they are worth: the least goes first.
  struct Part {
    int rank;
    std::string text;
  };
  std::vector<Part> parts = {{0, step},
                             {3, fmt::format(" {:>3.0f}%", percent)},
                             {4, fmt::format("  eta {:>7}", duration_text(seconds_left))},
                             {1, fmt::format("  loss {:.4f}", m.loss)},
                             {6, fmt::format("  lr {:.3e}", m.lr.empty() ? 0.0 : m.lr.front())},
                             {7, fmt::format("  norm {:.3f}", m.grad_norm)},
                             {5, fmt::format("  {:>6} {}/s", short_number(m.items_per_s), m.item)}};
  if (m.skipped) parts.push_back({2, fmt::format("  skipped, loss scale was {}", m.loss_scale)});
  for (int most = 7;; --most) {
    std::string line;
    for (const Part& part : parts)
      if (part.rank <= most) line += part.text;
    if (columns == 0 || line.size() <= columns) return line;
    if (most == 0) return line.substr(0, columns);
  }
}

std::size_t terminal_columns() {
  if (under_launcher() || isatty(STDOUT_FILENO) != 1) return 0;
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  const int number = columns != nullptr ? std::atoi(columns) : 0;
  return number > 0 ? static_cast<std::size_t>(number) : 80;
}

Progress::Progress(std::int64_t first_step, std::int64_t total_steps, std::int64_t every, bool enabled)
    : first_step_(first_step),
      total_steps_(total_steps),
      every_(every),
      enabled_(enabled),
      start_(Clock::now()),
      drawn_(start_ - std::chrono::hours(1)) {}

Progress::~Progress() {
  if (enabled_) log::keep_live();
}

double Progress::seconds_left(std::int64_t step) const {
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  const auto done = static_cast<double>(step - first_step_);
  return done > 0 ? elapsed / done * static_cast<double>(total_steps_ - step) : 0;
}

double Progress::average_rate(const StepMetrics& metrics) {
  constexpr std::int64_t at_least = 10;
  const double seconds = metrics.step_ms / 1e3;
  latest_.push_back({metrics.items_per_s * seconds, seconds});
  if (static_cast<std::int64_t>(latest_.size()) > std::max(at_least, every_)) latest_.pop_front();
  Took sum{0, 0};
  for (const Took& took : latest_) sum = {sum.items + took.items, sum.seconds + took.seconds};
  return sum.seconds > 0 ? sum.items / sum.seconds : metrics.items_per_s;
}

void Progress::step(const StepMetrics& given) {
  if (!enabled_ || every_ == 0) return;
  StepMetrics metrics = given;
  metrics.items_per_s = average_rate(given);
  const std::int64_t step = metrics.step;
  const bool stays = step == total_steps_ || step % every_ == 0 || step == first_step_ + 1;
  const auto now = Clock::now();
  if (!stays && now - drawn_ < std::chrono::milliseconds(100)) return;
  const std::size_t columns = terminal_columns();  // each time: windows change
  if (!stays && columns == 0) return;
  drawn_ = now;
  // A terminal goes to its next line when the last column is written.
  const std::string line = step_line(metrics, total_steps_, seconds_left(step), columns == 0 ? 0 : columns - 1);
  if (stays)
    log::show(line + "\n");
  else
    log::live(line);
}

void Progress::note(const std::string& text) {
  if (enabled_) log::show(text + "\n");
}

}  // namespace lockstep::run
