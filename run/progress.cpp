#include "run/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

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

Progress::Progress(std::int64_t first_step, std::int64_t total_steps, std::int64_t every, bool enabled)
    : first_step_(first_step),
      total_steps_(total_steps),
      every_(every),
      enabled_(enabled),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      drawn_(start_ - std::chrono::hours(1)) {}

std::string Progress::line(const StepMetrics& m) const {
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  const auto done = static_cast<double>(m.step - first_step_);
  const double left = done > 0 ? elapsed / done * static_cast<double>(total_steps_ - m.step) : 0;
  std::string text =
      fmt::format("step {:>{}}/{} {:>3.0f}%  eta {:>7}  loss {:.4f}  lr {:.3e}  norm {:.3f}  {:>6} {}/s", m.step,
                  std::to_string(total_steps_).size(), total_steps_,
                  100.0 * static_cast<double>(m.step) / static_cast<double>(total_steps_), duration_text(left), m.loss,
                  m.lr.empty() ? 0.0 : m.lr.front(), m.grad_norm, short_number(m.items_per_s), m.item);
  if (m.skipped) text += fmt::format("  skipped, loss scale was {}", m.loss_scale);
  return text;
}

void Progress::step(const StepMetrics& metrics) {
  if (!enabled_ || every_ == 0) return;
  const auto now = Clock::now();
  const bool last = metrics.step == total_steps_;
  if (terminal_) {
    if (!last && now - drawn_ < std::chrono::milliseconds(100)) return;
    drawn_ = now;
    const std::string text = line(metrics);
    std::fprintf(stderr, "\r%-*s", static_cast<int>(width_), text.c_str());
    width_ = text.size();
    if (last) {
      std::fputc('\n', stderr);
      width_ = 0;
    }
    std::fflush(stderr);
  } else if (last || metrics.step % every_ == 0 || metrics.step == first_step_ + 1) {
    std::fprintf(stderr, "%s\n", line(metrics).c_str());
  }
}

void Progress::note(const std::string& text) {
  if (!enabled_) return;
  if (terminal_ && width_ > 0) std::fprintf(stderr, "\r%-*s\r", static_cast<int>(width_), "");
  width_ = 0;
  std::fprintf(stderr, "%s\n", text.c_str());
}

}  // namespace lockstep::run
