#include <algorithm>
#include <limits>

#include "config/schema.hpp"
#include "core/error.hpp"
#include "sched/parameters.hpp"

namespace lockstep::sched {
namespace {

constexpr std::int64_t longest = std::numeric_limits<std::int64_t>::max();

const ParamValue::List& blocks_of(const Params& params, const std::string& name = "stages") {
  return std::get<ParamValue::List>(params.find(name)->value);
}

Params params_of(const Params& stage) {
  const ParamValue* params = stage.find("params");
  return params == nullptr ? Params() : Params::of(*params);
}

/// How many of `left` updates stage `i` of a Sequence or a SequentialLR has: at least 1.
std::int64_t steps_of(const Params& params, const Params& stage, std::size_t i, std::int64_t left) {
  if (stage.has("steps")) return stage.integer("steps");
  std::int64_t steps = left;
  if (const ParamValue* milestones = params.find("milestones"); milestones != nullptr) {
    const auto& list = std::get<ParamValue::List>(milestones->value);
    const auto milestone = [&](std::size_t n) { return std::get<std::int64_t>(list[n].value); };
    if (i < list.size()) steps = milestone(i) - (i == 0 ? 0 : milestone(i - 1));
  }
  return std::max<std::int64_t>(1, steps);
}

/// Other schedules, one after another. Each begins with its update 0 when the steps of those before it are over, and
/// from the optimizer's own values: nothing of an earlier stage is left.
class Sequence final : public Schedule {
 public:
  Sequence(const Type& type, const Params& params, std::vector<GroupInitial> given)
      : Schedule(type.name, params, std::move(given)) {
    const ParamValue::List& blocks = blocks_of(params);
    std::int64_t first = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const Params stage = Params::of(blocks[i]);
      const std::string name = fmt::format("stage {}, {}", i + 1, stage.text("type"));
      const bool last = i + 1 == blocks.size();
      if (last == stage.has("steps"))
        fail(ErrorKind::config, "scheduler Sequence: {} {}", name,
             last ? "is the last and goes on to the end: remove its steps"
                  : "needs its number of steps; only the last goes on to the end");
      stages_.push_back({first, make_schedule(stage.text("type"), params_of(stage), initial())});
      if (!last && stages_.back().schedule->metric_state())
        fail(ErrorKind::config,
             "scheduler Sequence: {} ends when val_loss says so, not after a number of steps: only the last stage may "
             "read it",
             name);
      for (const std::string& text : stages_.back().schedule->warnings()) warn(fmt::format("{}: {}", name, text));
      for (const std::string& text : stages_.back().schedule->notes()) note(fmt::format("{}: {}", name, text));
      if (!last) first = std::min(first, longest - stage.integer("steps")) + stage.integer("steps");
    }
  }

  // The last stage's; metrics of the updates before it are not its own.
  [[nodiscard]] std::optional<MetricState> metric_state() const override {
    return stages_.back().schedule->metric_state();
  }
  void observe(std::int64_t update, double metric, MetricState& state) const override {
    const Stage& last = stages_.back();
    if (update >= last.first) last.schedule->observe(update - last.first, metric, state);
  }
  void follow(std::int64_t update, const MetricState& state, std::span<StepValues> out) const override {
    const Stage& last = stages_.back();
    if (update >= last.first) last.schedule->follow(update - last.first, state, out);
  }

  void look_ahead(std::int64_t updates) override {
    Schedule::look_ahead(updates);
    const auto late = std::find_if(stages_.begin(), stages_.end(), [=](const Stage& s) { return s.first >= updates; });
    if (late != stages_.end())
      warn(fmt::format("the run ends after {} updates, before stage {}, {}, begins with update {}", updates,
                       late - stages_.begin() + 1, late->schedule->type(), late->first));
  }

 private:
  struct Stage {
    std::int64_t first;  ///< the update that is its update 0
    std::unique_ptr<Schedule> schedule;
  };

  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    const std::int64_t update = std::max<std::int64_t>(0, index + 1);
    const Stage* now = &stages_.front();
    for (const Stage& stage : stages_)
      if (stage.first <= update) now = &stage;
    now->schedule->values_at(update - now->first, out);
  }

  std::vector<Stage> stages_;
};

/// A stage in a job file. Made when it is first asked for: the types are complete then, this one among them.
const config::Section& stage_section() {
  static const config::Section section = [] {
    Field steps = steps_field("steps", "null", "How many updates the stage has; the last stage has none.", 1);
    steps.nullable = true;
    config::Section stage{.name = "stage",
                          .doc = "One schedule of a Sequence.",
                          .keys = {.fields = {steps}},
                          .types = config::Types{.doc = "Any scheduler, Sequence too."}};
    for (const std::string& name : types())
      stage.types->known.push_back({.name = name,
                                    .doc = std::string(doc_of(name)),
                                    .keys = {.sections = {{.name = "params",
                                                           .doc = "Parameters of the scheduler.",
                                                           .keys = {.fields = fields_of(name)}}}}});
    return stage;
  }();
  return section;
}

}  // namespace

Params without_auto(std::string_view type, Params params, std::int64_t updates) {
  for (const Field& field : fields_of(type)) {
    const ParamValue* value = params.find(field.name);
    if (value == nullptr) continue;
    // As a reader of the file would have it, so that a written configuration loads to an equal one.
    if (field.or_auto && *value == ParamValue("auto"))
      params.set(field.name,
                 field.type == FieldType::integer ? ParamValue(updates) : ParamValue(static_cast<double>(updates)));
    if (field.type != FieldType::block_list) continue;
    ParamValue::List blocks = blocks_of(params, field.name);
    std::int64_t left = updates;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const Params stage = Params::of(blocks[i]);
      const std::int64_t steps = steps_of(params, stage, i, left);
      left = std::max<std::int64_t>(0, left - steps);
      const Params inner = without_auto(stage.text("type"), params_of(stage), steps);
      for (auto& [name, entry] : std::get<ParamValue::Block>(blocks[i].value))
        if (name == "params")
          for (auto& [key, given] : std::get<ParamValue::Block>(entry.value)) given = *inner.find(key);
    }
    params.set(field.name, std::move(blocks));
  }
  return params;
}

const std::vector<Type>& sequence_types() {
  static const std::vector<Type> types = {
      {"Sequence",
       "Other schedules, one after another, each with a clock of its own.",
       {{.name = "stages",
         .type = FieldType::block_list,
         .doc =
             "{steps: ..., type: ..., params: {...}} for each schedule; steps is the number of its updates, which the "
             "last one does not have.",
         .required = true,
         .blocks = stage_section}},
       [](const Type& type, const Params& params, std::vector<GroupInitial> initial) -> std::unique_ptr<Schedule> {
         return std::make_unique<Sequence>(type, params, std::move(initial));
       }}};
  return types;
}

}  // namespace lockstep::sched
