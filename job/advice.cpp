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

constexpr const char* precision_text = "write bf16: {enabled: true} or fp16: {enabled: true}; neither means fp32";
constexpr const char* epochs_text =
    "a run is counted in optimizer steps: run.steps; an epoch is training samples / train_batch_size of them";
constexpr const char* dropout_text =
    "gpt2 has embd_pdrop and resid_pdrop in model, an mlp and a convnet dropout; there is none on attention's weights";
constexpr const char* schedule_text = "write scheduler: {type: WarmupCosineLR, params: {...}}, or another type";

/// What other programs call things, at the top level or in `run`.
void advise_words_of_others(std::map<std::string, std::string>& advice) {
  for (const char* word : {"precision", "mixed_precision", "dtype", "torch_dtype", "amp_dtype"})
    advice[word] = precision_text;
  for (const char* word : {"epochs", "num_epochs", "max_epochs", "num_train_epochs", "n_epochs"})
    advice[word] = epochs_text;
  for (const char* word : {"max_steps", "max_iters", "num_steps", "total_steps", "iterations"})
    advice[word] = "did you mean 'run.steps'?";
  for (const char* word : {"batch", "batch_size", "global_batch_size"})
    advice[word] = "did you mean 'train_batch_size'? What of the three batch keys is left out is derived";
  for (const char* word : {"micro_batch_size", "per_device_train_batch_size"})
    advice[word] = "did you mean 'train_micro_batch_size_per_gpu'?";
  for (const char* word : {"grad_accum", "grad_accum_steps", "accumulate_grad_batches"})
    advice[word] = "did you mean 'gradient_accumulation_steps'?";
  for (const char* word : {"max_grad_norm", "grad_clip", "gradient_clip_val", "clip_grad_norm"})
    advice[word] = "did you mean 'gradient_clipping'?";
  for (const char* word : {"lr", "learning_rate"}) advice[word] = "the learning rate is optimizer.params.lr";
  for (const char* word : {"lr_scheduler_type", "lr_schedule", "cosine", "min_lr", "warmup_ratio"})
    advice[word] = schedule_text;
  advice["warmup_steps"] = "it is a scheduler's: scheduler.params.warmup_num_steps of WarmupCosineLR and its kin";
  advice["vocab_size"] = "the tokenizer says it; a gpt2 with more tokens than that has model.vocab_size";
  advice["dropout"] = dropout_text;
}

void advise_top_level(Section& root) {
  advise_words_of_others(root.advice);
  for (const auto& [key, text] : std::map<std::string, std::string>{
           {"lr_scheduler", "did you mean 'scheduler'?"},
           {"weight_decay", "it belongs to optimizer.params"},
           {"betas", "it belongs to optimizer.params"},
           {"zero_stage", "write zero_optimization: {stage: ...}"},
           {"stage", "write zero_optimization: {stage: ...}"},
           {"loss_scale", "it belongs to fp16"},
           {"params", "it belongs into optimizer or scheduler"},
       })
    root.advice[key] = text;
}

void advise_model(Section& model) {
  auto& advice = model.advice;
  for (const char* word : {"hidden_size", "d_model", "n_embed", "embed_dim", "dim"})
    advice[word] = "gpt2's width is 'n_embd', an mlp's list of widths 'hidden'";
  for (const char* word : {"num_layers", "num_hidden_layers", "n_layers", "depth", "layers"})
    advice[word] = "gpt2's number of blocks is 'n_layer'; an mlp has one layer for each entry of 'hidden'";
  for (const char* word : {"num_heads", "num_attention_heads", "n_heads", "heads"})
    advice[word] = "did you mean 'n_head'?";
  for (const char* word : {"seq_len", "max_seq_len", "sequence_length", "context_length", "context", "n_ctx",
                           "n_positions", "max_position_embeddings"})
    advice[word] = "did you mean 'block_size'?";
  for (const char* word : {"dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout"})
    advice[word] = dropout_text;
  for (const char* word : {"vocab_size", "n_vocab"})
    advice[word] = "the data says it; a gpt2 with more tokens than that has 'vocab_size'";
  for (const char* word : {"precision", "dtype", "torch_dtype"}) advice[word] = precision_text;
}

