#include "engine/batch_upload.hpp"

#include <cstring>

namespace lockstep::engine {

BatchUpload::BatchUpload(DeviceApi& device, StreamRef stream, const nn::BatchShape& shape)
    : device_(device),
      stream_(stream),
      tokens_(device, static_cast<std::size_t>(shape.batch * shape.length) * sizeof(std::int32_t)),
      targets_(device, static_cast<std::size_t>(shape.batch * shape.length) * sizeof(std::int32_t)),
      slots_(device.immediate() ? 1 : 4) {
  for (Slot& slot : slots_) slot.copied = device.make_event();
}

BatchUpload::~BatchUpload() {
  for (const Slot& slot : slots_) device_.destroy(slot.copied);
}

nn::Batch BatchUpload::upload(const data::HostBatch& batch) {
  const std::size_t tokens = batch.tokens.size() * sizeof(std::int32_t);
  const std::size_t features = batch.features.size() * sizeof(float);
  const std::size_t targets = batch.targets.size() * sizeof(std::int32_t);
  if (tokens_.bytes() < tokens) tokens_ = Arena(device_, tokens);
  if (targets_.bytes() < targets) targets_ = Arena(device_, targets);
  if (features_.bytes() < features) features_ = Arena(device_, features);

  Slot& slot = slots_[next_++ % slots_.size()];
  const std::size_t bytes = tokens + features + targets;
  if (slot.memory != nullptr) device_.synchronize(slot.copied);
  if (slot.memory == nullptr || slot.memory->size() < bytes)
    slot.memory = std::make_unique<Pinned<std::byte>>(device_, bytes);
  std::byte* at = slot.memory->data();
  const auto move = [&](const Arena& arena, const void* from, std::size_t n) {
    if (n == 0) return;
    std::memcpy(at, from, n);
    device_.copy(arena.data(), at, n, stream_);
    at += n;
  };
  move(tokens_, batch.tokens.data(), tokens);
  move(targets_, batch.targets.data(), targets);
  move(features_, batch.features.data(), features);
  device_.record(slot.copied, stream_);

  return {.shape = {batch.batch, batch.length},
          .tokens = reinterpret_cast<const std::int32_t*>(tokens_.data()),
          .features = reinterpret_cast<const float*>(features_.data()),
          .targets = reinterpret_cast<const std::int32_t*>(targets_.data()),
          .target_count = batch.target_count};
}

std::size_t BatchUpload::bytes() const {
  std::size_t total = tokens_.bytes() + targets_.bytes() + features_.bytes();
  for (const Slot& slot : slots_)
    if (slot.memory != nullptr) total += slot.memory->size();
  return total;
}

}  // namespace lockstep::engine
