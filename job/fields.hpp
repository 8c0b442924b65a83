#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/schema.hpp"
#include "job/job.hpp"

// The one table of the job file: each key with its description, beside the member that holds it. A visitor that
// walks the table makes the section tree, fills a JobConfig, or lists one.

namespace lockstep::job::table {

using config::FieldType;
using config::Presence;

/// What a block, or one of its types, is called and for.
struct About {
  std::string name;
  std::string doc;
  Presence presence = Presence::optional;  ///< of a block
  std::string types_doc = {};              ///< of a block with types: what the `type` key says
  bool ignore_case = false;                ///< of a type: its name may be spelled in any case
};

/// One value of a `type` key, with the member that holds its block.
template <class Config, class Visit>
struct Alternative {
  About about;
  Config& config;
  Visit visit;
};
template <class Config, class Visit>
Alternative(About, Config&, Visit) -> Alternative<Config, Visit>;

template <class Config, class V>
void gpt2(Config& c, V& v) {
  v.field(c.preset, {.name = "preset",
                     .type = FieldType::choice,
                     .doc = "Fills n_layer, n_head, n_embd and block_size with those of a published GPT-2, where they "
                            "are not given here.",
                     .choices = {"124M", "355M", "774M", "1.5B"}});
  v.field(c.n_layer, {.name = "n_layer", .doc = "Transformer blocks.", .min = 1, .max = 1000});
  v.field(c.n_head, {.name = "n_head", .doc = "Attention heads; divides n_embd.", .min = 1, .max = 1000});
  v.field(c.n_embd, {.name = "n_embd", .doc = "Width of the embedding.", .min = 1, .max = 1'000'000});
  v.field(c.block_size,
          {.name = "block_size", .doc = "Longest context.", .unit = "tokens", .min = 1, .max = 1'000'000});
  v.field(c.recompute, {.name = "recompute",
                        .doc = "Which activations the backward pass computes again instead of keeping them.",
                        .choices = {"none"},
                        .refused = {{"block", "this version supports only none"},
                                    {"selective", "this version supports only none"}}});
}

template <class Config, class V>
void mlp(Config& c, V& v) {
  v.field(c.hidden, {.name = "hidden", .doc = "Units of each hidden layer.", .min = 1, .max = 1'000'000});
  v.field(c.activation, {.name = "activation", .doc = "Between the layers.", .choices = {"gelu"}});
}

template <class Config, class V>
void validation(Config& c, V& v) {
  v.field(c.validation_fraction, {.name = "validation_fraction",
                                  .doc = "The last part of the data, kept for validation.",
                                  .min = 0,
                                  .max = 1,
                                  .max_open = true});
}

template <class Config, class V>
void text_data(Config& c, V& v) {
  v.field(c.path, {.name = "path",
                   .type = FieldType::path,
                   .doc = "A UTF-8 text file, relative to the job file.",
                   .required = true});
  v.field(c.tokenizer, {.name = "tokenizer",
                        .doc = "char: one token for each distinct byte of the text; byte: 256 tokens.",
                        .choices = {"char", "byte"}});
  validation(c, v);
}

template <class Config, class V>
void clusters_data(Config& c, V& v) {
  v.field(c.classes, {.name = "classes", .doc = "Clusters to tell apart.", .min = 2, .max = 1'000'000});
  v.field(c.features, {.name = "features", .doc = "Numbers of one sample.", .min = 1, .max = 1'000'000});
  v.field(c.samples, {.name = "samples", .doc = "Samples in all.", .min = 2, .max = 1e9});
  v.field(c.noise, {.name = "noise",
                    .doc = "Standard deviation of the samples around their center; the centers' own is 1.",
                    .min = 0});
  validation(c, v);
}

template <class Config, class V>
void checkpoint(Config& c, V& v) {
  v.field(c.every, {.name = "every",
                    .doc = "A checkpoint is written every so many steps and at the end; 0: only at the end.",
                    .unit = "steps",
                    .min = 0});
  v.field(c.keep_last, {.name = "keep_last", .doc = "Older checkpoints are removed; 0 keeps all.", .min = 0});
}

template <class Config, class V>
void run(Config& c, V& v) {
  v.field(c.name, {.name = "name",
                   .default_text = "the job file's name",
                   .doc = "The run's folder is <output_dir>/<name>. Letters, digits, '.', '_' and '-'."});
  v.field(c.output_dir, {.name = "output_dir", .type = FieldType::path, .doc = "Relative to the current folder."});
  v.field(c.steps, {.name = "steps",
                    .doc = "Length of the run. Steps that loss scaling skips count too.",
                    .unit = "attempted optimizer steps",
                    .required = true,
                    .min = 1});
  v.field(c.seed,
          {.name = "seed", .doc = "Decides the initial weights, the order of the data and all noise.", .min = 0});
  v.field(c.device, {.name = "device",
                     .doc = "auto: cpu, since this version trains on CPUs only; cuda says what is missing.",
                     .choices = {"auto", "cpu", "cuda"},
                     .refused = {{"gpu", "a GPU is called cuda here"}}});
  v.field(c.threads, {.name = "threads",
                      .default_text = "auto",
                      .doc = "CPU threads of each rank; auto divides the host's CPUs by its ranks.",
                      .min = 1,
                      .max = 4096,
                      .or_auto = true});
  v.field(
      c.determinism,
      {.name = "determinism",
       .doc =
           "exact: the same bits for the same ranks, threads, instruction set and build. fast: MPI ranks sum with the "
           "library's own all-reduce (MPI_Iallreduce), in an order that is its affair: no promise of equal bits.",
       .choices = {"exact", "fast"},
       .refused = {{"invariant",
                    "this version reduces over the ranks it has, so bits depend on their number; exact gives "
                    "the same bits for the same number of ranks"}}});
  v.field(c.eval_every, {.name = "eval_every",
                         .doc = "The validation loss is measured every so many steps; 0: never.",
                         .unit = "steps",
                         .min = 0});
  v.field(c.log_every,
          {.name = "log_every", .doc = "A progress line every so many steps; 0: none.", .unit = "steps", .min = 0});
  v.section(About{"checkpoint", "When checkpoints are written and how many stay."}, c.checkpoint,
            [](auto& inner, V& w) { checkpoint(inner, w); });
  v.field(c.resume,
          {.name = "resume",
           .doc = "auto goes on from the newest valid checkpoint of the run's folder; never moves an existing "
                  "folder aside and starts anew.",
           .choices = {"auto", "never"}});
  v.field(c.max_skipped_steps,
          {.name = "max_skipped_steps",
           .doc = "So many skipped steps in a row end the run with exit code 5; 0: any number of them. The default is "
                  "more than dynamic loss scaling takes to come down from 2^126.",
           .unit = "steps",
           .min = 0});
}

template <class Config, class V>
void comm(Config& c, V& v) {
  v.field(c.backend, {.name = "backend",
                      .doc = "local: ranks are threads of one process; mpi: processes of mpirun; nccl: the same with "
                             "GPUs; auto picks by launcher and device.",
                      .choices = {"auto", "local", "mpi", "nccl"}});
  v.field(c.ranks,
          {.name = "ranks", .doc = "Ranks of backend local; with mpi, mpirun -n says it.", .min = 1, .max = 1024});
  v.field(c.wire, {.name = "wire",
                   .doc = "Number format in which gradients travel.",
                   .choices = {"fp32"},
                   .refused = {{"fp16", "this version sends gradients as fp32 only"},
                               {"bf16", "this version sends gradients as fp32 only"}}});
  v.field(
      c.intra_host,
      {.name = "intra_host",
       .doc = "How ranks of one host exchange gradients. This version decides by the backend: threads share memory, "
              "MPI ranks exchange messages; the key changes nothing yet.",
       .choices = {"shared", "buckets"}});
  v.field(c.share_gpu, {.name = "share_gpu", .doc = "Allows several ranks on one GPU; nothing on CPUs."});
  v.field(c.timeout_s, {.name = "timeout_s",
                        .doc = "A rank that does not answer for so long ends the job with exit code 6.",
                        .unit = "seconds",
                        .min = 0,
                        .min_open = true});
}

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
void zero(Config& c, V& v) {
  const std::string why = "this version keeps the whole optimizer state on every rank, which is stage 0";
  v.field(c.stage, {.name = "stage",
                    .doc = "How much of the training state is divided over the ranks; the mathematics is the same.",
                    .min = 0,
                    .max = 3,
                    .refused = {{"1", why}, {"2", why}, {"3", why}}});
}

template <class Config, class V>
void group(Config& c, V& v) {
  v.field(c.match, {.name = "match",
                    .doc = "Globs over full parameter names; the first group that matches wins.",
                    .required = true});
  v.field(c.lr, {.name = "lr", .default_text = "the optimizer's", .doc = "Base learning rate of the group.", .min = 0});
  v.field(c.weight_decay,
          {.name = "weight_decay", .default_text = "the optimizer's", .doc = "Weight decay of the group.", .min = 0});
  v.field(c.betas, {.name = "betas",
                    .default_text = "the optimizer's",
                    .doc = "Adam's averaging factors of the group.",
                    .min = 0,
                    .max = 1,
                    .max_open = true,
                    .length = 2});
  v.field(c.momentum, {.name = "momentum",
                       .default_text = "the optimizer's",
                       .doc = "SGD's momentum of the group.",
                       .min = 0,
                       .max = 1,
                       .max_open = true});
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
void optimizer(Config& c, V& v) {
  const About params{"params", "Parameters of the optimizer."};
  // DeepSpeed compares its own names without case and torch's with it.
  v.variant(
      About{.name = "optimizer",
            .doc = "How gradients change the weights. Absent: AdamW with its defaults.",
            .presence = Presence::nullable,
            .types_doc = "Adam and AdamW may be spelled in any case, SGD not, as in DeepSpeed."},
      c.type,
      Alternative{About{.name = "Adam",
                        .doc = "Adam with decoupled weight decay, which is what DeepSpeed's Adam is; adam_w_mode: "
                               "false for L2.",
                        .ignore_case = true},
                  c.adam, [&](auto& o, V& w) { w.section(params, o, [](auto& p, V& x) { adam(p, x, false); }); }},
      Alternative{About{.name = "AdamW", .doc = "Adam with decoupled weight decay.", .ignore_case = true}, c.adam,
                  [&](auto& o, V& w) { w.section(params, o, [](auto& p, V& x) { adam(p, x, true); }); }},
      Alternative{About{.name = "SGD", .doc = "Stochastic gradient descent, with torch's rule for momentum."}, c.sgd,
                  [&](auto& o, V& w) { w.section(params, o, [](auto& p, V& x) { sgd(p, x); }); }});
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
           .min = 1});
  v.field(c.train_micro_batch_size_per_gpu, {.name = "train_micro_batch_size_per_gpu",
                                             .default_text = "derived",
                                             .doc = "Samples of one rank in one forward and backward pass.",
                                             .unit = "samples",
                                             .nullable = true,
                                             .min = 1});
  v.field(c.gradient_accumulation_steps, {.name = "gradient_accumulation_steps",
                                          .default_text = "derived",
                                          .doc = "Micro-batches of one optimizer step.",
                                          .nullable = true,
                                          .min = 1});
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
           .doc = "Number format in which gradients travel, in DeepSpeed's name for comm.wire.",
           .nullable = true,
           .choices = {"fp32"},
           .refused = {{"fp16", "this version sends gradients as fp32 only"},
                       {"bf16", "this version sends gradients as fp32 only"}}});
  optimizer(c.optimizer, v);
  v.scheduler(c.scheduler);
  v.section(About{"fp16", "Training in fp16 and its loss scaling."}, c.fp16, [](auto& inner, V& w) { fp16(inner, w); });
  v.section(About{"bf16", "Training in bf16."}, c.bf16, [](auto& inner, V& w) { bf16(inner, w); });
  v.section(About{"zero_optimization", "Division of the training state over the ranks."}, c.zero_optimization,
            [](auto& inner, V& w) { zero(inner, w); });
}

