#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/field.hpp"
#include "config/params.hpp"
#include "core/step_values.hpp"

namespace lockstep::sched {

/// The optimizer's own values for one parameter group, before any schedule. `has_betas` tells the Adam family
/// (beta1, beta2 count) from SGD (momentum counts).
struct GroupInitial : StepValues {
  bool has_betas = false;
};

/// What a schedule that reads a metric remembers of it (ReduceLROnPlateau: of val_loss). A value: equal on every rank
/// that was given the same metrics, and saved with the run.
struct MetricState {
  std::optional<double> best = {};  ///< so far
  std::int64_t bad = 0;             ///< evaluations without improvement, in a row
  std::int64_t cooldown = 0;        ///< evaluations left in which none counts as bad
  std::int64_t seen = 0;            ///< metrics taken
  std::vector<double> lr = {};      ///< by parameter group, what updates use from here on
  bool operator==(const MetricState&) const = default;
};

/// The parameters of a scheduler type, for the strict reader and the docs. Throws ErrorKind::config for a type
/// that does not exist; the message lists those that do.
const config::Fields& fields_of(std::string_view type);

/// One sentence about a scheduler type, for the docs. Throws likewise.
std::string_view doc_of(std::string_view type);

/// Every scheduler type, DeepSpeed's first. Names are case-sensitive, as in DeepSpeed.
std::vector<std::string> types();

/// A learning-rate schedule as a pure function of the number of applied updates. Immutable after construction,
/// so any number of threads may ask at once, and every rank that asks gets the same bits: double arithmetic on the
/// host, in a fixed order, without fused multiply-add.
///
/// The index n of DeepSpeed's documentation (`last_batch_iteration`) is -1 when fresh and grows by one with each
/// applied update, so update k >= 1 uses n = k - 1, and update 0 what construction wrote.
class Schedule {
 public:
  virtual ~Schedule() = default;
  Schedule(const Schedule&) = delete;
  Schedule& operator=(const Schedule&) = delete;

  /// Values for update `update` (that many updates were applied before it). `out.size()` must equal groups().
  /// With `last_batch_iteration: L` other than -1 in the parameters, update 0 uses the optimizer's own values
  /// and update k uses n = L + k, which is what DeepSpeed does on such an object.
  void values_at(std::int64_t update, std::span<StepValues> out) const;

  /// Values at DeepSpeed's index n; any integer is allowed. n = -1 gives what the formula says there, which for
  /// OneCycle's momentum differs from what construction writes.
  void values_at_index(std::int64_t index, std::span<StepValues> out) const;

  /// Values that construction writes into the optimizer: nothing (the optimizer's own) if the parameters name
  /// a `last_batch_iteration` other than -1.
  void values_at_construction(std::span<StepValues> out) const;

  /// Of a schedule that reads a metric, its state before the first one; nothing of all others, whose values follow from
  /// the update alone. values_at gives such a schedule's values for a run without metrics.
  [[nodiscard]] virtual std::optional<MetricState> metric_state() const { return std::nullopt; }
  /// Takes the metric into account that was evaluated when `update` updates were applied. ErrorKind::internal if the
  /// schedule reads none.
  virtual void observe(std::int64_t update, double metric, MetricState& state) const;
  /// Puts what `state` decides into `out`, which holds the values of `update`.
  virtual void follow(std::int64_t update, const MetricState& state, std::span<StepValues> out) const;

  /// Adds to warnings() the outlook (sched/outlook.hpp) on the first `updates` updates: for whoever makes the schedule
  /// and knows how long the run is.
  virtual void look_ahead(std::int64_t updates);

  /// Likely mistakes, each a sentence for the user.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }
  /// Surprising but correct behaviour, each a sentence for the user.
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  [[nodiscard]] std::string_view type() const { return type_; }
  /// Every parameter of the type, defaults included.
  [[nodiscard]] const config::Params& params() const { return params_; }
  [[nodiscard]] std::size_t groups() const { return initial_.size(); }
  [[nodiscard]] const std::vector<GroupInitial>& initial() const { return initial_; }
  /// `last_batch_iteration` of the parameters; -1 when fresh.
  [[nodiscard]] std::int64_t first_index() const { return first_index_; }

 protected:
  /// `params` must be checked and complete, as make_schedule has them.
  Schedule(std::string_view type, config::Params params, std::vector<GroupInitial> initial);
  void warn(std::string text) { warnings_.push_back(std::move(text)); }
  void note(std::string text) { notes_.push_back(std::move(text)); }

 private:
  /// The formula. `out` arrives holding the optimizer's own values; only what the schedule drives is written.
  virtual void at_index(std::int64_t index, std::span<StepValues> out) const = 0;
  /// What a fresh construction writes; by default the formula at n = -1.
  virtual void at_construction(std::span<StepValues> out) const { at_index(-1, out); }
  void fill_initial(std::span<StepValues> out) const;

  std::string type_;
  config::Params params_;
  std::vector<GroupInitial> initial_;
  std::int64_t first_index_ = -1;
  std::vector<std::string> warnings_;
  std::vector<std::string> notes_;
};

/// Makes a schedule. Throws ErrorKind::config for an unknown type or parameter, a missing one, a wrong type or
/// range, or a list whose length is not the number of groups. What `params` leaves out has the default of its field.
std::unique_ptr<Schedule> make_schedule(std::string_view type, const config::Params& params,
                                        std::vector<GroupInitial> initial);

/// `params` with the number of updates in place of each `auto`: `updates` is how many the schedule has to do with. In a
/// Sequence a stage has its own steps, and the last stage what the others leave of `updates`, at least 1.
config::Params without_auto(std::string_view type, config::Params params, std::int64_t updates);

/// What a job without a scheduler block uses: the optimizer's own values for ever.
std::unique_ptr<Schedule> make_constant(std::vector<GroupInitial> initial);

}  // namespace lockstep::sched
