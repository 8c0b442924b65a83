#pragma once

#include "job/about.hpp"
#include "job/engine_fields.hpp"

// The one table of the job file: each key with its description, beside the member that holds it. A visitor that
// walks the table makes the section tree, fills a JobConfig, or lists one.

namespace lockstep::job::table {

/// A probability of dropout; `what` is dropped.
inline config::Field dropout_field(std::string name, const std::string& what) {
  return {
      .name = std::move(name),
      .doc = "Probability with which " + what +
             " are set to 0 in training; the others are scaled up. Which ones is a function of the seed, the step and "
             "the sample, on any number of ranks.",
      .min = 0,
      .max = 1,
      .max_open = true};
}

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
  v.field(c.recompute,
          {.name = "recompute",
           .doc = "Which activations the backward pass computes again instead of keeping them: none; block, "
                  "all those inside the blocks, for another forward pass; selective, the same but for "
                  "attention's. The bits of a run are the same.",
           .choices = {"none", "block", "selective"}});
  v.field(c.vocab_size, {.name = "vocab_size",
                         .default_text = "as many as the data has",
                         .doc = "Tokens that the model knows, at least as many as the data has.",
                         .min = 1,
                         .max = 10'000'000});
  v.field(c.init_from,
          {.name = "init_from",
           .type = FieldType::path,
           .doc = "A folder with a GPT-2 in Hugging Face's form (config.json, model.safetensors), whose "
                  "weights a new run starts with; relative to the job file. n_layer, n_head, n_embd and "
                  "vocab_size are then the folder's, and so is block_size unless a smaller one is given."});
  v.field(c.embd_pdrop, dropout_field("embd_pdrop", "elements of the embeddings' sum"));
  v.field(c.resid_pdrop, dropout_field("resid_pdrop", "elements of what attention and MLP add to the residual stream"));
}

template <class Config, class V>
void mlp(Config& c, V& v) {
  v.field(c.hidden, {.name = "hidden",
                     .doc = "Units of each hidden layer; an empty list is a single linear layer.",
                     .min = 1,
                     .max = 1'000'000,
                     .may_be_empty = true});
  v.field(c.activation, {.name = "activation", .doc = "Between the layers.", .choices = {"gelu"}});
  v.field(c.dropout, dropout_field("dropout", "outputs of each hidden layer"));
}

