#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/text.hpp"
#include "run/rehearsal.hpp"

namespace lockstep::run {
namespace {

template <class Value>
double median(std::vector<Value> values) {
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  if (values.size() % 2 == 1) return static_cast<double>(values[half]);
  return (static_cast<double>(values[half - 1]) + static_cast<double>(values[half])) / 2;
}

/// "1.3 ms", "25 s", "3.4 min", "2 h"
std::string time_text(double seconds) {
  if (seconds < 1) return fmt::format("{:.3g} ms", seconds * 1e3);
  if (seconds < 120) return fmt::format("{:.3g} s", seconds);
  if (seconds < 7200) return fmt::format("{:.3g} min", seconds / 60);
  return fmt::format("{:.3g} h", seconds / 3600);
}

std::string kills_text(const std::vector<Kill>& kills, KillMoment moment, const char* name) {
  const auto count = [&](bool of_launcher) {
    return std::ranges::count_if(
        kills, [&](const Kill& kill) { return kill.moment == moment && kill.of_launcher == of_launcher; });
  };
  return fmt::format("{} {} (a rank {}, mpirun {})", name, count(false) + count(true), count(false), count(true));
}

std::string intervals_text(const Rehearsal& rehearsal) {
  if (rehearsal.save_seconds.empty()) return "interval  no save took long enough to be seen\n";
  const double save = median(rehearsal.save_seconds);
  std::string text = fmt::format("interval  a save takes {} (median of {}): run.checkpoint.every", time_text(save),
                                 rehearsal.save_seconds.size());
  for (const auto& [name, mtbf] : {std::pair("an hour", 3600.0), {"a day", 86400.0}, {"a week", 604800.0}}) {
    const double interval = checkpoint_interval(save, mtbf);
    const double steps = std::max(1.0, std::round(interval / rehearsal.step_seconds));
    text += fmt::format("\n          {:.0f} ({}) with a failure {}", steps, time_text(interval), name);
  }
  return text + "\n          = sqrt(2 x save x mean time between failures), Young, CACM 17(9), 1974\n";
}

std::string swept_text(const ChildJob::Leftovers& swept) {
  if (swept.library_blocks + swept.library_folders + swept.lockstep_blocks == 0) return {};
  std::string text = fmt::format("swept     after killed jobs: {} of shared memory and {} of Open MPI",
                                 counted(swept.library_blocks, "block"), counted(swept.library_folders, "folder"));
  if (swept.lockstep_blocks > 0)
    text += fmt::format("; {} of kills while starting, which Lockstep sweeps after an hour",
                        counted(swept.lockstep_blocks, "block"));
  return text + "\n";
}

}  // namespace

double checkpoint_interval(double save_seconds, double mtbf_seconds) {
  return std::sqrt(2 * save_seconds * mtbf_seconds);
}

std::string to_text(const Rehearsal& rehearsal) {
  std::string text = fmt::format("kills     {}: {}, {}, {}\n", rehearsal.kills.size(),
                                 kills_text(rehearsal.kills, KillMoment::training, "training"),
                                 kills_text(rehearsal.kills, KillMoment::saving, "saving"),
                                 kills_text(rehearsal.kills, KillMoment::starting, "starting"));
  if (!rehearsal.lost_steps.empty())
    text += fmt::format("lost      median {} of a crash, at most {}\n",
                        counted(static_cast<std::int64_t>(median(rehearsal.lost_steps)), "step"),
                        std::ranges::max(rehearsal.lost_steps));
  if (!rehearsal.recovery_seconds.empty())
    text += fmt::format("recovery  from the kill to the first new step: median {}, at most {}\n",
                        time_text(median(rehearsal.recovery_seconds)),
                        time_text(std::ranges::max(rehearsal.recovery_seconds)));
  text += intervals_text(rehearsal) + swept_text(rehearsal.swept);
  for (const std::string& failure : rehearsal.failures) text += "failure   " + failure + "\n";
  if (rehearsal.passed())
    return text + fmt::format(
                      "PASS      {} of metrics and the parameters equal bit for bit; no process, temporary folder, "
                      "lock or shared memory left\n",
                      counted(rehearsal.equal_lines, "line"));
  return text + fmt::format("FAIL      {}; both runs are in {}\n",
                            counted(static_cast<std::int64_t>(rehearsal.failures.size()), "failure"),
                            printable(rehearsal.folder));
}

}  // namespace lockstep::run
