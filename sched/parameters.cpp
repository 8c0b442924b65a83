#include "sched/parameters.hpp"

namespace lockstep::sched {

Field steps_field(std::string name, std::string default_text, std::string doc, double min) {
  const bool required = default_text.empty();
  return {.name = std::move(name),
          .type = FieldType::integer,
          .default_text = std::move(default_text),
          .doc = std::move(doc),
          .unit = "optimizer steps",
          .required = required,
          .min = min,
          .strict_integer = true};
}

Field number_field(std::string name, std::string default_text, std::string doc, std::optional<double> min) {
  const bool required = default_text.empty();
  return {.name = std::move(name),
          .type = FieldType::number,
          .default_text = std::move(default_text),
          .doc = std::move(doc),
          .required = required,
          .min = min};
}

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
