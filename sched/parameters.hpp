#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string_view>
#include <vector>

#include "sched/schedule.hpp"

namespace lockstep::sched {

/// Throws ErrorKind::config unless every parameter is known, of its type and in its range, and all required ones
/// are there. The message names the scheduler, the parameter and the remedy.
void check_params(std::string_view type, const Fields& fields, const Params& params);

/// `params` without explicit nulls: null means "absent" wherever it is allowed.
[[nodiscard]] Params without_nulls(const Params& params);

/// One scheduler type: what the registry knows of it.
struct Type {
  std::string_view name;
  Fields fields;
  std::unique_ptr<Schedule> (*make)(const Type& type, const Params& params, std::vector<GroupInitial> initial);
};

/// The concrete types, by family. Each function returns static tables.
const std::vector<Type>& lr_range_test_types();
const std::vector<Type>& one_cycle_types();
const std::vector<Type>& warmup_types();
const std::vector<Type>& decay_types();

/// `last_batch_iteration`, which DeepSpeed's five accept.
Field last_batch_iteration_field();

}  // namespace lockstep::sched
