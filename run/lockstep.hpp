#pragma once

// What a program with a model of its own includes: #include <lockstep/lockstep.hpp>. docs/api.md is the page to it.

#include "core/error.hpp"
#include "data/dataset.hpp"
#include "nn/gradient_check.hpp"
#include "nn/model.hpp"
#include "nn/ops.hpp"
#include "run/training.hpp"

namespace lockstep {

using run::initialize;
using run::launch;
using run::LoadedCheckpoint;
using run::Scheduler;
using run::Training;
using run::TrainingOptions;

}  // namespace lockstep
