#include <algorithm>
#include <limits>
#include <optional>

#include "config/schema.hpp"
#include "core/error.hpp"
#include "sched/parameters.hpp"

namespace lockstep::sched {
namespace {

/// torch's objects for one parameter group while they are made, one after another, on the same optimizer: what each of
/// them finds there, and what it leaves for the others.
struct TorchGroup {
  double lr = 0;                               ///< the optimizer's
  std::optional<double> initial_lr;            ///< `initial_lr`: from the first object on
  double momentum = 0;                         ///< beta1, or SGD's
  double base_momentum = 0, max_momentum = 0;  ///< of the last that cycles momentum

  [[nodiscard]] double start() const { return initial_lr.value_or(lr); }
};

bool is_cycle(const std::string& type) { return type == "OneCycleLR" || type == "CyclicLR"; }

ParamValue list_of(const std::vector<TorchGroup>& groups, double TorchGroup::*member) {
  ParamValue::List list;
  for (const TorchGroup& group : groups) list.emplace_back(group.*member);
  return list;
}

/// torch's schedulers one after another: each begins with its update 0 at its milestone.
///
/// torch's objects share the optimizer, and so each other's traces: OneCycleLR overwrites the `initial_lr` from which
/// the first schedule and those after it start, and the last OneCycleLR's peak and bounds of momentum are all
/// OneCycleLRs'; CyclicLR in the first place puts its base_lr there; momentum is written when the objects are made, and
/// stays where the last schedule that moved it left it. All this is taken over: the values are torch's.
class SequentialLR final : public Schedule {
 public:
  SequentialLR(const Type& type, const Params& params, std::vector<GroupInitial> given)
      : Schedule(type.name, params, std::move(given)) {
    const auto& blocks = std::get<ParamValue::List>(params.find("schedulers")->value);
    read_milestones(params, blocks.size());
    const std::vector<Params> completed = complete(blocks);
    std::vector<std::vector<GroupInitial>> initials;
    const std::vector<TorchGroup> groups = construct(completed, initials);
    for (std::size_t g = 0; g < groups.size(); ++g) first_momentum_.push_back(groups[g].momentum);
    Params last_one_cycle;
    for (std::size_t i = 0; i < completed.size(); ++i)
      if (types_[i] == "OneCycleLR") last_one_cycle = completed[i];
    for (std::size_t i = 0; i < completed.size(); ++i) add_stage(i, completed[i], last_one_cycle, initials[i], groups);
    tell_of_traces();
  }

  void look_ahead(std::int64_t updates) override {
    Schedule::look_ahead(updates);
    const auto late = std::find_if(stages_.begin(), stages_.end(), [=](const Stage& s) { return s.first >= updates; });
    if (late != stages_.end())
      warn(fmt::format("the run ends after {} updates, before scheduler {}, {}, begins with update {}", updates,
                       late - stages_.begin() + 1, late->schedule->type(), late->first));
  }

 private:
  struct Stage {
    std::int64_t first;  ///< the update that is its update 0
    std::unique_ptr<Schedule> schedule;
    std::unique_ptr<Schedule> rising;  ///< CosineAnnealingLR after its first fall, where that starts elsewhere
    std::int64_t fall = 0;
    bool moves_momentum = false;
  };

  void read_milestones(const Params& params, std::size_t schedulers) {
    firsts_ = {0};
    for (const ParamValue& entry : std::get<ParamValue::List>(params.find("milestones")->value)) {
      const auto milestone = std::get<std::int64_t>(entry.value);
      if (milestone <= firsts_.back())
        fail(ErrorKind::config,
             "scheduler SequentialLR: milestones must grow: {} does not come after {}, and its scheduler would never "
             "act",
             milestone, firsts_.back());
      firsts_.push_back(milestone);
    }
    if (firsts_.size() != schedulers)
      fail(ErrorKind::config,
           "scheduler SequentialLR: {} schedulers need {} milestones, the updates at which the second and later ones "
           "begin; there are {}",
           schedulers, schedulers - 1, firsts_.size() - 1);
  }

