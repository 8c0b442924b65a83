#pragma once

// Private to the engine's own sources.

#include <algorithm>
#include <exception>
#include <memory>
#include <vector>

#include "core/log.hpp"
#include "engine/batch_upload.hpp"
#include "engine/engine.hpp"
#include "engine/step_graphs.hpp"
#include "engine/step_queue.hpp"

namespace lockstep::engine {

/// The stream of a step and what it works with on the device, besides the flat buffers.
struct Engine::Device {
  explicit Device(Engine& engine)
      : api(*engine.place_.device),
        context(*engine.place_.kernels, api),
        stream(api),
        steps(api, engine.comm_, stream.ref, engine.groups_, engine.options_.max_in_flight),
        batches(api, stream.ref, engine.model_, engine.options_.micro_batch,
                engine.options_.leaves > 0 ? 1 : engine.options_.grad_accum),
        graphs(api, stream.ref, engine.options_.captured, engine.comm_.capabilities().graph_capturable),
        watch(api, engine.comm_, engine.options_.wait_timeout_s) {
    comm::Communicator& comm = engine.comm_;
    tile_count = put_list(tiles, engine.map_.tiles(engine.layout_));
    if (engine.optimizer_->granularity() != optim::Granularity::element)
      tensor_count = put_list(tensors, engine.map_.tile_runs(engine.layout_));
    update_scratch = Arena(api, engine.optimizer_->scratch_bytes(tile_count));
    norm_leaf_count = put_list(norm_leaves, engine.map_.norm_leaves(engine.layout_));
    norm_count = engine.layout_.norm_leaf_count();
    norm_sums = comm.make_arena(api, norm_count * sizeof(double));
    norm_bad = Arena(api, norm_leaf_count * sizeof(std::int64_t));

    workspace = Arena(api, std::max(engine.plan_.train_bytes, engine.eval_plan_.train_bytes));
    groups = Arena(api, static_cast<std::size_t>(engine.groups_) * sizeof(GroupStep));
    state = Arena(api, sizeof(StepState));
    eval_loss = Arena(api, sizeof(EvaluationSum));
    reports = comm.make_arena(api, static_cast<std::size_t>(comm.size()) * sizeof(StepReport));
    const std::int64_t leaves = std::max<std::int64_t>(1, engine.options_.leaves);
    loss = comm.make_arena(api, static_cast<std::size_t>(leaves) * sizeof(LossSum));
    for (int r = 0; r < comm.size(); ++r)
      loss_offsets.push_back(static_cast<std::size_t>(sum_tree::share(leaves, r, comm.size()).begin) * sizeof(LossSum));
    loss_offsets.push_back(loss->bytes());
    for (int r = 0; r <= comm.size(); ++r) report_offsets.push_back(static_cast<std::size_t>(r) * sizeof(StepReport));
  }

  ~Device() {
    // Work in flight still refers to this memory. A device that does not end it keeps the memory, see DeviceApi.
    if (api.try_synchronize(stream.ref)) return;
    const bool told = std::uncaught_exceptions() > 0;  // what went wrong is on its way already
    log::write(told ? log::Level::debug : log::Level::warning,
               api.name() + ": work is still under way, or failed; what it was given is not used again");
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// While the engine lives, whoever waits for its device also sees that a peer has failed, and does not wait for ever.
  struct Watch {
    Watch(DeviceApi& device, comm::Communicator& comm, double seconds) : api(device) {
      api.set_wait_check([&comm] { comm.check(); });
      api.set_wait_deadline(comm::Seconds(seconds));
    }
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    ~Watch() { api.set_wait_check({}); }  // the deadline holds for what else is destroyed
    DeviceApi& api;
  };

  /// Made before and destroyed after what works on it.
  struct OwnStream {
    explicit OwnStream(DeviceApi& device) : api(device), ref(device.make_stream()) {}
    OwnStream(const OwnStream&) = delete;
    OwnStream& operator=(const OwnStream&) = delete;
    ~OwnStream() { api.destroy(ref); }
    DeviceApi& api;
    StreamRef ref;
  };

  [[nodiscard]] StepReport* all_reports() const { return reinterpret_cast<StepReport*>(reports->data()); }
  [[nodiscard]] Buffer report_buffer() const { return {reports->data(), reports->bytes(), DType::u8, api.memory()}; }
  /// Of this rank's step; with leaves, of each of all ranks' leaves.
  [[nodiscard]] LossSum* losses() const { return reinterpret_cast<LossSum*>(loss->data()); }
  [[nodiscard]] Buffer loss_buffer() const { return {loss->data(), loss->bytes(), DType::u8, api.memory()}; }
  /// By leaf of the whole flat space.
  [[nodiscard]] double* norms() const { return reinterpret_cast<double*>(norm_sums->data()); }
  template <class T>
  [[nodiscard]] static T* at(const Arena& arena) {
    return reinterpret_cast<T*>(arena.data());
  }

  /// Copies a list to the device and returns its length.
  template <class T>
  [[nodiscard]] std::uint32_t put_list(Arena& to, const std::vector<T>& list) {
    to = Arena(api, list.size() * sizeof(T));
    api.copy(to.data(), list.data(), to.bytes(), stream.ref);
    api.synchronize(stream.ref);
    return static_cast<std::uint32_t>(list.size());
  }

  DeviceApi& api;
  kernels::Context context;
  OwnStream stream;
  StepQueue steps;
  BatchUpload batches;
  StepGraphs graphs;
  Watch watch;
  Arena workspace, tiles, tensors, update_scratch, norm_leaves, norm_bad, groups, state, eval_loss;
  std::unique_ptr<comm::FlatArena> reports, loss, norm_sums;  ///< read by peers while they are gathered or summed
  std::uint32_t tile_count = 0;
  std::uint32_t tensor_count = 0;     ///< in a list that only some optimizers ask for
  std::uint32_t norm_leaf_count = 0;  ///< this rank's
  std::size_t norm_count = 0;         ///< of the whole flat space
  std::vector<std::size_t> report_offsets, loss_offsets;
};

}  // namespace lockstep::engine
