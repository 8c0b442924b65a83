#include "run/bench/measure.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <span>

#include "core/error.hpp"
#include "run/bench/interference.hpp"

namespace lockstep::run::bench {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// The largest over all ranks.
double agreed(comm::Communicator& comm, double value) {
  if (comm.size() > 1) comm.all_reduce({&value, 1, DType::f64, Memory::host}, comm::Reduce::max);
  return value;
}

void run_calls(const Task& task, int calls) {
  for (int i = 0; i < calls; ++i) task.run();
}

/// Calls that fill the least time of a sample, given how long one took.
int calls_for(double seconds, const Sampling& sampling) {
  constexpr double most = 1000;
  return static_cast<int>(std::clamp(std::ceil(sampling.least_time / std::max(seconds, 1e-9)), 1.0, most));
}

class OnHost {
 public:
  OnHost(RankContext& rank, const Sampling& sampling) : comm_(rank.comm), sampling_(sampling) {}

  void run(std::vector<Measured>& all) {
    for (Measured& one : all) {
      one.task.run();  // first touch, first threads, primitives that are made once
      one.calls = calls_for(sample(one.task, 1).seconds, sampling_);
    }
    const Clock::time_point begin = Clock::now();
    int round = 0;
    do {
      for (Measured& one : all) one.samples.push_back(sample(one.task, one.calls));
      ++round;
    } while (round < sampling_.samples || (round < sampling_.most_tries * sampling_.samples && !enough(all) &&
                                           agreed(comm_, since(begin)) < sampling_.seconds));
  }

 private:
  Sample sample(const Task& task, int calls) {
    if (comm_.size() > 1) comm_.barrier();
    const double waited_before = seconds_kept_waiting();
    const Clock::time_point begin = Clock::now();
    run_calls(task, calls);
    const double seconds = since(begin);
    const double waited = (seconds_kept_waiting() - waited_before) / std::max(seconds, 1e-9);
    return {agreed(comm_, seconds) / calls, agreed(comm_, waited)};
  }

  /// The same on all ranks, because samples are.
  [[nodiscard]] bool enough(const std::vector<Measured>& all) const {
    return std::ranges::all_of(all, [&](const Measured& one) {
      return std::ranges::count_if(one.samples, [&](const Sample& s) { return s.waited <= sampling_.most_waited; }) >=
             sampling_.samples;
    });
  }

  comm::Communicator& comm_;
  const Sampling& sampling_;
};

/// Timed events of a device.
class Marks {
 public:
  Marks(DeviceApi& device, std::size_t count) : device_(device) {
    for (std::size_t i = 0; i < count; ++i) events_.push_back(device.make_timed_event());
  }
  Marks(const Marks&) = delete;
  Marks& operator=(const Marks&) = delete;
  ~Marks() {
    for (const EventRef event : events_) device_.destroy(event);
  }
  void record(std::size_t i, StreamRef stream) { device_.record(events_.at(i), stream); }
  [[nodiscard]] double seconds(std::size_t from, std::size_t to) {
    return device_.elapsed_ms(events_.at(from), events_.at(to)) * 1e-3;
  }

 private:
  DeviceApi& device_;
  std::vector<EventRef> events_;
};

class OnDevice {
 public:
  OnDevice(RankContext& rank, StreamRef stream, const Sampling& sampling)
      : comm_(rank.comm), device_(*rank.place.device), stream_(stream), sampling_(sampling) {}

  void run(std::vector<Measured>& all) {
    for (Measured& one : all) {
      one.task.run();
      one.calls = calls_for(agreed(comm_, one_call(one.task)), sampling_);
    }
    const auto tasks = all.size(), rounds = static_cast<std::size_t>(sampling_.samples);
    Marks marks(device_, tasks * rounds + 1);
    if (comm_.size() > 1) comm_.barrier();
    marks.record(0, stream_);
    for (std::size_t i = 0; i < tasks * rounds; ++i) {
      run_calls(all[i % tasks].task, all[i % tasks].calls);
      marks.record(i + 1, stream_);
    }
    device_.synchronize(stream_);
    for (std::size_t i = 0; i < tasks * rounds; ++i) {
      Measured& one = all[i % tasks];
      one.samples.push_back({agreed(comm_, marks.seconds(i, i + 1)) / one.calls, 0});
    }
  }

 private:
  double one_call(const Task& task) {
    Marks marks(device_, 2);
    marks.record(0, stream_);
    task.run();
    marks.record(1, stream_);
    device_.synchronize(stream_);
    return marks.seconds(0, 1);
  }

  comm::Communicator& comm_;
  DeviceApi& device_;
  StreamRef stream_;
  const Sampling& sampling_;
};

}  // namespace

double Measured::median() const { return quantile(0.5); }

double Measured::quantile(double q) const {
  require(!kept.empty(), "Measured: no samples");
  std::vector<double> sorted = kept;
  std::ranges::sort(sorted);
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(at);
  const std::size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

void choose(Measured& measured, const Sampling& sampling) {
  std::vector<Sample> sorted = measured.samples;
  std::ranges::stable_sort(sorted, {}, &Sample::waited);
  const auto alone = std::ranges::count_if(sorted, [&](const Sample& s) { return s.waited <= sampling.most_waited; });
  measured.disturbed = alone < sampling.samples;
  const auto count = static_cast<std::size_t>(
      std::min<std::ptrdiff_t>(std::max<std::ptrdiff_t>(alone, sampling.samples), std::ssize(sorted)));
  measured.kept.clear();
  for (std::size_t i = 0; i < count; ++i) measured.kept.push_back(sorted[i].seconds);
}

std::vector<Measured> measure(RankContext& rank, StreamRef stream, std::vector<Task> tasks, const Sampling& sampling) {
  std::vector<Measured> all;
  for (Task& task : tasks) all.push_back({.task = std::move(task), .calls = 1, .samples = {}, .kept = {}});
  if (rank.place.device->immediate())
    OnHost(rank, sampling).run(all);
  else
    OnDevice(rank, stream, sampling).run(all);
  for (Measured& one : all) choose(one, sampling);
  return all;
}

double rate(const Measured& of) {
  const double work = of.task.flops > 0 ? of.task.flops : of.task.bytes;
  return work / of.median();
}

double share_of_ceiling(const Measured& of, const std::vector<Measured>& all) {
  if (of.task.ceiling.empty()) return 0;
  double share = 0;  // of the fastest: the least
  for (const Measured& other : all) {
    if (other.task.name != of.task.ceiling && other.task.group != of.task.ceiling) continue;
    const double here = of.task.same_job ? other.median() / of.median() : rate(of) / rate(other);
    share = share == 0 ? here : std::min(share, here);
  }
  return share;
}

}  // namespace lockstep::run::bench