template <class Config, class V>
void job(Config& c, V& v) {
  const std::string decides = "Decides the other keys.";
  v.variant(About{"model", "What is trained.", Presence::required, decides}, c.model.type,
            Alternative{About{"gpt2", "A GPT-2 language model."}, c.model.gpt2, [](auto& m, V& w) { gpt2(m, w); }},
            Alternative{About{"mlp", "Fully connected layers, for data of type clusters."}, c.model.mlp,
                        [](auto& m, V& w) { mlp(m, w); }});
  v.variant(
      About{"data", "What it is trained on.", Presence::required, decides}, c.data.type,
      Alternative{About{"text", "A text file, for model gpt2."}, c.data.text, [](auto& d, V& w) { text_data(d, w); }},
      Alternative{About{"clusters", "Generated Gaussian clusters to classify, for model mlp."}, c.data.clusters,
                  [](auto& d, V& w) { clusters_data(d, w); }});
  v.section(About{"run", "Where, how long and how the job runs.", Presence::required}, c.run,
            [](auto& inner, V& w) { run(inner, w); });
  v.section(About{"comm", "How ranks exchange gradients."}, c.comm, [](auto& inner, V& w) { comm(inner, w); });
  engine_keys(c, v);
  v.groups(c.parameter_groups);
}

}  // namespace lockstep::job::table
