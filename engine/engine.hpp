#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "core/probe.hpp"
#include "data/dataset.hpp"
#include "engine/flat_buffers.hpp"
#include "engine/flat_layout.hpp"
#include "engine/gradient_sync.hpp"
#include "engine/non_finite_search.hpp"
#include "engine/parameter_store.hpp"
#include "engine/shard_map.hpp"
#include "engine/step_graphs.hpp"
#include "engine/step_queue.hpp"
#include "engine/unit_schedule.hpp"
#include "engine/unit_values.hpp"
#include "kernels/table.hpp"
#include "nn/model.hpp"
#include "optim/optimizer.hpp"
#include "sched/schedule.hpp"

namespace lockstep::engine {

/// Where a rank computes.
struct Place {
  DeviceApi* device = nullptr;  ///< must outlive the engine
  const KernelTable* kernels = nullptr;
  int threads = 1;
};

struct EngineOptions {
  nn::BatchShape micro_batch;  ///< of one rank
  int grad_accum = 1;          ///< micro-batches a step, of this rank
  /// 0: bits may depend on the numbers of ranks and threads. Else they do not, and this is the number of micro-batches
  /// a step of all ranks together, which are the leaves of LeafSums: rank r has sum_tree::share(leaves, r, ranks) of
  /// them, as many as grad_accum says. Each micro-batch's loss is divided by its own targets, and the sum by `leaves`.
  std::int64_t leaves = 0;
  DType compute = DType::f32;      ///< f32, bf16 or f16
  double gradient_clipping = 1.0;  ///< largest global norm; 0: off
  /// Ranks divide their gradients by the number of ranks before the sum in place of after it; gradient_predivide_factor
  /// is then ignored. Both change rounding and where a sum overflows, nothing else; not with `leaves`.
  bool prescale_gradients = false;
  /// Gradients are divided by it before the sum over ranks, and by what is left of the number of ranks after it.
  double gradient_predivide_factor = 1;
  ScalerConfig scaler = {};
  optim::OptimizerOptions optimizer = {};
  std::vector<sched::GroupInitial> groups;  ///< the optimizer's own values per parameter group
  std::vector<int> group_of;                ///< by parameter; empty: all in group 0
  /// Stepped by the engine, once per applied update. Null: the user sets lr with set_lr.
  std::shared_ptr<const sched::Schedule> schedule;
  std::uint64_t seed = 1;  ///< of the initial parameters and of dropout
  /// ZeRO: 1 divides moments and 16-bit training's masters over the ranks, 2 gradients as well, 3 also the parameters.
  /// The mathematics is the same, and with one micro-batch a step so are the bits. One rank has nothing to divide.
  int zero_stage = 0;
  /// Where ranks reach each other's memory (Capabilities::shared_address_space) all read one copy of the parameters,
  /// and each updates a share of it and of the moments: stage 1 without what it exchanges, and the same bits. In stages
  /// 0 to 2, on devices that do their work at once; elsewhere it changes nothing.
  bool one_copy = false;
  std::int64_t bucket_elements = std::int64_t{1} << 20;
  int max_in_flight = 3;  ///< steps whose result the host has not read; devices only
  /// Capture a step's work on the device and replay it (StepGraphs). Same results; the device must be able to capture.
  bool captured = false;
  /// Libraries may time several ways to do a product and keep the fastest (Exec::tune): no promise of equal bits.
  bool tune = false;
  Probe* probe = nullptr;  ///< told of a step's parts, but for those of `comm` (Communicator::set_probe); null: nobody
  /// How long the host waits for the device before it takes it for hung: ErrorKind::hang. 0: for ever.
  double wait_timeout_s = 600;
};

/// What evaluation adds up over a batch.
struct EvaluationSum {
  LossSum loss;
  std::int64_t correct = 0;  ///< targets that were the likeliest class; 0 where nobody counts
};

/// Data-parallel training of one model: forward, backward, step, as in DeepSpeed.
///
///   engine.forward(batch);  engine.backward();      // grad_accum times
///   engine.step();
///
/// All ranks call the same methods in the same order. Parameters start equal on every rank (a function of the
/// seed). Each step rank 0's schedule values are broadcast and compared with this rank's own before the update;
/// the update reads them where they arrived. Nothing waits for the device: results come back up to
/// max_in_flight steps later. Captured micro-steps are enqueued whole, by backward() or, the last one, by step().
///
/// Where the host does wait for the device it looks at the communicator too (DeviceApi::set_wait_check, which the
/// engine sets while it lives): a peer that fails, or wait_timeout_s without an end, ends the wait with ErrorKind::hang
/// or what the communicator says. The destructor waits no longer either.
///
/// Errors: ErrorKind::desync if schedules differ (both values in the text), ErrorKind::diverged at the smallest
/// loss scale or, in fp32, at the first non-finite gradient (parameter, step and advice in the text).
class Engine {
 public:
  Engine(nn::Model& model, comm::Communicator& comm, Place place, EngineOptions options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Forward pass of one micro-batch of options.micro_batch's shape.
  void forward(const data::HostBatch& batch);
  void backward();
  /// Reduce, decide, update. After grad_accum passes; ErrorKind::internal earlier or later.
  void step();

  /// While it lives, backward() leaves gradients unreduced even in the last micro-batch; step() then reduces them. Of
  /// no effect on captured steps, which always do the same. ErrorKind::internal in ZeRO stages 2 and 3, which keep
  /// nothing unreduced.
  class NoSync {
   public:
    explicit NoSync(Engine& engine);
    NoSync(const NoSync&) = delete;
    NoSync& operator=(const NoSync&) = delete;
    ~NoSync() { --engine_.no_sync_; }

   private:
    Engine& engine_;
  };
  [[nodiscard]] NoSync no_sync() { return NoSync(*this); }

  /// For rehearsals: one element of this rank's own gradient of `param` becomes NaN in the next micro-batch, before
  /// gradients are summed over ranks. ErrorKind::config with captured steps, whose work is fixed.
  void poison_gradient(nn::ParamId param);

  /// Per group, what the next update will use (as far as the host knows which updates were applied).
  [[nodiscard]] std::vector<double> lr() const;
  /// For a user-managed schedule only: ErrorKind::internal if the engine steps one itself.
  void set_lr(const std::vector<double>& lr);
  /// The same with everything that a schedule gives.
  void set_values(const std::vector<StepValues>& values);
  /// Puts another schedule in the place of the engine's, from the next step on; gives back what was there. Null: a
  /// user-managed one. What it remembers of a metric begins anew. Waits for the steps in flight.
  std::shared_ptr<const sched::Schedule> exchange_schedule(std::shared_ptr<const sched::Schedule> schedule);
  /// For a schedule that reads a metric (ReduceLROnPlateau): the metric after the steps so far, which all ranks call
  /// with the same value; the next step is the first to use what follows from it. Waits for the steps in flight.
  /// ErrorKind::internal if the schedule reads none.
  void observe(double metric);
  /// What such a schedule remembers, for checkpoints; nothing of other schedules.
  [[nodiscard]] const std::optional<sched::MetricState>& metric_state() const { return metric_state_; }
  void set_metric_state(const sched::MetricState& state);

  /// Steps that have finished since the last call, oldest first. Throws what ended the run, once those before it were
  /// returned: who wants to know of all steps asks until nothing comes.
  [[nodiscard]] std::vector<FinishedStep> results();
  /// The step that ended the run, once results() has thrown because of it.
  [[nodiscard]] std::optional<StepResult> halted() const {
    if (finished_.empty() || finished_.front().halt == Halt::none) return std::nullopt;
    return finished_.front();
  }
  /// Waits for every step in flight; results() then returns them all, up to one that ended the run.
  void drain();
  /// A step's result has surely been returned by results() after this many further steps: 0 on CPUs.
  [[nodiscard]] std::int64_t result_delay() const;
  /// Updates applied, as far as the host knows: of the steps that have finished.
  [[nodiscard]] std::int64_t applied() const { return known_applied_; }

  /// Sum of losses over a batch, its number of targets and, of a classifier, right answers, without gradients.
  /// Rank-local, but for ZeRO stage 3 (gathers()).
  [[nodiscard]] EvaluationSum evaluate(const data::HostBatch& batch);
  /// Whether the model counts right answers when it is evaluated.
  [[nodiscard]] bool has_accuracy() const { return has_accuracy_; }
  /// Logits of the last position of each sample, [batch, classes], in host memory. Rank-local, but for ZeRO stage 3.
  [[nodiscard]] std::vector<float> last_logits(const data::HostBatch& batch);

  /// StepResult::stop has the bits of all ranks.
  static constexpr std::int64_t wish_to_save = 1, wish_to_stop = 2, still_busy = 4;
  /// Makes every rank see `stop` in the result of the next step, and of every later one.
  void request_stop() { stop_requested_ = true; }
  /// Makes every rank see a wish to save in the result of the next step alone.
  void request_save() { save_requested_ = true; }
  /// Of the steps that begin from now on: whether this rank has something to do beside training (a checkpoint that is
  /// being written) that all ranks want to see the end of. A result without still_busy says that no rank has.
  void set_busy(bool busy) { busy_ = busy; }

  // State, for checkpoints. Flat buffers by name: "master" and the optimizer's moments.
  // Ranges [begin, begin + count) lie in the flat space of layout(); whoever walks a buffer chooses how much memory
  // that takes.
  [[nodiscard]] const std::vector<std::string>& buffer_names() const { return buffers_.names(); }
  /// The runs of the flat space that this rank is to save, ascending: those of all ranks tile it once. Rank-local.
  [[nodiscard]] std::vector<FlatRange> own_ranges(const std::string& name) const;
  /// Whether every rank has all of a buffer, for itself.
  [[nodiscard]] bool replicated(const std::string& name) const;
  /// Of a range within own_ranges(), or any range of a replicated buffer or of the one copy that ranks share.
  /// Rank-local.
  void read_range(const std::string& name, std::int64_t begin, std::int64_t count, float* to);
  /// Of "master" also the 16-bit copy. Every rank may be given any range: it keeps what it holds of it. Rank-local: a
  /// range must be given to all ranks, or refresh() called after each has been given its own_ranges(). With one_copy()
  /// nobody may go on before all have written: refresh(), or anything else that waits for all ranks.
  void write_range(const std::string& name, std::int64_t begin, std::int64_t count, const float* from);
  /// Brings what owners wrote to where other ranks have copies of it. Collective.
  void refresh();
  /// Any range, whole, into `to` on rank `root`, which others may leave null. Collective.
  void gather_range(const std::string& name, std::int64_t begin, std::int64_t count, float* to, int root);
  [[nodiscard]] StepState read_state();
  void write_state(const StepState& state);

  [[nodiscard]] const FlatLayout& layout() const { return layout_; }
  [[nodiscard]] const nn::Plan& plan() const { return plan_; }
  [[nodiscard]] nn::Model& model() { return model_; }
  [[nodiscard]] const EngineOptions& options() const { return options_; }
  /// Whether products are computed in bf16, if the device has a way to: not where they must be invariant.
  [[nodiscard]] bool multiplies_bf16() const { return options_.compute == DType::bf16 && options_.leaves == 0; }
  [[nodiscard]] const optim::Optimizer& optimizer() const { return *optimizer_; }
  [[nodiscard]] comm::Communicator& comm() { return comm_; }
  /// What the kernels' table made for this engine: library handles (Exec::context).
  [[nodiscard]] void* kernel_context() const;
  [[nodiscard]] const GradientSync& gradient_sync() const { return sync_; }
  /// The ZeRO stage that is at work: 0 on one rank.
  [[nodiscard]] int zero_stage() const { return stage_; }
  /// Whether options.one_copy has come true.
  [[nodiscard]] bool one_copy() const { return one_copy_; }
  /// Passes gather parameters: all ranks run each pass together, evaluation too.
  [[nodiscard]] bool gathers() const { return stage_ == 3; }
  [[nodiscard]] const ShardMap& shard_map() const { return map_; }
  /// Bytes that this rank hands to the communicator in a step, reports and records aside.
  [[nodiscard]] std::size_t exchange_bytes_per_step() const;
  [[nodiscard]] const StepGraphs& graphs() const;
  /// Name of the parameter that holds a flat index, for messages.
  [[nodiscard]] std::string parameter_at(std::int64_t flat_index) const;
  /// A sentence on where numbers went bad: the first parameter that is not finite, if one is (then every gradient is
  /// bad, and which one came first says nothing), else the gradient at `first_bad`.
  [[nodiscard]] std::string first_non_finite(std::int64_t first_bad);
  /// Runs the micro-batches of a step that was skipped, or ended the run, once more with the parameters that are there
  /// and the step's own loss scale and noise, and looks at every number on the way (NonFiniteSearch). `micro_batch`
  /// gives this rank's samples of each. Collective, between steps, none in flight; all ranks get the same, the earliest
  /// of what they found. Gradients are lost; parameters, moments and counters stay.
  [[nodiscard]] NonFinite find_non_finite(const StepResult& step,
                                          const std::function<const data::HostBatch&(int micro)>& micro_batch);
  /// Everything that this engine allocates: flat buffers, activations, staging, results and packed weights. Not what
  /// kernel libraries keep for themselves beside those.
  [[nodiscard]] std::size_t bytes() const;

 private:
  struct Device;

  void initialise_parameters();
  [[nodiscard]] NonFinite search_again(const std::function<const data::HostBatch&(int micro)>& micro_batch);
  void contributed(int slice);
  void begin_step();
  void forward_pass(int micro);
  void join_longer_steps();
  void backward_pass();
  void update();
  void require_no_pass(const char* caller) const;
  void values_of(std::int64_t update, std::span<StepValues> out) const;
  void fill_record(StepRecord& record, std::int64_t first_index, std::int32_t count) const;
  [[nodiscard]] Exec exec() const;
  /// What each rank multiplies its gradient by before the sum over ranks, and what the sum is then divided by.
  [[nodiscard]] double gradient_factor() const;
  [[nodiscard]] double gradient_divisor() const;
  [[nodiscard]] std::function<void(Buffer)> scale_before_sum() const;
  [[nodiscard]] nn::ContextOptions context_options(nn::Mode mode);
  [[nodiscard]] std::unique_ptr<UnitValues> make_values();
  [[nodiscard]] SyncWindows gradient_windows();
  /// The range is one of the flat space.
  void check_range(std::int64_t begin, std::int64_t count) const;
  /// Nothing is on its way into the parameters.
  void settle_values();
  void collect(bool block);
  [[noreturn]] void raise(const StepResult& result);

  nn::Model& model_;
  comm::Communicator& comm_;
  Place place_;
  EngineOptions options_;
  int groups_;
  nn::Plan plan_;
  nn::Plan eval_plan_;
  bool has_accuracy_;
  FlatLayout layout_;
  bool one_copy_;
  int stage_;
  ShardMap map_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  FlatBuffers buffers_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<LeafSums> leaf_sums_;       ///< with options.leaves
  std::size_t packed_weight_bytes_ = 0;       ///< copies that kernels prefer, made when they are first used
  std::unique_ptr<GradientWindows> windows_;  ///< stages 2 and 3
  std::unique_ptr<comm::FlatArena> window_memory_;
  GradientSync sync_;
  std::unique_ptr<UnitValues> values_;  ///< stages 1 to 3
  FlatStore store_;
  std::optional<nn::Workspace> workspace_;  ///< of the pass under way
  std::optional<nn::Context> pass_;
  std::vector<StepValues> user_values_;
  std::optional<sched::MetricState> metric_state_;

  nn::Batch batch_;            ///< on the device
  nn::ParamId poisoned_ = -1;  ///< whose gradient is to become NaN
  bool in_pass_ = false;       ///< forward() has been called, backward() not yet
  int micro_ = 0;              ///< micro-batches of this step that have run backward
  int no_sync_ = 0;
  nn::Watch* watch_ = nullptr;  ///< of a step that is run again
  bool stop_requested_ = false;
  bool save_requested_ = false;
  bool busy_ = false;
  std::int64_t known_applied_ = 0;           ///< updates applied, as of the last result read
  std::vector<std::int64_t> applied_after_;  ///< [step modulo the most in flight]: the same, as of that step's result
  std::int64_t restarted_at_ = 0;            ///< write_state: attempted and applied steps
  std::int64_t applied_at_restart_ = 0;
  std::vector<FinishedStep> finished_;
  std::vector<double> last_scales_;  ///< of the latest steps, for the message at the scale's floor
};

}  // namespace lockstep::engine