template <class Config, class V>
void convnet(Config& c, V& v) {
  v.field(c.filters, {.name = "filters",
                      .doc = "Output channels of each convolution; a rectifier and pooling follow it.",
                      .min = 1,
                      .max = 100'000});
  v.field(c.kernel, {.name = "kernel", .doc = "Side of the convolutions; odd.", .unit = "pixels", .min = 1, .max = 99});
  v.field(c.pool, {.name = "pool",
                   .doc = "Side of the windows of which the largest value stays; 1: no pooling.",
                   .unit = "pixels",
                   .min = 1,
                   .max = 99});
  v.field(c.hidden, {.name = "hidden",
                     .doc = "Units of each fully connected layer behind the convolutions, with GELU.",
                     .min = 1,
                     .max = 1'000'000,
                     .may_be_empty = true});
  v.field(c.dropout, dropout_field("dropout", "outputs of the last convolution and of each hidden layer"));
}

template <class Config, class V>
void validation(Config& c, V& v) {
  v.field(c.validation_fraction, {.name = "validation_fraction",
                                  .doc = "The last part of the data, kept for validation.",
                                  .min = 0,
                                  .max = 1,
                                  .max_open = true});
}

/// Tokenizers of subwords that people ask for by name.
inline std::vector<std::pair<std::string, std::string>> tokenizers_of_others() {
  std::vector<std::pair<std::string, std::string>> refused;
  for (const char* name : {"bpe", "tiktoken"}) refused.emplace_back(name, "GPT-2's is called gpt2 here");
  for (const char* name : {"sentencepiece", "wordpiece", "word"})
    refused.emplace_back(name, "of subwords this version has GPT-2's alone: gpt2");
  return refused;
}

template <class Config, class V>
void text_data(Config& c, V& v) {
  v.field(c.path,
          {.name = "path", .type = FieldType::path, .doc = "A text file, relative to the job file.", .required = true});
  v.field(c.tokenizer,
          {.name = "tokenizer",
           .doc = "char: one token for each distinct character (Unicode code point) of the text, which must "
                  "be UTF-8; byte: 256 tokens, for a file of any encoding; gpt2: the subwords of vocab and merges, for "
                  "a text that is UTF-8.",
           .choices = {"char", "byte", "gpt2"},
           .refused = tokenizers_of_others()});
  v.field(c.vocab,
          {.name = "vocab",
           .type = FieldType::path,
           .doc = "Of tokenizer gpt2: the file vocab.json of a published model, or of your own; relative to the "
                  "job file."});
  v.field(c.merges, {.name = "merges",
                     .type = FieldType::path,
                     .doc = "Of tokenizer gpt2: the file merges.txt that belongs to vocab; relative to the job file."});
  validation(c, v);
}

template <class Config, class V>
void tokens_data(Config& c, V& v) {
  v.field(c.path, {.name = "path",
                   .type = FieldType::path,
                   .doc = "A file of 16-bit token ids, a folder of them (its *.bin) or a pattern such as "
                          "fineweb/*train*.bin, relative to the job file.",
                   .required = true});
  v.field(c.validation_path, {.name = "validation_path",
                              .type = FieldType::path,
                              .default_text = "the last part of path",
                              .doc = "The same for validation, in place of a validation_fraction."});
  v.field(c.format, {.name = "format",
                     .doc = "llm.c: a header of 1024 bytes, then ids; bare: ids alone, as nanoGPT writes them; auto: "
                            "llm.c where a file begins with its magic number, else bare.",
                     .choices = {"auto", "llm.c", "bare"},
                     .refused = {{"nanogpt", "its files are called bare here"}}});
  v.field(c.vocab_size, {.name = "vocab_size",
                         .doc = "Tokens of the vocabulary: every id is below it. The default is GPT-2's.",
                         .min = 2,
                         .max = 65536});
  v.field(c.validation_fraction, {.name = "validation_fraction",
                                  .doc = "The last part of the tokens, kept for validation; 0: none.",
                                  .min = 0,
                                  .max = 1,
                                  .max_open = true});
  v.field(c.validation_tokens,
          {.name = "validation_tokens",
           .doc = "At most so many tokens of the validation part are predicted, its first; 0: all of them.",
           .unit = "tokens",
           .min = 0});
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
void images_data(Config& c, V& v) {
  v.field(c.path, {.name = "path",
                   .type = FieldType::path,
                   .doc = "A folder of IDX files under MNIST's names (train-images-idx3-ubyte, "
                          "train-labels-idx1-ubyte, and the same with t10k), each of which may be compressed (.gz); "
                          "relative to the job file.",
                   .required = true});
  v.field(c.validation_fraction,
          {.name = "validation_fraction",
           .doc = "The last part of the training images, kept for validation; the test files (t10k) are then not "
                  "read. 0: the test files are the validation data.",
           .min = 0,
           .max = 1,
           .max_open = true});
}

template <class Config, class V>
void csv_data(Config& c, V& v) {
  v.field(c.path, {.name = "path",
                   .type = FieldType::path,
                   .doc = "A text file of rows of numbers with a header line, relative to the job file. Cells may be "
                          "in double quotes.",
                   .required = true});
  v.field(c.target, {.name = "target", .doc = "Name of the column to predict.", .required = true});
  v.field(c.task, {.name = "task",
                   .doc = "classification: each distinct text of the target's column is a class. regression: the "
                          "target is a number, and the loss the mean squared error.",
                   .choices = {"classification", "regression"}});
  v.field(c.features, {.name = "features",
                       .default_text = "all columns but the target",
                       .doc = "Names of the columns to predict from.",
                       .may_be_empty = true});
  v.field(c.standardize, {.name = "standardize",
                          .doc = "Features less their mean, divided by their standard deviation, both of the training "
                                 "rows; the target stays as it is."});
  v.field(c.separator,
          {.name = "separator", .doc = "What stands between cells.", .choices = {"comma", "semicolon", "tab"}});
  validation(c, v);
}

template <class Config, class V>
void checkpoint(Config& c, V& v) {
  v.field(c.every, {.name = "every",
                    .doc = "A checkpoint is written every so many steps and at the end; 0: only at the end.",
                    .unit = "steps",
                    .min = 0});
  v.field(c.keep_last, {.name = "keep_last", .doc = "Older checkpoints are removed; 0 keeps all.", .min = 0});
  v.field(c.keep_every,
          {.name = "keep_every",
           .doc = "Checkpoints of steps that are multiples of this stay, whatever keep_last says; 0: none of them.",
           .unit = "steps",
           .min = 0});
  v.field(c.async, {.name = "async",
                    .doc = "Training goes on while a checkpoint is written, from a copy in the host's memory "
                           "(docs/checkpoint.md says how large). Where that has no room, which the run's header says, "
                           "and at the end of a run, training stops for a save."});
}

template <class Config, class V>
void guard(Config& c, V& v) {
  v.field(c.every, {.name = "every",
                    .doc = "Every so many steps, and before each checkpoint, parameters, moments, lr and counters are "
                           "compared over the ranks; what one rank alone holds must not change until the next "
                           "update. A difference ends the run with exit code 7. 0: never.",
                    .unit = "steps",
                    .min = 0});
  v.field(c.provenance,
          {.name = "provenance",
           .doc = "A run that ends because numbers are not finite (exit code 5) runs that step once more, operation by "
                  "operation, and says in which one, on which rank and in which sample the first of them is. It costs "
                  "nothing before."});
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
                    .min = 1,
                    .max = 1e12});
  v.field(c.seed,
          {.name = "seed", .doc = "Decides the initial weights, the order of the data and all noise.", .min = 0});
  v.field(c.device,
          {.name = "device",
           .doc = "auto: a GPU if there is one for each rank of the host (or comm.share_gpu), else the CPU; the "
                  "run's header says which, and why. cuda says what is missing.",
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
           "library's own all-reduce (MPI_Iallreduce), ranks on GPUs by NCCL's own choice, in an order that is its "
           "affair, "
           "and a GPU's products are timed and the fastest way kept: no promise of equal bits. "
           "invariant: the same bits on any number of ranks and threads (docs/algorithms.md says what it costs); "
           "train_batch_size and train_micro_batch_size_per_gpu must both be given, and at most so many ranks "
           "started as their quotient says; for CPUs.",
       .choices = {"exact", "fast", "invariant"}});
  v.field(
      c.cuda_graph,
      {.name = "cuda_graph",
       .doc = "auto: on a GPU the work of a step is captured once and launched as a whole from then on, which "
              "computes the same; not with determinism: invariant. off: enqueued anew in each step. Nothing on CPUs.",
       .choices = {"auto", "off"}});
  v.field(c.eval_every, {.name = "eval_every",
                         .doc = "The validation loss is measured every so many steps; 0: never.",
                         .unit = "steps",
                         .min = 0});
  v.field(c.log_every,
          {.name = "log_every", .doc = "A progress line every so many steps; 0: none.", .unit = "steps", .min = 0});
  v.section(About{"checkpoint", "When checkpoints are written and how many stay."}, c.checkpoint,
            [](auto& inner, V& w) { checkpoint(inner, w); });
  v.section(About{"guard", "What is watched while a run is under way."}, c.guard,
            [](auto& inner, V& w) { guard(inner, w); });
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
  v.field(c.profile,
          {.name = "profile",
           .doc = "At the end of the run: where a step's time went (forward, backward by kind of operation, "
                  "communication, optimizer, data, other), with the share of the machine's limit of each. For CPUs."});
  v.section(About{"trace", "A picture of some steps of all ranks, for ui.perfetto.dev. For CPUs."}, c.trace,
            [](auto& inner, V& w) {
              w.field(inner.steps, {.name = "steps",
                                    .default_text = "no steps",
                                    .doc = "The first and the last step whose parts are written to trace.json in the "
                                           "run's folder.",
                                    .nullable = true,
                                    .min = 1,
                                    .max = 1e12,
                                    .length = 2});
            });
  v.field(c.memory_limit,
          {.name = "memory_limit",
           .default_text = "what is free",
           .doc = "The most that a rank may take, its process's program and data among it; of a GPU, of the GPU's "
                  "memory. A job whose plan needs more ends with exit code 8 before it allocates anything; "
                  "train_micro_batch_size_per_gpu: auto stays below it.",
           .unit = "GiB",
           .nullable = true,
           .min = 0,
           .max = 1e6,
           .min_open = true});
}

template <class Config, class V>
void comm(Config& c, V& v) {
  v.field(c.backend, {.name = "backend",
                      .doc = "local: ranks are threads of one process; mpi: processes of mpirun; nccl: the same with "
                             "GPUs; auto picks by launcher and device. With local and mpi gradients of GPUs go by way "
                             "of the host's memory, which is slow.",
                      .choices = {"auto", "local", "mpi", "nccl"}});
  v.field(c.ranks,
          {.name = "ranks", .doc = "Ranks of backend local; with mpi, mpirun -n says it.", .min = 1, .max = 1024});
  v.field(
      c.wire,
      {.name = "wire",
       .doc = "Number format in which gradients travel from rank to rank in messages of MPI; they are added in fp32. "
              "Half the bytes, and each contribution and each sum is rounded once. What ranks of a host add in "
              "memory does not travel, and GPUs' gradients are fp32 in NCCL: there it changes nothing. Not with "
              "run.determinism: invariant.",
       .choices = {"fp32", "bf16", "fp16"}});
  v.field(
      c.intra_host,
      {.name = "intra_host",
       .doc =
           "How MPI ranks of one host exchange gradients and parameters. shared: each reads and writes the others' "
           "in memory that all have mapped, or the job ends with exit code 8 where the system does not allow it; mpi: "
           "by messages; auto: shared, else mpi with one line that says why. Results have the same bits. Threads "
           "(backend local) always share, GPUs exchange by NCCL.",
       .choices = {"auto", "shared", "mpi"},
       .refused = {{"buckets", "messages between ranks of one host are called mpi"}}});
  v.field(
      c.one_copy,
      {.name = "one_copy",
       .doc =
           "auto: on CPUs, where all ranks share one host's memory (intra_host), they keep one copy of the parameters "
           "between them, and each updates a share of it, whose moments it alone keeps: less memory and a shorter "
           "update, in ZeRO stages 0 to 2, with the same bits. off: every rank keeps a copy of its own, and "
           "run.guard.every has copies to compare.",
       .choices = {"auto", "off"}});
  v.field(
      c.progress_thread,
      {.name = "progress_thread",
       .doc = "MPI ranks on several hosts: a thread moves messages while the rank computes, so that sums of gradients "
              "travel under backward; false: only between operators. Nothing on one host and with NCCL."});
  v.field(c.share_gpu,
          {.name = "share_gpu",
           .doc = "Allows more ranks on a host than it has GPUs: rank r of the host computes on GPU r modulo their "
                  "number. Correct, but slower than one rank a GPU. Nothing on CPUs."});
  v.field(c.timeout_s, {.name = "timeout_s",
                        .doc = "A rank that does not answer for so long ends the job with exit code 6.",
                        .unit = "seconds",
                        .min = 0,
                        .max = 1e8,
                        .min_open = true});
  v.field(c.warn_s, {.name = "warn_s",
                     .doc = "A rank that waits for a collective for so long says which ranks are missing; 0: never.",
                     .unit = "seconds",
                     .min = 0,
                     .max = 1e8});
  v.field(
      c.start_timeout_s,
      {.name = "start_timeout_s",
       .doc = "Ranks that have not met in MPI_Init, or left MPI_Finalize, after so long are named, and the job ends "
              "with exit code 6.",
       .unit = "seconds",
       .min = 0,
       .max = 1e8,
       .min_open = true});
  v.field(
      c.check_collectives,
      {.name = "check_collectives",
       .doc = "For debugging a program of one's own: before each collective the ranks compare what they are about to "
              "do, and a difference ends the job with exit code 7 and both. Slow."});
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
                    .doc = "Averaging factors of the group, of optimizers that have betas.",
                    .min = 0,
                    .max = 1,
                    .max_open = true,
                    .length = 2});
  v.field(c.momentum, {.name = "momentum",
                       .default_text = "the optimizer's",
                       .doc = "Momentum of the group, of optimizers that have one.",
                       .min = 0,
                       .max = 1,
                       .max_open = true});
}

