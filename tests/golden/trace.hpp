#pragma once

#include <cmath>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/params.hpp"
#include "sched/schedule.hpp"
#include "tests/golden/checker.hpp"

namespace lockstep::golden {

using config::Params;
using config::ParamValue;

/// A JSON value as a scheduler or optimizer parameter.
ParamValue to_param(const nlohmann::json& value);
Params to_params(const nlohmann::json& object);

/// `optimizer_initial` of a trace.
std::vector<sched::GroupInitial> to_groups(const nlohmann::json& optimizer_initial);

/// Adds a mismatch unless `expected`, a JSON number, and `actual` are the same double. Zeros of either sign are one.
void expect_equal(Mismatches& out, const std::string& what, const nlohmann::json& expected, double actual);

/// The same for a list of numbers, its length included.
void expect_equal(Mismatches& out, const std::string& what, const nlohmann::json& expected,
                  const std::vector<double>& actual);

}  // namespace lockstep::golden