void advise_scheduler(Section& scheduler) {
  config::Types& types = *scheduler.types;
  const std::string cosine =
      "write WarmupCosineLR (DeepSpeed's, with warm-up) or CosineDecay: half a cosine over total_num_steps updates";
  for (const char* word : {"cosine", "cosine_with_warmup", "cosine_with_min_lr", "CosineLR", "CosineAnnealing"})
    types.advice[word] = cosine;
  for (const char* word : {"cosine_with_restarts", "cosine_restarts"})
    types.advice[word] = "write CosineDecay with first_cycle_steps";
  for (const char* word : {"linear", "linear_with_warmup"})
    types.advice[word] = "write WarmupDecayLR (DeepSpeed's) or LinearDecay";
  for (const char* word : {"constant_with_warmup", "constant"}) types.advice[word] = "write WarmupLR or Constant";
  types.advice["ChainedScheduler"] = "write Sequence or SequentialLR, whose schedulers act one after another";
  types.advice["polynomial"] = "write PolynomialDecay";
  types.advice["inverse_sqrt"] = "write InverseSqrt";
  for (Type& type : types.known)
    for (Section& params : type.keys.sections) {
      for (const Field& field : params.keys.fields)
        scheduler.advice[field.name] =
            fmt::format("it belongs into params: {{type: ..., params: {{{}: ...}}}}", field.name);
      const auto has = [&params](const char* name) { return config::find_field(params.keys.fields, name) != nullptr; };
      const auto rename = [&](const char* word, const char* ours) {
        if (has(ours) && !has(word)) params.advice[word] = fmt::format("did you mean '{}'?", ours);
      };
      rename("warmup_steps", "warmup_num_steps");
      rename("num_warmup_steps", "warmup_num_steps");
      rename("warmup_num_steps", "warmup_steps");
      rename("num_warmup_steps", "warmup_steps");
      for (const char* word : {"T_max", "num_training_steps", "max_steps", "total_steps"})
        rename(word, "total_num_steps");
      for (const char* word : {"T_max", "num_training_steps", "max_steps", "total_num_steps"})
        rename(word, "total_steps");
      for (const char* word : {"num_training_steps", "max_steps", "total_steps", "total_num_steps"})
        rename(word, "T_max");
      rename("min_lr", "eta_min");
      rename("min_lr", "warmup_min_lr");
      rename("max_lr", "warmup_max_lr");
      rename("eta_min", "cos_min_ratio");
      rename("min_lr", "cos_min_ratio");
      rename("milestone", "milestones");
      params.advice["last_epoch"] = "remove it: a schedule begins with the run, and a resumed run goes on with it";
      params.advice["verbose"] = "remove it: lockstep lr prints the schedule";
      if (type.name == "OneCycleLR")
        for (const char* word : {"epochs", "steps_per_epoch"})
          params.advice[word] = "write total_steps: the number of updates, or auto for run.steps";
      if (type.name == "CyclicLR")
        for (const char* word : {"scale_fn", "scale_mode"})
          params.advice[word] = "a job file has no functions: choose a mode (triangular, triangular2, exp_range)";
    }
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
    for (Section& params : type.keys.sections) {
      params.advice["max_grad_norm"] = "clipping is the top-level key 'gradient_clipping'";
      params.advice["learning_rate"] = "did you mean 'lr'?";
      params.advice["muon_lr"] = "did you mean 'lr'?";
      params.advice["adam_lr"] = "give those parameters a group of their own, with this lr: parameter_groups";
      for (const Field& field : params.keys.fields)
        if (type.name == optimizer.types->default_type || !optimizer.advice.contains(field.name))
          optimizer.advice[field.name] =
              fmt::format("it belongs into params: {{type: {}, params: {{{}: ...}}}}", type.name, field.name);
    }
  optimizer.advice["learning_rate"] = optimizer.advice["lr"];
  optimizer.advice["name"] = "did you mean 'type'?";
  for (const char* word : {"adamw_torch", "adamw_hf", "adamw_torch_fused", "FusedAdam", "DeepSpeedCPUAdam"})
    optimizer.types->advice[word] = "write AdamW or Adam";
  optimizer.types->advice["momentum"] = "write SGD, with params: {momentum: ...}";
  auto& refused = optimizer.types->refused;
  for (const char* name : {"OneBitAdam", "ZeroOneAdam", "OneBitLamb"})
    refused[name] =
        "it compresses gradients between the ranks; this version always exchanges them in full. Adam with the same lr "
        "follows the same schedule";
  for (const char* name : {"MuAdam", "MuAdamW", "MuSGD", "RMSprop", "Adamax"})
    refused[name] = "this version has Adam, AdamW, SGD, Lion, Adagrad, Lamb and Muon";
}

}  // namespace

void add_advice(Section& root) {
  advise_top_level(root);
  advise_moves(root);
  advise_words_of_others(block(root, "run").advice);
  advise_model(block(root, "model"));
  advise_optimizer(block(root, "optimizer"));
  advise_scheduler(block(root, "scheduler"));
  for (const char* key : {"loss_scale", "loss_scale_window", "initial_scale_power", "hysteresis", "min_loss_scale"})
    block(root, "bf16").advice[key] = "bf16 needs no loss scaling; this key belongs to fp16";
}

}  // namespace lockstep::job
