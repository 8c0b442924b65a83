#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/probe.hpp"
#include "kernels/table.hpp"
#include "nn/parameter.hpp"
#include "nn/plan.hpp"
#include "nn/tensor.hpp"
#include "nn/watch.hpp"

namespace lockstep::nn {

enum class Mode : std::uint8_t {
  plan,      ///< shapes, memory and order only: nothing is launched, every pointer is null
  train,     ///< records a tape
  evaluate,  ///< no tape, memory is reused at once
};

struct ContextOptions {
  Exec exec = {};                   ///< while planning its table is all that is needed
  DType compute = DType::f32;       ///< of activations and of parameter values
  ParameterStore* store = nullptr;  ///< null while planning
  Workspace* workspace = nullptr;
  Mode mode = Mode::train;
  bool plan_backward = true;                      ///< plan mode: plan a training pass (true) or an evaluation pass
  const std::vector<OpPlan>* expected = nullptr;  ///< the plan's operations; a differing sequence is an error
  LossSum* loss = nullptr;                        ///< device; losses are added to it
  std::int64_t* correct = nullptr;                ///< device; evaluation adds right answers to it
  const StepState* state = nullptr;               ///< device; its scale multiplies the loss gradient. Null: 1
  std::uint64_t seed = 1;                         ///< of dropout
  Probe* probe = nullptr;                         ///< told of each forward and backward operation; null: nobody
  Watch* watch = nullptr;                         ///< shown what passes read and make; null: nobody
  std::function<void()> after_op =
      {};  ///< e.g. lets collectives progress; called after each forward and backward operation
};

/// One pass over a model: operations call it to get memory, run kernels and record their backward halves.
///
/// backward() runs the records in reverse. Gradients of activations: a consumer gives its contribution with
/// give_grad; the first one is adopted without a copy, further ones are added. A gradient that two producers share
/// is writable for the earlier-made tensor only: its producer is visited last.
class Context {
 public:
  explicit Context(ContextOptions options);

  // For models.
  /// Brackets the uses of a unit's parameters: acquire now, release at the end of the scope, and the mirror image in
  /// backward. When an exception leaves the scope nothing is released: the pass is lost, and a store's release may
  /// communicate or throw.
  class UnitScope {
   public:
    UnitScope(Context& context, int unit);
    UnitScope(const UnitScope&) = delete;
    UnitScope& operator=(const UnitScope&) = delete;
    ~UnitScope() noexcept(false);

   private:
    Context& context_;
    int unit_;
    int exceptions_;  ///< in flight when the scope began
  };
  /// What a region of a model computes from its inputs, and again in the backward pass.
  using Region = std::function<std::vector<Tensor>(Context&, std::vector<Tensor>)>;
  enum class Keep : std::uint8_t {
    nothing,
    attention,  ///< its outputs: computed once, and all else again
  };
  /// Runs `region`. In training nothing of it is kept but its inputs and what `keep` says; backward runs it again,
  /// which must do the same operations, and then its backward half. So it costs a second forward pass, and the memory
  /// of one region at a time in place of all. Same bits: kernels get the same inputs and gradients arrive in the same
  /// order. Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
  [[nodiscard]] std::vector<Tensor> recomputed(std::vector<Tensor> inputs, Region region, Keep keep = Keep::nothing);
  /// Says that the forward pass is over: an Error if the plan has more operations.
  void finish_forward();

  // For operations.
  [[nodiscard]] Tensor make(const Shape& shape, DType dtype);
  [[nodiscard]] Tensor make(const Shape& shape) { return make(shape, options_.compute); }
  /// Announces an operation: checks it against the plan, counts its cost. Call before its kernels.
  void begin(std::string_view name, const Shape& out, Cost forward, Cost backward);
  /// Runs a kernel; while planning only notes products with weights.
  template <class Args>
  void run(void (*kernel)(const Exec&, const Args&), const Args& args) {
    if (!planning()) return kernel(options_.exec, args);
    if constexpr (std::is_same_v<Args, MatmulArgs>)
      if (args.b_param >= 0) weight_products_.push_back(args);
  }
  /// The same for a kernel that needs scratch: takes as much as the table asks for, for as long as the kernel runs.
  template <class Args>
  void run_with_scratch(void (*kernel)(const Exec&, const Args&), Args args) {
    const std::size_t bytes = kernels::scratch_bytes(options_.exec, args);
    const Tensor scratch = bytes > 0 ? make({static_cast<std::int64_t>(bytes)}, DType::u8) : Tensor();
    if (scratch.defined()) args.scratch = scratch.data();
    run(kernel, args);
  }
  /// Ends the operation; in training `backward` is kept on the tape (with the tensors it captured).
  void end(std::function<void(Context&)> backward);

