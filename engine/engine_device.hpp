#pragma once

// Private to the engine's own sources.

#include <algorithm>
#include <memory>
#include <vector>

#include "engine/engine.hpp"

namespace lockstep::engine {

/// Everything that lives on the device or is pinned for it.
struct Engine::Device {
  Device(Engine& engine)
      : api(*engine.place_.device),
        context(*engine.place_.kernels, api),
        stream(api.make_stream()),
        slots(api.immediate() ? 1 : static_cast<std::size_t>(engine.options_.max_in_flight) + 1),
        record_size((record_bytes(static_cast<std::int32_t>(slots), engine.groups_) + 63) / 64 * 64),
        pinned_records(api, slots * record_size),
        pinned_results(api, slots) {
    comm::Communicator& comm = engine.comm_;
    const auto elements = static_cast<std::size_t>(engine.layout_.size());
    const nn::BatchShape& shape = engine.options_.micro_batch;
    master = comm.make_arena(api, elements * sizeof(float));
    grad = comm.make_arena(api, elements * sizeof(float));
    if (engine.options_.compute != DType::f32)
      param16 = comm.make_arena(api, elements * size_of(engine.options_.compute));
    for (std::size_t i = 0; i < engine.optimizer_->moments().size(); ++i)
      moments.push_back(comm.make_arena(api, elements * sizeof(float)));

    const std::vector<Tile> tile_list = engine.layout_.tiles();
    tile_count = static_cast<std::uint32_t>(tile_list.size());
    tiles = Arena(api, tile_list.size() * sizeof(Tile));
    api.copy(tiles.data(), tile_list.data(), tiles.bytes(), stream);
    api.synchronize(stream);

    workspace = Arena(api, std::max(engine.plan_.train_bytes, engine.eval_plan_.train_bytes));
    const std::size_t chunks = (elements + norm_chunk - 1) / norm_chunk;
    chunk_sums = Arena(api, chunks * sizeof(double));
    chunk_bad = Arena(api, chunks * sizeof(std::int64_t));
    groups = Arena(api, static_cast<std::size_t>(engine.groups_) * sizeof(GroupStep));
    state = Arena(api, sizeof(StepState));
    loss = Arena(api, sizeof(LossSum));
    eval_loss = Arena(api, sizeof(LossSum));
    received = Arena(api, slots * record_size);
    own = Arena(api, slots * record_size);
    reports = Arena(api, static_cast<std::size_t>(comm.size()) * sizeof(StepReport));
    result = Arena(api, sizeof(StepResult));
    for (int r = 0; r <= comm.size(); ++r) report_offsets.push_back(static_cast<std::size_t>(r) * sizeof(StepReport));
    for (std::size_t i = 0; i < slots; ++i) result_ready.push_back(api.make_event());

    const auto positions = static_cast<std::size_t>(shape.batch * shape.length);
    tokens = Arena(api, positions * sizeof(std::int32_t));
    targets = Arena(api, positions * sizeof(std::int32_t));
    batch_slots = api.immediate() ? 1 : 4;
    for (std::size_t i = 0; i < batch_slots; ++i) batch_copied.push_back(api.make_event());
  }

  ~Device() {
    // Work in flight still refers to this memory.
    try {
      api.synchronize(stream);
    } catch (const std::exception&) {
      // The device is already in an error state; its memory goes with the process.
    }
    for (const EventRef event : result_ready) api.destroy(event);
    for (const EventRef event : batch_copied) api.destroy(event);
    api.destroy(stream);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] StepRecord& record_slot(std::int64_t step) {
    return *reinterpret_cast<StepRecord*>(pinned_records.data() + static_cast<std::size_t>(step) % slots * record_size);
  }
  /// One step's record in device memory; as many as steps can be in flight.
  [[nodiscard]] Buffer record_in(const Arena& records, std::int64_t step) const {
    return {records.data() + static_cast<std::size_t>(step) % slots * record_size, record_size, DType::u8,
            api.memory()};
  }
  [[nodiscard]] Buffer buffer(const Arena& arena) const {
    return {arena.data(), arena.bytes(), DType::u8, api.memory()};
  }
  template <class T>
  [[nodiscard]] static T* at(const Arena& arena) {
    return reinterpret_cast<T*>(arena.data());
  }

  DeviceApi& api;
  kernels::Context context;
  StreamRef stream;
  std::size_t slots;        ///< steps that may be in flight, plus one
  std::size_t record_size;  ///< bytes
  Pinned<std::byte> pinned_records;
  Pinned<StepResult> pinned_results;
  std::unique_ptr<comm::FlatArena> master, grad, param16;
  std::vector<std::unique_ptr<comm::FlatArena>> moments;
  Arena workspace, tiles, chunk_sums, chunk_bad, groups, state, loss, eval_loss;
  Arena received, own, reports, result;
  Arena tokens, targets, features;
  std::uint32_t tile_count = 0;
  std::vector<std::size_t> report_offsets;
  std::vector<EventRef> result_ready;

  std::size_t batch_slots = 1;
  std::size_t next_batch = 0;
  std::vector<EventRef> batch_copied;
  std::vector<std::unique_ptr<Pinned<std::byte>>> pinned_batches;

  comm::Pending record_pending = {};
  std::vector<std::byte> desync_records;  ///< rank 0's and this rank's, of the step at which they differed
  std::int64_t collected = 0;             ///< steps whose result was read
};

}  // namespace lockstep::engine
