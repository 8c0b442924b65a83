#include "sched/scheduler.hpp"

#include "core/error.hpp"

namespace lockstep::sched {

Scheduler::Scheduler(std::string_view type, Params params, std::vector<GroupInitial> groups)
    : groups_(std::move(groups)), schedule_(make_schedule(type, std::move(params), groups_)) {
  start();
}

void Scheduler::start() {
  index_ = schedule_->first_index();
  last_lr_.reset();
  std::vector<GroupValues> values(groups_.size());
  schedule_->values_at_construction(values);
  write(values);
  if (!schedule_->knows_lr_at_construction()) last_lr_.reset();
}

void Scheduler::step() { step(index_ + 1); }

void Scheduler::step(std::int64_t index) {
  index_ = index;
  std::vector<GroupValues> values(groups_.size());
  schedule_->values_at_index(index_, values);
  write(values);
}

std::vector<double> Scheduler::get_lr() const {
  std::vector<GroupValues> values(groups_.size());
  schedule_->values_at_index(index_, values);
  std::vector<double> lr;
  for (const GroupValues& v : values) lr.push_back(v.lr);
  return lr;
}

const std::vector<double>& Scheduler::last_lr() const {
  if (!last_lr_)
    fail(ErrorKind::config, "scheduler {}: no learning rate was written yet; call step() first", schedule_->type());
  return *last_lr_;
}

void Scheduler::rebuild(Params params) {
  schedule_ = make_schedule(schedule_->type(), std::move(params), groups_);
  start();
}

void Scheduler::write(const std::vector<GroupValues>& values) {
  last_lr_.emplace();
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    GroupInitial& group = groups_[g];
    group.lr = values[g].lr;
    group.beta1 = values[g].beta1;
    group.beta2 = values[g].beta2;
    group.momentum = values[g].momentum;
    group.weight_decay = values[g].weight_decay;
    last_lr_->push_back(group.lr);
  }
}

}  // namespace lockstep::sched