  /// The stages' types and parameters, checked and with their defaults.
  [[nodiscard]] std::vector<Params> complete(const ParamValue::List& blocks) {
    std::vector<Params> completed;
    for (const ParamValue& block : blocks) {
      const Params stage = Params::of(block);
      types_.push_back(stage.text("type"));
      const ParamValue* params = stage.find("params");
      completed.push_back(
          make_schedule(types_.back(), params == nullptr ? Params() : Params::of(*params), initial())->params());
    }
    return completed;
  }

  /// Makes torch's objects in their order. `initials`: the optimizer as each of them takes it for its base.
  std::vector<TorchGroup> construct(const std::vector<Params>& params,
                                    std::vector<std::vector<GroupInitial>>& initials) const {
    std::vector<TorchGroup> groups;
    for (const GroupInitial& group : initial())
      groups.push_back({
          .lr = group.lr,
          .initial_lr = {},
          .momentum = group.has_betas ? group.beta1 : group.momentum,
      });
    for (std::size_t i = 0; i < params.size(); ++i) {
      if (is_cycle(types_[i])) construct_cycle(types_[i], params[i], groups);
      std::vector<GroupInitial> bases = initial();
      for (std::size_t g = 0; g < groups.size(); ++g) {
        groups[g].initial_lr = groups[g].start();
        bases[g].lr = *groups[g].initial_lr;
      }
      if (is_cycle(types_[i]) && params[i].boolean("cycle_momentum")) {
        // torch's first step is taken at once, and writes momentum.
        const auto schedule = make_schedule(types_[i], params[i], initial());
        std::vector<StepValues> values(groups.size());
        schedule->values_at(0, values);
        for (std::size_t g = 0; g < groups.size(); ++g) groups[g].momentum = momentum_of(g, values[g]);
      }
      initials.push_back(std::move(bases));
    }
    return groups;
  }

  void construct_cycle(const std::string& type, const Params& params, std::vector<TorchGroup>& groups) const {
    const bool one = type == "OneCycleLR";
    const std::vector<double> lr = params.per_group(one ? "max_lr" : "base_lr", groups.size());
    const std::vector<double> base = params.per_group("base_momentum", groups.size());
    const std::vector<double> max = params.per_group("max_momentum", groups.size());
    for (std::size_t g = 0; g < groups.size(); ++g) {
      if (one)
        groups[g].initial_lr = lr[g] / params.number("div_factor");
      else
        groups[g].lr = lr[g];
      if (!params.boolean("cycle_momentum")) continue;
      groups[g].base_momentum = base[g];
      groups[g].max_momentum = max[g];
    }
  }

  void add_stage(std::size_t i, Params params, const Params& last_one_cycle, std::vector<GroupInitial> bases,
                 const std::vector<TorchGroup>& groups) {
    const std::string& type = types_[i];
    Stage stage{.first = firsts_[i], .schedule = nullptr, .rising = nullptr};
    if (is_cycle(type)) stage.moves_momentum = params.boolean("cycle_momentum");
    if (type == "OneCycleLR") {
      // It reads its levels from the optimizer, where the last OneCycleLR has left them.
      for (const char* name : {"max_lr", "div_factor", "final_div_factor"})
        params.set(name, *last_one_cycle.find(name));
      if (stage.moves_momentum) {
        params.set("base_momentum", list_of(groups, &TorchGroup::base_momentum));
        params.set("max_momentum", list_of(groups, &TorchGroup::max_momentum));
      }
    }
    if (i == 0 && type != "CosineAnnealingWarmRestarts") {
      // The first goes on from what the optimizer has when all are made; the others from their own bases.
      if (type == "CosineAnnealingLR") {
        stage.rising = make_schedule(type, params, bases);
        stage.fall = params.integer("T_max");
      }
      for (std::size_t g = 0; g < bases.size(); ++g) bases[g].lr = groups[g].start();
    }
    stage.schedule = make_schedule(type, params, std::move(bases));
    const std::string name = fmt::format("scheduler {}, {}", i + 1, type);
    for (const std::string& text : stage.schedule->warnings()) warn(fmt::format("{}: {}", name, text));
    for (const std::string& text : stage.schedule->notes()) note(fmt::format("{}: {}", name, text));
    stages_.push_back(std::move(stage));
  }

