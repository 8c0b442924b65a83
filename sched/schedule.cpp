#include "sched/schedule.hpp"

#include <algorithm>

#include "config/schema.hpp"
#include "config/words.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
#include "sched/outlook.hpp"
#include "sched/parameters.hpp"

namespace lockstep::sched {
namespace {

const std::vector<const Type*>& registry() {
  static const std::vector<const Type*> all = [] {
    std::vector<const Type*> result;
    for (const auto* family :
         {&lr_range_test_types(), &one_cycle_types(), &warmup_types(), &decay_types(), &torch_decay_types(),
          &torch_cycle_types(), &torch_sequential_types(), &torch_plateau_types(), &sequence_types()})
      for (const Type& type : *family) result.push_back(&type);
    return result;
  }();
  return all;
}

const Type& find_type(std::string_view name) {
  std::string known;
  std::string hint;
  for (const Type* type : registry()) {
    if (type->name == name) return *type;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", type->name);
    if (config::same_ignoring_case(type->name, name)) hint = fmt::format("; did you mean {}?", type->name);
  }
  fail(ErrorKind::config, "scheduler.type: there is no scheduler '{}'{} Known: {}", printable(name),
       hint.empty() ? "." : hint, known);
}

}  // namespace

const Fields& fields_of(std::string_view type) { return find_type(type).fields; }

std::string_view doc_of(std::string_view type) { return find_type(type).doc; }

std::vector<std::string> types() {
  std::vector<std::string> names;
  for (const Type* type : registry()) names.emplace_back(type->name);
  return names;
}

Schedule::Schedule(std::string_view type, config::Params params, std::vector<GroupInitial> initial)
    : type_(type),
      params_(std::move(params)),
      initial_(std::move(initial)),
      first_index_(params_.has("last_batch_iteration") ? params_.integer("last_batch_iteration") : -1) {
  require(!initial_.empty(), "schedule: the optimizer has no parameter group");
}

void Schedule::fill_initial(std::span<StepValues> out) const {
  require(out.size() == initial_.size(), "schedule: one StepValues for each parameter group is needed");
  for (std::size_t g = 0; g < out.size(); ++g) out[g] = initial_[g];
}

void Schedule::values_at(std::int64_t update, std::span<StepValues> out) const {
  require(update >= 0, "schedule: updates count from 0");
  if (update == 0) return values_at_construction(out);
  values_at_index(first_index_ + update, out);
}

void Schedule::values_at_index(std::int64_t index, std::span<StepValues> out) const {
  fill_initial(out);
  at_index(index, out);
}

void Schedule::values_at_construction(std::span<StepValues> out) const {
  fill_initial(out);
  if (first_index_ == -1) at_construction(out);
}

void Schedule::observe(std::int64_t /*update*/, double /*metric*/, MetricState& /*state*/) const {
  fail(ErrorKind::internal, "scheduler {} reads no metric", type_);
}

void Schedule::follow(std::int64_t /*update*/, const MetricState& /*state*/, std::span<StepValues> /*out*/) const {}

void Schedule::look_ahead(std::int64_t updates) {
  for (std::string& sentence : outlook(*this, updates)) warn(std::move(sentence));
}

std::unique_ptr<Schedule> make_schedule(std::string_view type, const config::Params& params,
                                        std::vector<GroupInitial> initial) {
  const Type& found = find_type(type);
  const Params complete = config::checked(found.fields, params, fmt::format("scheduler {}", found.name));
  for (const auto& [name, value] : complete.all())
    if (config::find_field(found.fields, name)->or_auto && value == ParamValue("auto"))
      fail(ErrorKind::config,
           "scheduler {}: {} is auto, which only a job file with run.steps can resolve; give a number", found.name,
           name);
  return found.make(found, complete, std::move(initial));
}

std::unique_ptr<Schedule> make_constant(std::vector<GroupInitial> initial) {
  return make_schedule("Constant", {}, std::move(initial));
}

}  // namespace lockstep::sched