  [[nodiscard]] const void* value(ParamId id) {
    if (planning()) return nullptr;
    const void* const data = options_.store->value(id);
    if (watching()) options_.watch->value(id, data);
    return data;
  }
  [[nodiscard]] std::uint64_t version(ParamId id) { return planning() ? 0 : options_.store->version(id); }
  [[nodiscard]] GradView grad(ParamId id) { return planning() ? GradView{} : options_.store->grad(id); }
  /// To be called by a backward half after it enqueued its contribution to grad(id), and before it asks for it again.
  void contributed(ParamId id);

  struct Grad {
    Tensor tensor;          ///< undefined: nothing reached this tensor
    bool writable = false;  ///< may be overwritten in place
  };
  /// The gradient that has reached `of`; removed from the context.
  [[nodiscard]] Grad take_grad(const TensorRef& of);
  /// Adds `grad`, of the same type and number of elements, to what has reached `to`. Dropped if `to` is constant.
  void give_grad(const TensorRef& to, const Tensor& grad, bool writable);
  /// Declares that nobody needs the gradient of `tensor`.
  void set_constant(const TensorRef& tensor) { constants_.insert(tensor.id); }
  [[nodiscard]] bool needs_grad(const TensorRef& tensor) const { return !constants_.contains(tensor.id); }

  [[nodiscard]] bool planning() const { return options_.mode == Mode::plan; }
  [[nodiscard]] bool training() const { return options_.mode == Mode::train || (planning() && options_.plan_backward); }
  /// Whether operations are kept on the tape: in training, except where recomputed() runs a region for the first time.
  [[nodiscard]] bool recording() const { return training() && !paused_; }
  /// For an operation that recomputed() may keep: gives back `made` of the first time, in which case its kernel has
  /// nothing to do. Else false, and the operation says what it has made with keep().
  [[nodiscard]] bool recall(const std::vector<Tensor*>& made);
  void keep(const std::vector<Tensor>& made);
  [[nodiscard]] const ContextOptions& options() const { return options_; }

  /// Runs the tape in reverse and empties it. After an Error the context can only be destroyed.
  void backward();

  /// What a planning context learned.
  [[nodiscard]] Plan finish_plan(int parameter_count);

 private:
  struct Record {
    std::function<void(Context&)> backward;
    bool is_op = true;  ///< false: a unit's marker
    int op = -1;        ///< of the plan's operations
  };
  [[nodiscard]] bool watching() const { return options_.watch != nullptr && !planning(); }
  void acquire(int unit, Phase phase);
  void release(int unit, Phase phase);
  /// Of a region that runs: what is kept of it, in order.
  struct Kept {
    Keep what = Keep::nothing;
    std::vector<Tensor> tensors;
    std::size_t next = 0;
    bool again = false;
  };
  /// From an id to another one, as it is.
  void move_grad(int from, int to);

  ContextOptions options_;
  std::vector<Record> tape_;
  std::map<int, Grad> grads_;       ///< by tensor id
  std::set<int> constants_;         ///< tensor ids
  std::vector<Tensor::Weak> made_;  ///< by the operation under way, while somebody watches
  int next_id_ = 0;
  int next_op_ = 0;
  bool paused_ = false;                ///< a region runs for the first time
  std::shared_ptr<Kept> region_ = {};  ///< the one that runs, either time
  std::vector<OpPlan> ops_;
  std::vector<MatmulArgs> weight_products_;
  std::vector<ParamId> contributions_;  ///< in backward order, while planning
  std::vector<UnitEvent> unit_events_;  ///< while planning
  friend class UnitScope;
};

}  // namespace lockstep::nn
