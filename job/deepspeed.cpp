#include "job/deepspeed.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "config/field_value.hpp"
#include "config/words.hpp"
#include "job/schema.hpp"

namespace lockstep::job {

using namespace config;

namespace {

/// What a value of a DeepSpeed key may look like.
enum class Form { boolean, integer, number, text, block, any };

/// When a key is refused; otherwise it has no effect.
enum class Refuse {
  never,
  when_on,   ///< set to anything but false, null, 0, "none" or a block that is off
  when_off,  ///< set to false: the engine always does it
};

/// A key of DeepSpeed that this engine knows and does not act on.
struct Foreign {
  const char* path;
  Form form;
  Refuse refuse;
  const char* reason;
  std::vector<std::string> keys = {};  ///< of a block; empty: not looked into
};

const std::vector<Foreign>& foreign_keys() {
  using enum Form;
  using enum Refuse;
  static const char* const buckets = "stage 0 has nothing to divide, and buckets follow from the model";
  static const char* const metrics = "metrics go to metrics.jsonl in the run's folder";
  static const char* const times = "step_ms stands in metrics.jsonl for every step";
  static const char* const offload = "the training state stays in the memory of the device that trains";
  static const char* const zeropp = "it is a part of ZeRO stage 3, which this version does not have";
  static const char* const master = "master weights and gradients are always fp32";
  static const char* const parallel = "this engine trains data-parallel only";
  static const char* const data = "samples are drawn uniformly, in a fixed permutation for each epoch";
  static const std::vector<Foreign> keys = {
      {"prescale_gradients", boolean, never, "gradients are summed in fp32 and divided once, where prescaling is moot"},
      {"gradient_predivide_factor", number, never,
       "gradients are summed in fp32 and divided once, where the factor cancels"},
      {"gradient_allreduce_op", text, when_on, "gradients are averaged; for a sum multiply lr or the loss"},
      {"sparse_gradients", boolean, when_on, "gradients travel whole"},
      {"managed_gradient_accumulation", boolean, when_off, "the engine counts micro-batches itself"},
      {"wall_clock_breakdown", boolean, never, times},
      {"memory_breakdown", boolean, never, "lockstep train says at its start what memory a rank takes"},
      {"dump_state", boolean, never, "lockstep config shows the whole configuration"},
      {"log_level", text, never, "progress lines follow run.log_every"},
      {"disable_allgather", boolean, never, buckets},
      {"dataloader_drop_last", boolean, never, "samples have no end: a batch goes on into the next epoch"},
      {"vocabulary_size", integer, never, "the tokenizer says it"},
      {"zero_allow_untested_optimizer", boolean, never, "every optimizer here is tested"},
      {"zero_force_ds_cpu_optimizer", boolean, never, offload},
      {"tensorboard", block, never, metrics, {"enabled", "output_path", "job_name"}},
      {"csv_monitor", block, never, metrics, {"enabled", "output_path", "job_name"}},
      {"wandb", block, never, metrics, {"enabled", "group", "team", "project"}},
      {"comet",
       block,
       never,
       metrics,
       {"enabled", "samples_log_interval", "project", "workspace", "api_key", "experiment_name", "experiment_key",
        "online", "mode"}},
      {"flops_profiler",
       block,
       never,
       times,
       {"enabled", "profile_step", "module_depth", "top_modules", "detailed", "output_file", "recompute_fwd_factor"}},
      {"comms_logger", block, never, times, {"enabled", "verbose", "prof_all", "prof_ops", "debug"}},
      {"activation_checkpointing",
       block,
       never,
       "it does not change the mathematics; activations are kept",
       {"partition_activations", "contiguous_memory_optimization", "cpu_checkpointing", "number_checkpoints",
        "synchronize_checkpoint_boundary", "profile"}},
      {"checkpoint",
       block,
       never,
       "checkpoints follow run.checkpoint and load on any number of ranks",
       {"tag_validation", "load_universal", "use_node_local_storage", "parallel_write", "writer"}},
      {"aio",
       block,
       never,
       "there is no offload to a disk",
       {"block_size", "queue_depth", "thread_count", "intra_op_parallelism", "single_submit", "overlap_events",
        "use_gds"}},
      {"nebula", block, when_on, "checkpoints are written to run.output_dir"},
      {"data_types", block, never, master, {"grad_accum_dtype", "param_dtype", "buffer_dtype"}},

      {"amp", block, when_on, "it belongs to another library; fp16 and bf16 do the same work"},
      {"torch_autocast", block, when_on, "there is no torch here; fp16 and bf16 do the same work"},
      {"compression_training", block, when_on, "this version does not compress models"},
      {"elasticity", block, when_on, "a checkpoint loads on any number of ranks, with the same train_batch_size"},
      {"autotuning", block, when_on, "the batch sizes are yours to choose"},
      {"curriculum_learning", block, when_on, data},
      {"data_efficiency", block, when_on, data},
      {"progressive_layer_drop", block, when_on, "every layer takes part in every step"},
      {"eigenvalue", block, when_on, "it serves quantization, which this version does not have"},
      {"quantize_training", block, when_on, "this version does not quantize models"},
      {"weight_quantization", block, when_on, "this version does not quantize models"},
      {"hybrid_engine", block, when_on, "this engine trains and does not serve"},
      {"sparse_attention", block, when_on, "attention is dense and causal"},
      {"pipeline", block, when_on, parallel},
      {"tensor_parallel", block, when_on, parallel},
      {"moe", block, when_on, "there are no mixture-of-experts layers here"},
      {"sequence_parallel_size", integer, when_on, parallel},
      {"compile", block, when_on, "there is nothing to compile: kernels are built in"},
      {"compression", block, when_on, "this version does not compress models"},

      {"zero_optimization.contiguous_gradients", boolean, never, "gradients always lie in one flat buffer"},
      {"zero_optimization.reduce_scatter", boolean, never, buckets},
      {"zero_optimization.reduce_bucket_size", integer, never, buckets},
      {"zero_optimization.use_multi_rank_bucket_allreduce", boolean, never, buckets},
      {"zero_optimization.allgather_partitions", boolean, never, buckets},
      {"zero_optimization.allgather_bucket_size", integer, never, buckets},
      {"zero_optimization.overlap_comm", boolean, never, "communication overlaps where the backend can"},
      {"zero_optimization.load_from_fp32_weights", boolean, never, "checkpoints always hold the fp32 master weights"},
      {"zero_optimization.elastic_checkpoint", boolean, never, "a checkpoint loads on any number of ranks"},
      {"zero_optimization.sub_group_size", integer, never, buckets},
      {"zero_optimization.round_robin_gradients", boolean, never, buckets},
      {"zero_optimization.ignore_unused_parameters", boolean, never, "every parameter is used in every step"},
      {"zero_optimization.legacy_stage1", boolean, when_on, "DeepSpeed itself no longer has it"},
      {"zero_optimization.cpu_offload", boolean, when_on, offload},
      {"zero_optimization.cpu_offload_param", boolean, when_on, offload},
      {"zero_optimization.cpu_offload_params", boolean, when_on, offload},
      {"zero_optimization.cpu_offload_use_pin_memory", boolean, never, offload},
      {"zero_optimization.offload_param", block, when_on, offload},
      {"zero_optimization.offload_optimizer", block, when_on, offload},
      {"zero_optimization.prefetch_bucket_size", integer, never, zeropp},
      {"zero_optimization.param_persistence_threshold", integer, never, zeropp},
      {"zero_optimization.stage3_prefetch_bucket_size", integer, never, zeropp},
      {"zero_optimization.stage3_param_persistence_threshold", integer, never, zeropp},
      {"zero_optimization.stage3_model_persistence_threshold", integer, never, zeropp},
      {"zero_optimization.stage3_max_live_parameters", integer, never, zeropp},
      {"zero_optimization.stage3_max_reuse_distance", integer, never, zeropp},
      {"zero_optimization.stage3_gather_16bit_weights_on_model_save", boolean, never, zeropp},
      {"zero_optimization.stage3_gather_fp16_weights_on_model_save", boolean, never, zeropp},
      {"zero_optimization.memory_efficient_linear", boolean, never, zeropp},
      {"zero_optimization.log_trace_cache_warnings", boolean, never, zeropp},
      {"zero_optimization.leaf_module", any, never, zeropp},
      {"zero_optimization.zero_hpz_partition_size", integer, when_on, zeropp},
      {"zero_optimization.zero_quantized_weights", boolean, when_on, zeropp},
      {"zero_optimization.zero_quantized_nontrainable_weights", boolean, when_on, zeropp},
      {"zero_optimization.zero_quantized_gradients", boolean, when_on, zeropp},
      {"zero_optimization.zeropp_loco_param", block, when_on, zeropp},
      {"zero_optimization.mics_shard_size", integer, when_on, zeropp},
      {"zero_optimization.mics_hierarchical_params_gather", boolean, when_on, zeropp},
      {"zero_optimization.zenflow", block, when_on, offload},

      {"fp16.auto_cast", boolean, never, "the model's inputs are cast where it needs them"},
      {"fp16.fp16_master_weights_and_grads", boolean, when_on, master},
      {"bf16.immediate_grad_update", boolean, never, "gradients are accumulated in fp32 at once"},
      {"bf16.check_grad_overflow", boolean, when_off, "a step with non-finite gradients is always skipped, and said"},
      {"bf16.bf16_master_weights_and_grads", boolean, when_on, master},
      {"bf16.bf16_optimizer_states", boolean, when_on, "the optimizer's state is always fp32"},
      {"optimizer.legacy_fusion", boolean, never, "the update is always fused"},
      {"optimizer.params.torch_adam", boolean, when_on, "there is no torch here; its AdamW has weight_decay 0.01"},
      {"optimizer.params.amsgrad", boolean, when_on, "DeepSpeed's own Adam refuses it too"},
  };
  return keys;
}

const Foreign* find_foreign(const std::string& path) {
  for (const Foreign& key : foreign_keys())
    if (path == key.path) return &key;
  return nullptr;
}

/// Whether a feature is off: false, null, 0, none, mean, an empty block, or a block with enabled: false or
/// device: none. Sizes of 1 and -1 are how DeepSpeed says "not divided".
bool is_off(const Node& node) {
  if (node.kind == Node::Kind::null) return true;
  if (node.kind == Node::Kind::scalar) {
    for (const char* word : {"false", "0", "1", "-1", "none", "mean", "null"})
      if (node.text == word) return true;
    return false;
  }
  if (node.kind != Node::Kind::map) return node.items.empty();
  if (node.members.empty()) return true;
  const Node* enabled = node.find("enabled");
  if (enabled != nullptr) return enabled->is_word("false");
  const Node* device = node.find("device");
  return device != nullptr && (device->text == "none" || device->kind == Node::Kind::null);
}

bool has_form(const Node& node, const Foreign& key, const std::string& path, Diagnostics& diagnostics) {
  if (node.kind == Node::Kind::null || key.form == Form::any) return true;
  Field field{.name = path, .nullable = true};
  switch (key.form) {
    case Form::boolean:
      field.type = FieldType::boolean;
      break;
    case Form::integer:
      field.type = FieldType::integer;
      break;
    case Form::number:
      field.type = FieldType::number;
      break;
    case Form::text:
      field.type = FieldType::text;
      break;
    case Form::block:
    case Form::any:
      if (node.kind == Node::Kind::map || node.is_word("false")) return true;
      diagnostics.error(node.position, fmt::format("{}: expected a block of keys", path));
      return false;
  }
  return read_value(node, field, path, diagnostics).has_value();
}

void check_keys(const Node& node, const Foreign& key, const std::string& path, Diagnostics& diagnostics) {
  if (key.keys.empty()) return;
  for (const Member& member : node.members) {
    if (std::find(key.keys.begin(), key.keys.end(), member.key) != key.keys.end()) continue;
    const std::string near = nearest(member.key, key.keys);
    diagnostics.error(member.key_position, fmt::format("unknown key '{}' in {}", member.key, path),
                      near.empty() ? "" : fmt::format("did you mean '{}'?", near), join(key.keys));
  }
}

bool is_refused(const Node& node, const Foreign& key) {
  if (key.refuse == Refuse::when_on) return !is_off(node);
  return key.refuse == Refuse::when_off && node.is_word("false");
}

/// data_types asks for number formats; those that the engine has anyway pass.
void check_data_types(const Node& node, const std::string& path, Diagnostics& diagnostics) {
  if (path != "data_types") return;
  for (const Member& member : node.members)
    if (!is_off(member.value) && !(member.key == "grad_accum_dtype" && member.value.text == "fp32"))
      diagnostics.error(member.value.position,
                        fmt::format("data_types.{}: {} is not supported: gradients accumulate in fp32, and fp16 and "
                                    "bf16 decide the rest",
                                    member.key, member.value.text));
}

bool may_be_auto(const std::string& key) { return key == "total_num_steps" || key == "total_steps"; }

/// Goes through all blocks of the file, so that `visit(block, path of the block)` can remove members.
void each_block(Node& node, const std::string& path, const std::function<void(Node&, const std::string&)>& visit) {
  if (node.kind != Node::Kind::map) return;
  visit(node, path);
  for (Member& member : node.members)
    each_block(member.value, path.empty() ? member.key : path + "." + member.key, visit);
}

void rename(Node& root, const char* old_name, const char* new_name, Diagnostics& diagnostics) {
  for (Member& member : root.members) {
    if (member.key != old_name) continue;
    if (root.find(new_name) != nullptr)
      diagnostics.error(member.key_position,
                        fmt::format("'{}' is the old name of '{}', which is given too", old_name, new_name),
                        "keep one of the two");
    else
      member.key = new_name;
    return;
  }
}

std::string child(const std::string& path, const std::string& key) { return path.empty() ? key : path + "." + key; }

/// Reports a key that neither this engine nor DeepSpeed knows, in the blocks whose keys are listed here; those of
/// optimizer and scheduler depend on their type and are looked at later.
bool is_unknown(const Member& member, const std::string& path, const std::vector<std::string>& engine_keys,
                Diagnostics& diagnostics) {
  if (!path.empty() && path != "fp16" && path != "bf16" && path != "zero_optimization") return false;
  const Section* block = path.empty() ? &job_section() : job_section().keys.find_section(path);
  std::vector<std::string> acting;
  if (path.empty())
    acting = engine_keys;
  else
    for (const Field& field : block->keys.fields) acting.push_back(field.name);
  if (std::find(acting.begin(), acting.end(), member.key) != acting.end()) return false;
  std::vector<std::string> known = acting;
  const std::string prefix = path.empty() ? "" : path + ".";
  for (const Foreign& key : foreign_keys())
    if (std::string_view(key.path).starts_with(prefix)) known.emplace_back(key.path + prefix.size());
  std::string remedy;
  if (const auto advice = block->advice.find(member.key); advice != block->advice.end())
    remedy = advice->second;
  else if (const std::string near = nearest(member.key, known); !near.empty())
    remedy = fmt::format("did you mean '{}'?", near);
  diagnostics.error(member.key_position,
                    fmt::format("unknown key '{}' in {}", member.key, path.empty() ? "the DeepSpeed file" : path),
                    remedy, join(acting));
  return true;
}

void list_keys(const Node& node, const std::string& path, std::vector<std::string>& out) {
  for (const Member& member : node.members) {
    const std::string name = child(path, member.key);
    if (member.value.kind == Node::Kind::map && !member.value.members.empty())
      list_keys(member.value, name, out);
    else if (member.value.kind != Node::Kind::null)
      out.push_back(name);
  }
}

}  // namespace

void expand_zero_flag(Node& root) {
  Node* zero = root.find("zero_optimization");
  if (zero == nullptr || !(zero->is_word("true") || zero->is_word("false"))) return;
  Node stage{Node::Kind::scalar, zero->position, zero->text == "true" ? "1" : "0"};
  Node block{Node::Kind::map, zero->position};
  block.set("stage", zero->position, std::move(stage));
  *zero = std::move(block);
}

void filter_deepspeed(Node& root, const std::vector<std::string>& engine_keys, DeepSpeedReport& report,
                      Diagnostics& diagnostics) {
  if (root.kind != Node::Kind::map) {
    if (diagnostics.error_count() == 0)
      diagnostics.error(root.position, "a DeepSpeed configuration is one block of keys in braces");
    return;
  }
  rename(root, "bfloat16", "bf16", diagnostics);
  expand_zero_flag(root);
  each_block(root, "", [&](Node& block, const std::string& path) {
    std::erase_if(block.members, [&](const Member& member) {
      const std::string name = child(path, member.key);
      const Node& value = member.value;
      if (path.empty() && member.key.starts_with('_')) {
        report.without_effect.push_back(name + ": keys that begin with '_' are remarks");
        return true;
      }
      if (value.kind == Node::Kind::scalar && value.text == "auto" && !may_be_auto(member.key)) {
        report.taken_as_absent.push_back(name);
        return true;
      }
      const Foreign* key = find_foreign(name);
      if (key == nullptr) return is_unknown(member, path, engine_keys, diagnostics);
      if (!has_form(value, *key, name, diagnostics)) return true;
      if (is_refused(value, *key)) {
        diagnostics.error(value.kind == Node::Kind::scalar ? value.position : member.key_position,
                          fmt::format("{} is not supported: {}", name, key->reason),
                          key->refuse == Refuse::when_on ? "remove it or turn it off" : "remove it");
        return true;
      }
      check_keys(value, *key, name, diagnostics);
      check_data_types(value, name, diagnostics);
      report.without_effect.push_back(
          fmt::format("{}: {}", name, key->refuse == Refuse::when_on ? "it is off" : key->reason));
      return true;
    });
  });
  list_keys(root, "", report.acted_on);
}

void refuse_deepspeed_keys(Node& root, Diagnostics& diagnostics) {
  expand_zero_flag(root);
  each_block(root, "", [&](Node& block, const std::string& path) {
    std::erase_if(block.members, [&](const Member& member) {
      const Foreign* key = find_foreign(child(path, member.key));
      if (key == nullptr) return false;
      const std::string name = child(path, member.key);
      if (is_refused(member.value, *key))
        diagnostics.error(member.key_position, fmt::format("{} is not supported: {}", name, key->reason), "remove it");
      else
        diagnostics.error(member.key_position,
                          fmt::format("{} is a DeepSpeed key without effect here: {}", name, key->reason),
                          "remove it, or name the whole DeepSpeed file with the key 'deepspeed'");
      return true;
    });
  });
}

}  // namespace lockstep::job
