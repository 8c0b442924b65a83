#include <fmt/format.h>

#include "core/error.hpp"
#include "job/schema.hpp"

namespace lockstep::job {
namespace {

using config::Field;
using config::Section;
using config::Type;

Section& block(Section& root, std::string_view name) {
  for (Section& section : root.keys.sections)
    if (section.name == name) return section;
  fail(ErrorKind::internal, "the job file has no block {}", name);
}

void advise_top_level(Section& root) {
  root.advice = {
      {"lr_scheduler", "did you mean 'scheduler'?"},
      {"lr", "the learning rate is optimizer.params.lr"},
      {"learning_rate", "the learning rate is optimizer.params.lr"},
      {"weight_decay", "it belongs to optimizer.params"},
      {"betas", "it belongs to optimizer.params"},
      {"max_grad_norm", "did you mean 'gradient_clipping'?"},
      {"batch_size", "did you mean 'train_batch_size'?"},
      {"micro_batch_size", "did you mean 'train_micro_batch_size_per_gpu'?"},
      {"zero_stage", "write zero_optimization: {stage: ...}"},
      {"stage", "write zero_optimization: {stage: ...}"},
      {"loss_scale", "it belongs to fp16"},
      {"params", "it belongs into optimizer or scheduler"},
  };
}

/// A key in the wrong block: say where it belongs.
void advise_moves(Section& root) {
  for (const char* owner : {"run", "comm"})
    for (const Field& field : block(root, owner).keys.fields) {
      const std::string text = fmt::format("it belongs to {}", owner);
      root.advice.emplace(field.name, text);
      for (Section& section : root.keys.sections) section.advice.emplace(field.name, text);
    }
  for (Section& section : root.keys.sections)
    for (const Field& field : root.keys.fields) section.advice.emplace(field.name, "it belongs to the top level");
}

void advise_optimizer(Section& optimizer) {
  optimizer.advice["scheduler"] = "it belongs at the top level, beside 'optimizer'";
  for (Type& type : optimizer.types->known)
    for (Section& params : type.keys.sections)
      params.advice["max_grad_norm"] = "clipping is the top-level key 'gradient_clipping'";
  auto& refused = optimizer.types->refused;
  for (const char* name : {"OneBitAdam", "ZeroOneAdam", "OneBitLamb"})
    refused[name] =
        "it compresses gradients between the ranks; this version always exchanges them in full. Adam with the same lr "
        "follows the same schedule";
  for (const char* name : {"Lamb", "Lion", "Muon", "Adagrad", "MuAdam", "MuAdamW", "MuSGD", "RMSprop", "Adamax"})
    refused[name] = "this version has Adam, AdamW and SGD";
}

}  // namespace

void add_advice(Section& root) {
  advise_top_level(root);
  advise_moves(root);
  advise_optimizer(block(root, "optimizer"));
  for (const char* key : {"loss_scale", "loss_scale_window", "initial_scale_power", "hysteresis", "min_loss_scale"})
    block(root, "bf16").advice[key] = "bf16 needs no loss scaling; this key belongs to fp16";
}

}  // namespace lockstep::job
