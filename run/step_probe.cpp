#include "run/step_probe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "core/error.hpp"

namespace lockstep::run {
namespace {

double seconds_of(StepProbe::Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

double now_of_this_rank() { return seconds_of(StepProbe::Clock::now().time_since_epoch()); }

}  // namespace

void StepProbe::begin_step(std::int64_t step, bool counted) {
  require(frames_.empty(), "step probe: a step inside of a step");
  counting_ = counted;
  tracing_ = step >= first_ && step <= last_;
  begin(Activity::other, "step", 0, 0);
}

void StepProbe::end_step() {
  if (!counting_ && !tracing_) return;
  require(frames_.size() == 1, "step probe: a part has not ended");
  const Clock::time_point began = frames_.back().begin;
  end();
  if (counting_) {
    ++counted_steps_;
    counted_seconds_ += seconds_of(Clock::now() - began);
  }
  counting_ = tracing_ = false;
}

void StepProbe::begin(Activity activity, std::string_view name, double flops, double bytes) {
  if (!counting_ && !tracing_) return;
  const auto total = totals_.try_emplace({activity, std::string(name)}).first;
  std::size_t event = 0;
  if (tracing_) {
    event = events_.size();
    events_.push_back({activity, std::string(name), {}, {}});
  }
  frames_.push_back({total, flops, bytes, Clock::now(), 0, event});
}

void StepProbe::end() {
  if (frames_.empty()) return;  // of a part that began in no step
  const auto now = Clock::now();
  const Frame frame = frames_.back();
  frames_.pop_back();
  const double took = seconds_of(now - frame.begin);
  if (!frames_.empty()) frames_.back().inner += took;
  if (tracing_) {
    events_[frame.event].begin = frame.begin;
    events_[frame.event].end = now;
  }
  if (!counting_) return;
  Total& total = frame.total->second;
  total.seconds += took - frame.inner;
  total.flops += frame.flops;
  total.bytes += frame.bytes;
  ++total.calls;
}

std::string profile_text(const StepProbe& probe, const Ceilings& ceilings) {
  const std::int64_t steps = probe.counted_steps();
  if (steps == 0) return "profile   no step was measured: the first two of a run are left out\n";
  const double step = probe.counted_seconds() / static_cast<double>(steps);
  // In training the loss of a head is computed with its gradient, chunk by chunk, in backward.
  std::map<StepProbe::Key, StepProbe::Total> totals = probe.totals();
  if (const auto forward = totals.find({Activity::forward, "head_loss"}); forward != totals.end()) {
    StepProbe::Total& backward = totals[{Activity::backward, "head_loss"}];
    backward.flops += std::exchange(forward->second.flops, 0);
    backward.bytes += std::exchange(forward->second.bytes, 0);
  }
  std::string text = fmt::format(
      "profile   {:.2f} ms a step, the mean of {}; of this rank, against {:.3g} TFLOP/s and {:.3g} GB/s measured "
      "before\n"
      "          {:<34}{:>10}{:>8}{:>10}\n",
      step * 1e3, steps == 1 ? "1 step" : fmt::format("{} steps", steps), ceilings.flops_per_s * 1e-12,
      ceilings.bytes_per_s * 1e-9, "", "ms a step", "share", "roofline");
  constexpr std::array order = {Activity::forward,   Activity::backward, Activity::recompute, Activity::communication,
                                Activity::optimizer, Activity::data,     Activity::other};
  const auto line = [&](const std::string& name, const StepProbe::Total& total, bool inner) {
    const double seconds = total.seconds / static_cast<double>(steps);
    const double least = std::max(ceilings.flops_per_s > 0 ? total.flops / ceilings.flops_per_s : 0,
                                  ceilings.bytes_per_s > 0 ? total.bytes / ceilings.bytes_per_s : 0);
    text += fmt::format("          {:<34}{:>10.3f}{:>7.1f}%{:>10}\n", (inner ? "  " : "") + name, seconds * 1e3,
                        100 * seconds / step,
                        least > 0 && total.seconds > 0 ? fmt::format("{:.0f}%", 100 * least / total.seconds) : "");
  };
  for (const Activity activity : order) {
    StepProbe::Total sum;
    std::vector<std::pair<std::string, StepProbe::Total>> parts;
    double least = 0;
    for (const auto& [key, total] : totals) {
      if (key.first != activity || total.calls == 0) continue;
      parts.emplace_back(key.second, total);
      sum.seconds += total.seconds;
      sum.flops += total.flops;
      sum.bytes += total.bytes;
      least += std::max(ceilings.flops_per_s > 0 ? total.flops / ceilings.flops_per_s : 0,
                        ceilings.bytes_per_s > 0 ? total.bytes / ceilings.bytes_per_s : 0);
    }
    if (parts.empty()) continue;
    // Some parts are bound by products and others by memory: the sum's limit is the sum of theirs.
    sum.flops = least * ceilings.flops_per_s;
    sum.bytes = 0;
    line(std::string(to_string(activity)), sum, false);
    if (parts.size() == 1 && activity != Activity::forward && activity != Activity::backward) continue;
    std::ranges::sort(parts, [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
    for (const auto& [name, total] : parts) line(name, total, true);
  }
  return text;
}

ClockOffsets measure_clocks(comm::Communicator& comm) {
  constexpr int pings = 8;
  const auto ranks = static_cast<std::size_t>(comm.size());
  ClockOffsets offsets{.seconds = std::vector<double>(ranks), .uncertainty = std::vector<double>(ranks)};
  for (int r = 1; r < comm.size(); ++r) {
    double best = 1e9, offset = 0;
    for (int i = 0; i < pings; ++i) {
      comm.barrier();
      double there = 0;
      const double sent = now_of_this_rank();
      double ping = sent;
      comm.broadcast_value(ping, 0);
      if (comm.rank() == r) there = now_of_this_rank();
      comm.broadcast_value(there, r);
      const double back = now_of_this_rank();
      if (back - sent < best) {
        best = back - sent;
        offset = there - (sent + back) / 2;
      }
    }
    offsets.seconds[static_cast<std::size_t>(r)] = offset;
    offsets.uncertainty[static_cast<std::size_t>(r)] = best / 2;
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    comm.broadcast_value(offsets.seconds[r], 0);
    comm.broadcast_value(offsets.uncertainty[r], 0);
  }
  return offsets;
}

std::string gather_trace(const StepProbe& probe, comm::Communicator& comm) {
  const ClockOffsets clocks = measure_clocks(comm);
  double origin = 0;
  if (comm.rank() == 0 && !probe.events().empty()) origin = seconds_of(probe.events().front().begin.time_since_epoch());
  comm.broadcast_value(origin, 0);
  // A rank whose first step began before rank 0's would be before 0: all move on by as much.
  const double ahead = clocks.seconds[static_cast<std::size_t>(comm.rank())];
  std::vector<double> begins(static_cast<std::size_t>(comm.size()));
  if (!probe.events().empty())
    begins[static_cast<std::size_t>(comm.rank())] =
        seconds_of(probe.events().front().begin.time_since_epoch()) - ahead - origin;
  comm.all_gather_values(std::span(begins));
  origin += std::min(0.0, *std::ranges::min_element(begins));

  std::string own = fmt::format(
      R"({{"ph":"M","pid":{0},"tid":0,"name":"process_name","args":{{"name":"rank {0}"}}}},)"
      "\n"
      R"({{"ph":"M","pid":{0},"tid":0,"name":"clock","args":{{"ahead_us":{1:.3f},"uncertainty_us":{2:.3f}}}}})",
      comm.rank(), ahead * 1e6, clocks.uncertainty[static_cast<std::size_t>(comm.rank())] * 1e6);
  for (const StepProbe::Event& event : probe.events())
    fmt::format_to(std::back_inserter(own),
                   ",\n"
                   R"({{"ph":"X","pid":{},"tid":0,"cat":"{}","name":"{}","ts":{:.3f},"dur":{:.3f}}})",
                   comm.rank(), to_string(event.activity), event.name,
                   (seconds_of(event.begin.time_since_epoch()) - ahead - origin) * 1e6,
                   seconds_of(event.end - event.begin) * 1e6);
  std::string all = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  for (int r = 0; r < comm.size(); ++r) {
    std::string text = comm.rank() == r ? own : "";
    comm.broadcast_text(text, r);
    if (comm.rank() == 0) all += (r == 0 ? "" : ",\n") + text;
  }
  return comm.rank() == 0 ? all + "\n]}\n" : "";
}

}  // namespace lockstep::run
