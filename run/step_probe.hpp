#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "core/probe.hpp"

namespace lockstep::run {

/// Speeds that parts are held against.
struct Ceilings {
  double flops_per_s = 0;  ///< of one rank, of a large product, all ranks at work
  double bytes_per_s = 0;
};

/// Where one rank's steps take their time: run.profile and run.trace.
///
/// Time belongs to the innermost part, so that the parts' times add up to the steps'. Recording costs two readings of
/// the clock a part, some 0.1 microseconds; what it adds to a step is in docs/profile.md.
class StepProbe final : public Probe {
 public:
  using Clock = std::chrono::steady_clock;

  /// Steps `first` to `last` are kept part by part, for a trace; 0 and 0: none.
  StepProbe(std::int64_t first, std::int64_t last) : first_(first), last_(last) {}

  /// Step `step`, counted as run.steps; `counted`: it is one of the profile's.
  void begin_step(std::int64_t step, bool counted);
  void end_step();
  void begin(Activity activity, std::string_view name, double flops, double bytes) override;
  void end() override;

  struct Total {
    double seconds = 0;
    double flops = 0;
    double bytes = 0;
    std::int64_t calls = 0;
  };
  using Key = std::pair<Activity, std::string>;
  [[nodiscard]] const std::map<Key, Total>& totals() const { return totals_; }
  [[nodiscard]] std::int64_t counted_steps() const { return counted_steps_; }
  [[nodiscard]] double counted_seconds() const { return counted_seconds_; }

  struct Event {
    Activity activity = Activity::other;
    std::string name;
    Clock::time_point begin, end;
  };
  [[nodiscard]] const std::vector<Event>& events() const { return events_; }

 private:
  struct Frame {
    std::map<Key, Total>::iterator total;
    double flops, bytes;
    Clock::time_point begin;
    double inner = 0;  ///< seconds that belong to parts inside of it
    std::size_t event = 0;
  };
  std::int64_t first_, last_;
  bool counting_ = false, tracing_ = false;
  std::vector<Frame> frames_;
  std::map<Key, Total> totals_;
  std::vector<Event> events_;
  std::int64_t counted_steps_ = 0;
  double counted_seconds_ = 0;
};

/// The table of run.profile: each part's milliseconds a step, its share of the step and, where its work is counted, the
/// share that the machine's limit would need: the larger of FLOPs at the speed of products and bytes at the memory's.
[[nodiscard]] std::string profile_text(const StepProbe& probe, const Ceilings& ceilings);

/// How far other ranks' clocks are ahead of rank 0's, by a ping from rank 0 to each and back, the fastest of several.
/// The same on every rank. Collective.
struct ClockOffsets {
  std::vector<double> seconds;      ///< by rank; of rank 0: 0
  std::vector<double> uncertainty;  ///< half a round trip
};
[[nodiscard]] ClockOffsets measure_clocks(comm::Communicator& comm);

/// All ranks' events as Chrome's trace format, ranks as processes on rank 0's clock: on rank 0, elsewhere empty.
/// https://ui.perfetto.dev opens it. Collective.
[[nodiscard]] std::string gather_trace(const StepProbe& probe, comm::Communicator& comm);

}  // namespace lockstep::run
