#include "sched/parameters.hpp"

namespace lockstep::sched {

Field last_batch_iteration_field() {
  return {.name = "last_batch_iteration",
          .type = FieldType::integer,
          .default_text = "-1",
          .doc =
              "The index to start from. Other than -1, nothing is written at construction: the first update uses "
              "the optimizer's own values and the schedule goes on at this index plus one.",
          .unit = "optimizer steps",
          .strict_integer = true};
}

Field or_run_steps(Field total) {
  total.or_auto = true;
  total.doc += " auto: run.steps.";
  return total;
}

}  // namespace lockstep::sched
