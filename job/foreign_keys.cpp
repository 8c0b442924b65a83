#include "job/foreign_keys.hpp"

namespace lockstep::job {

const std::vector<ForeignKey>& foreign_keys() {
  using enum Form;
  using enum Refuse;
  static const char* const buckets =
      "what is divided and exchanged follows from reduce_bucket_size and the model's units";
  static const char* const units =
      "a unit of the model (embedding, block, head) is gathered whole, one ahead of its use";
  static const char* const metrics = "metrics go to metrics.jsonl in the run's folder";
  static const char* const times = "step_ms stands in metrics.jsonl for every step";
  static const char* const offload = "the training state stays in the memory of the device that trains";
  static const char* const zeropp = "it is a part of ZeRO++ or MiCS, which this version does not have";
  static const char* const master = "master weights and gradients are always fp32";
  static const char* const parallel = "this engine trains data-parallel only";
  static const char* const data = "samples are drawn uniformly, in a fixed permutation for each epoch";
  static const std::vector<ForeignKey> keys = {
      {"gradient_allreduce_op", text, when_on, "gradients are averaged; for a sum multiply lr or the loss"},
      {"sparse_gradients", boolean, when_on, "gradients travel whole"},
      {"managed_gradient_accumulation", boolean, when_off, "the engine counts micro-batches itself"},
      {"memory_breakdown", boolean, never, "lockstep train says at its start what memory a rank takes"},
      {"dump_state", boolean, never, "lockstep config shows the whole configuration"},
      {"log_level", text, never, "progress lines follow run.log_every"},
      {"disable_allgather", boolean, never, buckets},
      {"dataloader_drop_last", boolean, never, "samples have no end: a batch goes on into the next epoch"},
      {"vocabulary_size", integer, never, "the tokenizer says it"},
      {"graph_harvesting", boolean, never, "captured steps are the engine's own affair"},
      {"seq_parallel_communication_data_type", text, never, "there is no sequence parallelism to exchange for"},
      {"use_data_before_expert_parallelism", boolean, never, "there are no experts to place"},
      {"timers", block, never, times, {"throughput"}},
      {"zero_allow_untested_optimizer", boolean, never, "every optimizer here is tested"},
      {"zero_force_ds_cpu_optimizer", boolean, never, offload},
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

      {"zero_optimization.contiguous_gradients", boolean, never, "gradients always lie in flat buffers"},
      {"zero_optimization.reduce_scatter", boolean, never, buckets},
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
      {"zero_optimization.prefetch_bucket_size", integer, never, units},
      {"zero_optimization.param_persistence_threshold", integer, never, units},
      {"zero_optimization.stage3_prefetch_bucket_size", integer, never, units},
      {"zero_optimization.stage3_param_persistence_threshold", integer, never, units},
      {"zero_optimization.stage3_model_persistence_threshold", integer, never, units},
      {"zero_optimization.stage3_max_live_parameters", integer, never, units},
      {"zero_optimization.stage3_max_reuse_distance", integer, never, units},
      {"zero_optimization.stage3_gather_16bit_weights_on_model_save", boolean, never,
       "checkpoints and exports always hold whole weights"},
      {"zero_optimization.stage3_gather_fp16_weights_on_model_save", boolean, never,
       "checkpoints and exports always hold whole weights"},
      {"zero_optimization.memory_efficient_linear", boolean, never, units},
      {"zero_optimization.log_trace_cache_warnings", boolean, never, units},
      {"zero_optimization.leaf_module", any, never, units},
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
      {"optimizer.params.eps_inside_sqrt", boolean, when_on, "eps is added to the root, as in the paper"},
      {"optimizer.params.lr_decay", number, when_on, "a scheduler lowers the learning rate: PolynomialLR or InverseLR"},
  };
  return keys;
}

const ForeignKey* find_foreign(const std::string& path) {
  for (const ForeignKey& key : foreign_keys())
    if (path == key.path) return &key;
  return nullptr;
}

}  // namespace lockstep::job
