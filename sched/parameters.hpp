#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/field.hpp"
#include "config/params.hpp"
#include "sched/schedule.hpp"

namespace lockstep::sched {

using config::Field;
using config::Fields;
using config::FieldType;
using config::Params;
using config::ParamValue;

/// One scheduler type: what the registry knows of it. The fields' defaults are the only ones: `make` gets every
/// parameter, checked.
struct Type {
  std::string_view name;
  std::string_view doc;
  Fields fields;
  std::unique_ptr<Schedule> (*make)(const Type& type, const Params& params, std::vector<GroupInitial> initial);
};

/// The concrete types, by family. Each function returns static tables.
const std::vector<Type>& lr_range_test_types();
const std::vector<Type>& one_cycle_types();
const std::vector<Type>& warmup_types();
const std::vector<Type>& decay_types();
const std::vector<Type>& torch_decay_types();
const std::vector<Type>& torch_cycle_types();
const std::vector<Type>& torch_sequential_types();
const std::vector<Type>& torch_plateau_types();
const std::vector<Type>& sequence_types();

/// A number, and a count of updates that refuses '.' and exponents. Required where there is no default.
Field number_field(std::string name, std::string default_text, std::string doc, std::optional<double> min = {});
Field steps_field(std::string name, std::string default_text, std::string doc, double min);

/// `last_batch_iteration`, which DeepSpeed's five accept.
Field last_batch_iteration_field();

/// A total of steps that may be `auto`: the job file's run.steps, which its reader puts in.
Field or_run_steps(Field total);

}  // namespace lockstep::sched
