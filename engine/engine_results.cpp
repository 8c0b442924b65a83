// What comes back from the steps, and what ended the run.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.hpp"
#include "engine/engine.hpp"
#include "engine/engine_device.hpp"

namespace lockstep::engine {

void Engine::collect(bool block) {
  // One is enough to wait for; the rest only if they are done.
  for (; auto step = device_->steps.collect(block); block = false) {
    known_applied_ = step->applied;
    applied_after_[static_cast<std::size_t>(step->step % device_->steps.most_in_flight())] = step->applied;
    finished_.push_back(std::move(*step));
  }
}

std::int64_t Engine::result_delay() const { return device_->steps.delay(); }

const StepGraphs& Engine::graphs() const { return device_->graphs; }

void* Engine::kernel_context() const { return device_->context.get(); }

void Engine::drain() {
  while (device_->steps.in_flight() > 0) collect(true);
}

std::vector<FinishedStep> Engine::results() {
  collect(false);
  std::vector<FinishedStep> ready;
  while (!finished_.empty()) {
    FinishedStep& result = finished_.front();
    if (result.halt != Halt::none && !ready.empty()) break;  // what finished before goes out first
    last_scales_.push_back(result.scale);
    if (last_scales_.size() > 8) last_scales_.erase(last_scales_.begin());
    if (result.halt != Halt::none) raise(result);
    ready.push_back(std::move(result));
    finished_.erase(finished_.begin());
  }
  return ready;
}

void Engine::raise(const StepResult& result) {
  const std::int64_t number = result.step + 1;  // people count steps from 1
  if (result.halt == Halt::desync) {
    const std::vector<StepValues>&theirs = device_->steps.their_values(), &ours = device_->steps.our_values();
    std::string text;
    for (std::size_t i = 0; i < ours.size() && text.empty(); ++i) {
      const std::size_t g = i % static_cast<std::size_t>(groups_);
      const StepValues &a = theirs[i], &b = ours[i];
      const auto compare = [&](const char* name, double x, double y) {
        if (x != y)
          text +=
              fmt::format("\n  group {} {}: rank 0 broadcast {}, rank {} evaluated {}", g, name, x, comm_.rank(), y);
      };
      compare("lr", a.lr, b.lr);
      compare("beta1", a.beta1, b.beta1);
      compare("beta2", a.beta2, b.beta2);
      compare("momentum", a.momentum, b.momentum);
      compare("weight_decay", a.weight_decay, b.weight_decay);
    }
    fail(ErrorKind::desync,
         "step {}: rank {} evaluates another schedule than rank 0; the update was not applied.{}\n"
         "  {}",
         number, comm_.rank(), text.empty() ? "\n  (step counters or digests differ)" : text,
         metric_state_
             ? "The schedule follows a metric: all ranks must run the same binary with the same job file, and be given "
               "the same metric."
             : "All ranks must run the same binary with the same job file. Compare `lockstep lr JOB` on both hosts.");
  }
  const std::string first = first_non_finite(result.first_bad);
  if (result.halt == Halt::scale_floor) {
    std::string scales;
    for (const double scale : last_scales_) scales += fmt::format("{}{}", scales.empty() ? "" : " ", scale);
    fail(ErrorKind::diverged,
         "step {}: the gradient is not finite even at the smallest loss scale {} (fp16.min_loss_scale).\n"
         "  {}\n  last loss scales: {}\n"
         "  Try: a lower lr or longer warm-up; gradient_clipping; bf16 instead of fp16; a look at the data around this "
         "step.",
         number, options_.scaler.min_scale, first, scales);
  }
  fail(ErrorKind::diverged,
       "step {}: the gradient is not finite.\n  {}\n  loss: {}\n"
       "  Try: a lower lr or longer warm-up; gradient_clipping; a look at the data around this step.",
       number, first, result.loss);
}

std::string Engine::first_non_finite(std::int64_t first_bad) {
  constexpr std::int64_t piece = std::int64_t{1} << 20;
  std::vector<float> values(static_cast<std::size_t>(std::min(piece, layout_.size())));
  // Of a divided master a rank sees its own part.
  const std::vector<FlatRange> ranges =
      replicated("master") ? std::vector<FlatRange>{{0, layout_.size()}} : own_ranges("master");
  for (const FlatRange& range : ranges)
    for (std::int64_t begin = range.begin; begin < range.end; begin += piece) {
      const std::int64_t count = std::min(piece, range.end - begin);
      read_range("master", begin, count, values.data());
      for (std::int64_t i = 0; i < count; ++i)
        if (const float value = values[static_cast<std::size_t>(i)]; !std::isfinite(value))
          return fmt::format("the parameters themselves are not finite: {} is {}; an update before this step did that",
                             parameter_at(begin + i), value);
    }
  return "first non-finite gradient: " + parameter_at(first_bad);
}

std::string Engine::parameter_at(std::int64_t flat_index) const {
  const FlatLayout::Slice* slice = flat_index < 0 ? nullptr : layout_.find(flat_index);
  if (slice == nullptr) return "(the sum of squares overflowed; every value is finite)";
  const nn::ParameterSpec& spec = model_.parameters()[static_cast<std::size_t>(slice->param)];
  return fmt::format("{}[{}]", spec.name, flat_index - slice->begin);
}

}  // namespace lockstep::engine