  /// What torch's objects leave for each other is no part of what the file says.
  void tell_of_traces() {
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      const Schedule& stage = *stages_[i].schedule;
      if (!is_cycle(types_[i]) && stage.initial()[0].lr != initial()[0].lr)
        note(
            fmt::format("scheduler {}, {}, starts from lr {} and not from the optimizer's {}: in torch OneCycleLR, and "
                        "CyclicLR in the first place, put theirs there; Sequence does not",
                        i + 1, types_[i], stage.initial()[0].lr, initial()[0].lr));
    }
  }

  [[nodiscard]] double momentum_of(std::size_t group, const StepValues& values) const {
    return initial()[group].has_betas ? values.beta1 : values.momentum;
  }

  /// The values of a stage at its own update k, into `out`, which has the optimizer's.
  static void stage_values(const Stage& stage, std::int64_t k, std::span<StepValues> out) {
    (stage.rising != nullptr && k > stage.fall ? stage.rising : stage.schedule)->values_at(k, out);
  }

  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    const std::int64_t update = std::max<std::int64_t>(0, index + 1);
    std::size_t now = stages_.size() - 1;
    while (stages_[now].first > update) --now;
    stage_values(stages_[now], update - stages_[now].first, out);
    if (stages_[now].moves_momentum) return;
    // It stays where the last schedule that moved it has left it.
    std::vector<double> momentum = first_momentum_;
    for (std::size_t i = 0; i < now; ++i) {
      if (!stages_[i].moves_momentum) continue;
      std::vector<StepValues> last(out.size());
      stage_values(stages_[i], stages_[i + 1].first - 1 - stages_[i].first, last);
      for (std::size_t g = 0; g < last.size(); ++g) momentum[g] = momentum_of(g, last[g]);
    }
    for (std::size_t g = 0; g < out.size(); ++g)
      (initial()[g].has_betas ? out[g].beta1 : out[g].momentum) = momentum[g];
  }

  std::vector<std::int64_t> firsts_;  ///< by stage, the update at which it begins
  std::vector<std::string> types_;
  std::vector<Stage> stages_;
  std::vector<double> first_momentum_;  ///< by group, before any schedule has moved it
};

/// A schedule in a job file. Made when it is first asked for: the types are complete then.
const config::Section& chained_section() {
  static const config::Section section = [] {
    config::Section chained{.name = "torch_scheduler",
                            .doc = "One schedule of a SequentialLR.",
                            .keys = {},
                            .types = config::Types{.doc = "One of torch's schedulers that need no metric."}};
    const auto add = [&](const Type& type) {
      const std::string name(type.name);
      chained.types->known.push_back(
          {.name = name,
           .doc = std::string(type.doc),
           .keys = {.sections = {
                        {.name = "params", .doc = "Parameters of the scheduler.", .keys = {.fields = type.fields}}}}});
    };
    for (const auto* family : {&torch_decay_types(), &torch_cycle_types()})
      for (const Type& type : *family) add(type);
    auto& refused = chained.types->refused;
    refused["SequentialLR"] =
        "a SequentialLR in another one fails in torch, or begins one update late: name all schedulers in one list, or "
        "use Sequence, whose stages may be Sequences";
    refused["ReduceLROnPlateau"] = "it needs a metric, and torch's SequentialLR refuses it too";
    for (const std::string& name : types())
      if (!doc_of(name).starts_with("torch's: "))
        refused.emplace(name, "it is none of torch's; Sequence takes any scheduler, each with its number of steps");
    return chained;
  }();
  return section;
}

}  // namespace

const std::vector<Type>& torch_sequential_types() {
  static const std::vector<Type> types = [] {
    Field milestones = steps_field("milestones", "",
                                   "The updates at which the second, third, ... scheduler begins; they must grow.", 1);
    milestones.type = FieldType::integer_list;
    return std::vector<Type>{
        {"SequentialLR",
         "torch's: other schedulers of torch, one after another.",
         {{.name = "schedulers",
           .type = FieldType::block_list,
           .doc = "{type: ..., params: {...}} for each scheduler.",
           .required = true,
           .blocks = chained_section},
          std::move(milestones)},
         [](const Type& type, const Params& params, std::vector<GroupInitial> initial) -> std::unique_ptr<Schedule> {
           return std::make_unique<SequentialLR>(type, params, std::move(initial));
         }}};
  }();
  return types;
}

}  // namespace lockstep::sched
