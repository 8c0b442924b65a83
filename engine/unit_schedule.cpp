#include "engine/unit_schedule.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace lockstep::engine {

std::int64_t UnitPool::take(int unit, std::int64_t elements) {
  std::int64_t begin = 0;
  auto before = taken_.begin();
  for (; before != taken_.end() && before->begin - begin < elements; ++before) begin = before->end;
  taken_.insert(before, {begin, begin + elements, unit});
  peak_ = std::max(peak_, begin + elements);
  return begin;
}

void UnitPool::give_back(int unit) {
  std::erase_if(taken_, [unit](const Taken& taken) { return taken.unit == unit; });
}

UnitSchedule::UnitSchedule(std::vector<std::int64_t> elements)
    : elements_(std::move(elements)), states_(elements_.size()) {}

void UnitSchedule::begin(const std::vector<nn::UnitEvent>& events) {
  for (std::size_t unit = 0; unit < states_.size(); ++unit) {
    if (states_[unit].present) pool_.give_back(static_cast<int>(unit));
    states_[unit] = {};
  }
  events_ = &events;
  cursor_ = 0;
}

UnitSchedule::Start UnitSchedule::bring(int unit) {
  State& state = states_[static_cast<std::size_t>(unit)];
  state.present = true;
  state.begin = pool_.take(unit, elements_[static_cast<std::size_t>(unit)]);
  return {unit, state.begin};
}

void UnitSchedule::advance(const nn::UnitEvent& event) {
  const bool expected = events_ != nullptr && cursor_ < events_->size() && (*events_)[cursor_] == event;
  if (expected)
    ++cursor_;
  else
    events_ = nullptr;
}

int UnitSchedule::upcoming() const {
  if (events_ == nullptr) return -1;
  const auto next = std::find_if(events_->begin() + static_cast<std::ptrdiff_t>(cursor_), events_->end(),
                                 [](const nn::UnitEvent& event) { return event.acquire; });
  return next == events_->end() ? -1 : next->unit;
}

UnitSchedule::Acquired UnitSchedule::acquire(int unit, nn::Phase phase) {
  advance({unit, phase, true});
  Acquired result;
  if (!present(unit)) result.now = bring(unit);
  ++states_[static_cast<std::size_t>(unit)].users;
  if (const int next = upcoming(); next >= 0 && !present(next)) result.next = bring(next);
  return result;
}

void UnitSchedule::release(int unit, nn::Phase phase) {
  advance({unit, phase, false});
  State& state = states_[static_cast<std::size_t>(unit)];
  require(state.users > 0, "unit schedule: a unit is released that was not acquired");
  if (--state.users > 0 || upcoming() == unit) return;
  pool_.give_back(unit);
  state.present = false;
}

std::int64_t UnitSchedule::needed(const std::vector<std::int64_t>& elements,
                                  const std::vector<const std::vector<nn::UnitEvent>*>& passes) {
  UnitSchedule schedule(elements);
  for (const std::vector<nn::UnitEvent>* events : passes) {
    schedule.begin(*events);
    for (const nn::UnitEvent& event : *events) {
      if (event.acquire)
        (void)schedule.acquire(event.unit, event.phase);
      else
        schedule.release(event.unit, event.phase);
    }
  }
  return schedule.peak();
}

std::vector<int> UnitSchedule::brought(const std::vector<std::int64_t>& elements,
                                       const std::vector<nn::UnitEvent>& events) {
  UnitSchedule schedule(elements);
  schedule.begin(events);
  std::vector<int> result;
  for (const nn::UnitEvent& event : events) {
    if (!event.acquire) {
      schedule.release(event.unit, event.phase);
      continue;
    }
    const Acquired acquired = schedule.acquire(event.unit, event.phase);
    if (acquired.now) result.push_back(acquired.now->unit);
    if (acquired.next) result.push_back(acquired.next->unit);
  }
  return result;
}

GradientWindows::GradientWindows(const std::vector<std::int64_t>& elements_of, const std::vector<nn::UnitEvent>& events)
    : begin(elements_of.size(), -1), visits(elements_of.size(), 0) {
  for (const nn::UnitEvent& event : events)
    if (event.phase == nn::Phase::backward && event.acquire) ++visits[static_cast<std::size_t>(event.unit)];
  UnitPool pool;
  std::vector<int> left = visits;
  int reducing = -1;
  for (const nn::UnitEvent& event : events) {
    if (event.phase != nn::Phase::backward) continue;
    const auto unit = static_cast<std::size_t>(event.unit);
    if (event.acquire && begin[unit] < 0) begin[unit] = pool.take(event.unit, elements_of[unit]);
    if (event.acquire || --left[unit] > 0) continue;
    if (reducing >= 0) pool.give_back(reducing);
    reducing = event.unit;
  }
  require(std::ranges::none_of(begin, [](std::int64_t at) { return at < 0; }),
          "gradient windows: backward does not acquire every unit of the model");
  elements = pool.peak();
}

}  // namespace lockstep::engine
