#pragma once

#include "job/about.hpp"

// The part of the job file's table that a DeepSpeed file has too (job/fields.hpp has the rest).

namespace lockstep::job::table {

template <class Config, class V>
void fp16(Config& c, V& v) {
  v.field(c.enabled, {.name = "enabled", .doc = "Train in fp16 with fp32 master weights; excludes bf16."});
  v.field(c.loss_scale,
          {.name = "loss_scale", .doc = "0: dynamic loss scaling; above 0: this scale always.", .min = 0});
  v.field(c.initial_scale_power,
          {.name = "initial_scale_power", .doc = "Dynamic scaling begins at 2 to this power.", .min = 0, .max = 126});
  v.field(c.loss_scale_window, {.name = "loss_scale_window",
                                .doc = "The scale doubles after so many steps without overflow.",
                                .unit = "steps",
                                .min = 1});
  v.field(c.hysteresis, {.name = "hysteresis",
                         .doc = "Overflows until the scale halves. 0 never halves it, as in DeepSpeed.",
                         .min = 0,
                         .max = 1'000'000});
  v.field(c.consecutive_hysteresis,
          {.name = "consecutive_hysteresis", .doc = "Each step without overflow refills the hysteresis."});
  v.field(c.min_loss_scale, {.name = "min_loss_scale",
                             .doc = "An overflow at this scale ends the run with exit code 5.",
                             .min = 0,
                             .min_open = true});
}

template <class Config, class V>
void bf16(Config& c, V& v) {
  v.field(c.enabled, {.name = "enabled", .doc = "Train in bf16 with fp32 master weights; excludes fp16."});
}

template <class Config, class V>
void monitor(Config& c, V& v, const char* what) {
  v.field(c.enabled, {.name = "enabled", .doc = what});
  v.field(c.output_path, {.name = "output_path",
                          .default_text = "the run's folder",
                          .doc = "Where its files go, in <output_path>/<job_name>; relative to the current folder.",
                          .nullable = true});
  v.field(c.job_name,
          {.name = "job_name",
           .default_text = "DeepSpeedJobName with an output_path, else none",
           .doc = "A folder in output_path, or in that of this key in the run's folder; one for each run, if several "
                  "have the same output_path.",
           .nullable = true});
}

template <class Config, class V>
void zero(Config& c, V& v) {
  v.field(c.stage, {.name = "stage",
                    .doc = "How much of the training state is divided over the ranks: 0 nothing, 1 the optimizer's "
                           "moments and 16-bit training's masters, 2 gradients too, 3 parameters too. The mathematics "
                           "is the same.",
                    .min = 0,
                    .max = 3});
  v.field(c.reduce_bucket_size,
          {.name = "reduce_bucket_size",
           .default_text = "a unit on GPUs, 1048576 on CPUs",
           .doc = "Gradients are reduced in buckets of at most so many elements, as soon as a bucket is complete. A "
                  "bucket never reaches beyond a unit of the model (embedding, block, head).",
           .unit = "elements",
           .nullable = true,
           .min = 1,
           .max = 1e12});
}

template <class Config, class V>
void learning_rate(Config& c, V& v) {
  v.field(c.lr, {.name = "lr", .doc = "Learning rate; a scheduler starts from it or replaces it.", .min = 0});
}

template <class Config, class V>
void adam(Config& c, V& v, bool always_decoupled) {
  learning_rate(c, v);
  v.field(c.betas, {.name = "betas",
                    .doc = "Averaging factors of the gradient and of its square.",
                    .min = 0,
                    .max = 1,
                    .max_open = true,
                    .length = 2});
  v.field(c.eps, {.name = "eps", .doc = "Added to the root of the second moment, after bias correction.", .min = 0});
  v.field(c.weight_decay, {.name = "weight_decay",
                           .doc = always_decoupled ? "Decoupled decay: p <- p - lr * weight_decay * p."
                                                   : "Decoupled decay, unless adam_w_mode is false.",
                           .min = 0});
  v.field(c.bias_correction,
          {.name = "bias_correction", .doc = "Corrects the moments of the first steps for their start at zero."});
  v.field(c.adam_w_mode, {.name = "adam_w_mode",
                          .doc = always_decoupled ? "Without effect: AdamW always decouples the decay, as in DeepSpeed."
                                                  : "false: weight decay is added to the gradient (L2) instead."});
}

template <class Config, class V>
void sgd(Config& c, V& v) {
  learning_rate(c, v);
  v.field(
      c.momentum,
      {.name = "momentum", .doc = "Factor of the previous step's direction.", .min = 0, .max = 1, .max_open = true});
  v.field(c.dampening, {.name = "dampening",
                        .doc = "The gradient enters the momentum buffer times one minus this; not in the first step.",
                        .min = 0,
                        .max = 1});
  v.field(c.weight_decay, {.name = "weight_decay", .doc = "Added to the gradient as weight_decay * p.", .min = 0});
  v.field(c.nesterov, {.name = "nesterov", .doc = "Nesterov momentum; needs momentum above 0 and dampening 0."});
}

template <class Config, class V>
void lion(Config& c, V& v) {
  learning_rate(c, v);
  v.field(c.betas, {.name = "betas",
                    .doc = "Averaging factors of the gradient: in the direction of a step, and in what is remembered.",
                    .min = 0,
                    .max = 1,
                    .max_open = true,
                    .length = 2});
  v.field(c.weight_decay,
          {.name = "weight_decay", .doc = "Decoupled decay: p <- p - lr * weight_decay * p.", .min = 0});
}

template <class Config, class V>
void adagrad(Config& c, V& v) {
  learning_rate(c, v);
  v.field(c.eps, {.name = "eps", .doc = "Added to the root of the sum of squared gradients.", .min = 0});
  v.field(c.weight_decay, {.name = "weight_decay", .doc = "Added to the gradient as weight_decay * p.", .min = 0});
  v.field(c.initial_accumulator_value,
          {.name = "initial_accumulator_value", .doc = "What the sum of squared gradients begins with.", .min = 0});
}

template <class Config, class V>
void lamb(Config& c, V& v) {
  learning_rate(c, v);
  v.field(c.betas, {.name = "betas",
                    .doc = "Averaging factors of the gradient and of its square.",
                    .min = 0,
                    .max = 1,
                    .max_open = true,
                    .length = 2});
  v.field(c.eps, {.name = "eps", .doc = "Added to the root of the second moment.", .min = 0});
  v.field(c.weight_decay,
          {.name = "weight_decay", .doc = "Added to the direction as weight_decay * p, before its norm.", .min = 0});
  v.field(c.bias_correction, {.name = "bias_correction",
                              .doc = "Corrects the steps of the first updates for moments that start at zero."});
  v.field(c.max_coeff, {.name = "max_coeff",
                        .doc = "Largest ratio of a parameter's norm to its direction's that a step is multiplied by.",
                        .min = 0});
  v.field(c.min_coeff, {.name = "min_coeff", .doc = "Smallest such ratio.", .min = 0});
}

template <class Config, class V>
void muon(Config& c, V& v) {
  learning_rate(c, v);
  v.field(c.momentum, {.name = "momentum",
                       .doc = "Averaging factor of the gradient of matrices of hidden layers.",
                       .min = 0,
                       .max = 1,
                       .max_open = true});
  v.field(c.nesterov, {.name = "nesterov", .doc = "Nesterov momentum."});
  v.field(c.weight_decay,
          {.name = "weight_decay", .doc = "Decoupled decay: p <- p - lr * weight_decay * p.", .min = 0});
  v.field(c.ns_steps,
          {.name = "ns_steps", .doc = "Steps of the iteration that orthogonalises a matrix.", .min = 1, .max = 99});
  v.field(c.betas, {.name = "betas",
                    .doc = "Of AdamW, which all other parameters get: embeddings, first and last layer, vectors.",
                    .min = 0,
                    .max = 1,
                    .max_open = true,
                    .length = 2});
  v.field(c.eps, {.name = "eps", .doc = "Of AdamW.", .min = 0});
}

template <class Config, class V>
void optimizer(Config& c, V& v) {
  const About params{"params", "Parameters of the optimizer."};
  // DeepSpeed compares its own names without case and torch's with it.
  v.variant(
      About{.name = "optimizer",
            .doc = "How gradients change the weights. Absent: AdamW with its defaults.",
            .presence = Presence::nullable,
            .types_doc = "All but SGD may be spelled in any case, as in DeepSpeed.",
            .type_has_default = true},
      c.type,
      Alternative{About{.name = "Adam",
                        .doc = "Adam with decoupled weight decay, which is what DeepSpeed's Adam is; adam_w_mode: "
                               "false for L2.",
                        .ignore_case = true},
                  c.adam, [&](auto& o, V& w) { w.section(params, o, [](auto& p, V& x) { adam(p, x, false); }); }},
      Alternative{About{.name = "AdamW", .doc = "Adam with decoupled weight decay.", .ignore_case = true}, c.adam,
                  [&](auto& o, V& w) { w.section(params, o, [](auto& p, V& x) { adam(p, x, true); }); }},
      Alternative{About{.name = "SGD", .doc = "Stochastic gradient descent, with torch's rule for momentum."}, c.sgd,
                  [&](auto& o, V& w) { w.section(params, o, [](auto& p, V& x) { sgd(p, x); }); }},
      Alternative{About{.name = "Lion", .doc = "Steps by the sign of an averaged gradient.", .ignore_case = true},
                  c.lion, [&](auto& o, V& w) { w.section(params, o, [](auto& p, V& x) { lion(p, x); }); }},
      Alternative{About{.name = "Adagrad",
                        .doc = "Steps divided by the root of the sum of all squared gradients, with torch's rule.",
                        .ignore_case = true},
                  c.adagrad, [&](auto& o, V& w) { w.section(params, o, [](auto& p, V& x) { adagrad(p, x); }); }},
      Alternative{About{.name = "Lamb",
                        .doc = "Adam whose step is scaled, parameter by parameter, to the parameter's norm.",
                        .ignore_case = true},
                  c.lamb, [&](auto& o, V& w) { w.section(params, o, [](auto& p, V& x) { lamb(p, x); }); }},
      Alternative{About{.name = "Muon",
                        .doc = "Orthogonalised momentum for the matrices of hidden layers, AdamW for the rest.",
                        .ignore_case = true},
                  c.muon, [&](auto& o, V& w) { w.section(params, o, [](auto& p, V& x) { muon(p, x); }); }});
}

/// The keys that a DeepSpeed file has too.
template <class Config, class V>
void engine_keys(Config& c, V& v) {
  v.field(c.train_batch_size,
          {.name = "train_batch_size",
           .default_text = "derived",
           .doc = "Samples of one optimizer step over all ranks = micro-batch x accumulation x ranks. This or "
                  "train_micro_batch_size_per_gpu must be given.",
           .unit = "samples",
           .nullable = true,
           .min = 1,
           .max = 1e9});
  v.field(c.train_micro_batch_size_per_gpu, {.name = "train_micro_batch_size_per_gpu",
                                             .default_text = "derived",
                                             .doc = "Samples of one rank in one forward and backward pass. auto: "
                                                    "the most that fit run.memory_limit and divide a rank's share "
                                                    "of train_batch_size, chosen at the start and kept on resume.",
                                             .unit = "samples",
                                             .nullable = true,
                                             .min = 1,
                                             .max = 1e6,
                                             .or_auto = true});
  v.field(c.gradient_accumulation_steps, {.name = "gradient_accumulation_steps",
                                          .default_text = "derived",
                                          .doc = "Micro-batches of one optimizer step.",
                                          .nullable = true,
                                          .min = 1,
                                          .max = 1e6});
  v.field(c.gradient_clipping, {.name = "gradient_clipping",
                                .doc = "Largest global L2 norm of the averaged gradient; 0 turns clipping off.",
                                .min = 0});
  v.field(c.steps_per_print, {.name = "steps_per_print",
                              .default_text = "run.log_every",
                              .doc = "DeepSpeed's name for run.log_every; wins over it.",
                              .unit = "steps",
                              .nullable = true,
                              .min = 1});
  v.field(c.communication_data_type,
          {.name = "communication_data_type",
           .default_text = "comm.wire",
           .doc = "DeepSpeed's name for comm.wire, the number format in which gradients travel; wins over it.",
           .nullable = true,
           .choices = {"fp32", "bf16", "fp16"}});
  v.field(c.prescale_gradients,
          {.name = "prescale_gradients",
           .doc = "Ranks divide their gradients by the number of ranks before they are summed in place of after; "
                  "gradient_predivide_factor is then ignored. The same but for rounding, and sums overflow later."});
  v.field(c.gradient_predivide_factor,
          {.name = "gradient_predivide_factor",
           .doc = "Gradients are divided by it before they are summed over the ranks, and by ranks / factor after.",
           .min = 0,
           .max = 1e6,
           .min_open = true});
  v.field(c.wall_clock_breakdown,
          {.name = "wall_clock_breakdown",
           .doc = "Beside each progress line that stays: milliseconds of a step's parts, as a mean since the last."});
  v.section(About{"tensorboard", "Metrics as event files for TensorBoard."}, c.tensorboard, [](auto& inner, V& w) {
    monitor(inner, w, "Write event files, beside metrics.jsonl; x is the number of samples.");
  });
  v.section(About{"csv_monitor", "Metrics as CSV files, one a quantity."}, c.csv_monitor, [](auto& inner, V& w) {
    monitor(inner, w, "Write Train_Samples_lr.csv and so on, beside metrics.jsonl; x is the number of samples.");
  });
  optimizer(c.optimizer, v);
  v.scheduler(c.scheduler);
  v.section(About{"fp16", "Training in fp16 and its loss scaling."}, c.fp16, [](auto& inner, V& w) { fp16(inner, w); });
  v.section(About{"bf16", "Training in bf16."}, c.bf16, [](auto& inner, V& w) { bf16(inner, w); });
  v.section(About{"zero_optimization", "Division of the training state over the ranks."}, c.zero_optimization,
            [](auto& inner, V& w) { zero(inner, w); });
}

}  // namespace lockstep::job::table