template <class Config, class V>
void job(Config& c, V& v) {
  const std::string decides = "Decides the other keys.";
  v.variant(About{"model", "What is trained.", Presence::required, decides}, c.model.type,
            Alternative{About{"gpt2", "A GPT-2 language model."}, c.model.gpt2, [](auto& m, V& w) { gpt2(m, w); }},
            Alternative{About{"mlp", "Fully connected layers, for data of type clusters, images or csv."}, c.model.mlp,
                        [](auto& m, V& w) { mlp(m, w); }},
            Alternative{About{"convnet", "A small convolutional network, for data of type images."}, c.model.convnet,
                        [](auto& m, V& w) { convnet(m, w); }},
            Alternative{About{"custom", "The model of a program of your own, which reads this file (docs/api.md)."},
                        c.model.custom, [](auto&, V&) {}});
  v.variant(
      About{"data", "What it is trained on.", Presence::required, decides}, c.data.type,
      Alternative{About{"text", "A text file, for model gpt2."}, c.data.text, [](auto& d, V& w) { text_data(d, w); }},
      Alternative{About{"tokens", "Files of token ids (llm.c's or nanoGPT's .bin), for model gpt2."}, c.data.tokens,
                  [](auto& d, V& w) { tokens_data(d, w); }},
      Alternative{About{"clusters", "Generated Gaussian clusters to classify, for model mlp."}, c.data.clusters,
                  [](auto& d, V& w) { clusters_data(d, w); }},
      Alternative{About{"images", "Grey images with labels, for models mlp and convnet."}, c.data.images,
                  [](auto& d, V& w) { images_data(d, w); }},
      Alternative{About{"csv", "Rows of numbers with a header line, for model mlp."}, c.data.csv,
                  [](auto& d, V& w) { csv_data(d, w); }},
      Alternative{About{"custom", "The data of a program of your own, which reads this file; for model custom."},
                  c.data.custom, [](auto&, V&) {}});
  v.section(About{"run", "Where, how long and how the job runs.", Presence::required}, c.run,
            [](auto& inner, V& w) { run(inner, w); });
  v.section(About{"comm", "How ranks exchange gradients."}, c.comm, [](auto& inner, V& w) { comm(inner, w); });
  engine_keys(c, v);
  v.groups(c.parameter_groups);
}

}  // namespace lockstep::job::table
