#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"
#include "sched/schedule.hpp"

namespace lockstep::sched {

/// The stateful face of a schedule, with the calls and the life cycle of a DeepSpeed scheduler object: it writes
/// values into an optimizer's groups at construction and at each step(), and its whole state is one index.
/// Not thread-safe. The values come from Schedule, so both faces agree bit for bit.
class Scheduler {
 public:
  /// Builds the schedule and, unless `last_batch_iteration` is given and not -1, writes the construction values.
  /// Throws as make_schedule.
  Scheduler(std::string_view type, const config::Params& params, std::vector<GroupInitial> groups);

  /// Advances the index by one and writes the values there into the groups.
  void step();
  /// Sets the index, which may jump back, and writes the values there into the groups.
  void step(std::int64_t index);

  /// The index: all there is to save.
  [[nodiscard]] std::int64_t state() const { return index_; }
  /// Restores the index. Writes nothing: groups and last_lr() stay as they were until the next step().
  void load(std::int64_t index) { index_ = index; }

  /// The lr of each group at the present index, computed anew; writes nothing.
  [[nodiscard]] std::vector<double> get_lr() const;
  /// The lr that was last written. Throws ErrorKind::config if nothing was written yet.
  [[nodiscard]] const std::vector<double>& last_lr() const;

  /// Constructs the schedule anew with `params` on the groups as they stand now. A schedule that scales the
  /// groups' lr (WarmupCosineLR, WarmupLR without a maximum) starts from the already scaled values.
  void rebuild(const config::Params& params);

  /// The optimizer's groups as they stand.
  [[nodiscard]] const std::vector<GroupInitial>& groups() const { return groups_; }
  [[nodiscard]] const Schedule& schedule() const { return *schedule_; }

 private:
  void start();
  void write(const std::vector<StepValues>& values);

  std::vector<GroupInitial> groups_;
  std::unique_ptr<Schedule> schedule_;
  std::int64_t index_ = -1;
  std::optional<std::vector<double>> last_lr_;
};

inline Scheduler::Scheduler(std::string_view type, const config::Params& params, std::vector<GroupInitial> groups)
    : groups_(std::move(groups)), schedule_(make_schedule(type, params, groups_)) {
  start();
}

inline void Scheduler::start() {
  index_ = schedule_->first_index();
  last_lr_.reset();
  std::vector<StepValues> values(groups_.size());
  schedule_->values_at_construction(values);
  write(values);
  // DeepSpeed's OneCycle writes at construction and does not remember what.
  if (index_ != -1 || schedule_->type() == "OneCycle") last_lr_.reset();
}

inline void Scheduler::step() { step(index_ + 1); }

inline void Scheduler::step(std::int64_t index) {
  index_ = index;
  std::vector<StepValues> values(groups_.size());
  schedule_->values_at_index(index_, values);
  write(values);
}

inline std::vector<double> Scheduler::get_lr() const {
  std::vector<StepValues> values(groups_.size());
  schedule_->values_at_index(index_, values);
  std::vector<double> lr;
  for (const StepValues& v : values) lr.push_back(v.lr);
  return lr;
}

inline const std::vector<double>& Scheduler::last_lr() const {
  if (!last_lr_)
    fail(ErrorKind::config, "scheduler {}: no learning rate was written yet; call step() first", schedule_->type());
  return *last_lr_;
}

inline void Scheduler::rebuild(const config::Params& params) {
  schedule_ = make_schedule(schedule_->type(), params, groups_);
  start();
}

inline void Scheduler::write(const std::vector<StepValues>& values) {
  last_lr_.emplace();
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    static_cast<StepValues&>(groups_[g]) = values[g];
    last_lr_->push_back(values[g].lr);
  }
}

}  // namespace lockstep::sched
