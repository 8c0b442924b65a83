#include "engine/batch_upload.hpp"

#include <cstring>

#include "core/error.hpp"

namespace lockstep::engine {
namespace {

/// Batches on their way at once: more than the host gets ahead of a device.
constexpr std::size_t slots_of_a_device = 4;

std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

BatchUpload::Layout::Layout(const nn::BatchShape& shape, const nn::Model& model) {
  const auto positions = static_cast<std::size_t>(shape.batch * shape.length) * sizeof(std::int32_t);
  grad_factor = {.begin = 0, .bytes = aligned(sizeof(double))};
  first_sample = {.begin = grad_factor.end(), .bytes = aligned(sizeof(std::int64_t))};
  targets = {.begin = first_sample.end(), .bytes = aligned(positions)};
  tokens = {.begin = targets.end(), .bytes = model.features() > 0 ? 0 : aligned(positions)};
  const auto floats = [&](int per_sample) {
    return aligned(static_cast<std::size_t>(shape.batch) * static_cast<std::size_t>(per_sample) * sizeof(float));
  };
  features = {.begin = tokens.end(), .bytes = floats(model.features())};
  values = {.begin = features.end(), .bytes = floats(model.outputs())};
}

BatchUpload::BatchUpload(DeviceApi& device, StreamRef stream, const nn::Model& model, const nn::BatchShape& shape,
                         int micro_batches)
    : device_(device),
      stream_(stream),
      micro_batches_(micro_batches),
      layout_(shape, model),
      block_(device, layout_.bytes()),
      pinned_(device, (device.immediate() ? 1 : slots_of_a_device) * layout_.bytes()) {
  for (std::size_t at = 0; at < pinned_.size(); at += layout_.bytes()) copied_.push_back(device.make_event());
}

std::size_t BatchUpload::bytes_of(bool immediate, const nn::Model& model, const nn::BatchShape& shape) {
  return (1 + (immediate ? 1 : slots_of_a_device)) * Layout(shape, model).bytes();
}

BatchUpload::~BatchUpload() {
  for (const EventRef event : copied_) device_.destroy(event);
}

nn::Batch BatchUpload::upload(const data::HostBatch& batch) {
  const std::size_t slot = next_++ % copied_.size();
  device_.synchronize(copied_[slot]);
  std::byte* const staged = pinned_.data() + slot * layout_.bytes();
  const auto place = [&](const Region& region, const void* from, std::size_t bytes) {
    require(bytes <= region.bytes,
            "engine: a batch larger than options.micro_batch, or of another kind than the model's");
    if (bytes > 0) std::memcpy(staged + region.begin, from, bytes);
  };
  const double divisor = batch.target_count * micro_batches_;
  const double grad_factor = divisor > 0 ? 1 / divisor : 0;
  place(layout_.grad_factor, &grad_factor, sizeof grad_factor);
  place(layout_.first_sample, &batch.position, sizeof batch.position);
  place(layout_.targets, batch.targets.data(), batch.targets.size() * sizeof(std::int32_t));
  place(layout_.tokens, batch.tokens.data(), batch.tokens.size() * sizeof(std::int32_t));
  place(layout_.features, batch.features.data(), batch.features.size() * sizeof(float));
  place(layout_.values, batch.values.data(), batch.values.size() * sizeof(float));
  device_.copy(block_.data(), staged, layout_.bytes(), stream_);
  device_.record(copied_[slot], stream_);

  return {.shape = {batch.batch, batch.length},
          .tokens = reinterpret_cast<const std::int32_t*>(block_.data() + layout_.tokens.begin),
          .features = reinterpret_cast<const float*>(block_.data() + layout_.features.begin),
          .targets = reinterpret_cast<const std::int32_t*>(block_.data() + layout_.targets.begin),
          .grad_factor = reinterpret_cast<const double*>(block_.data() + layout_.grad_factor.begin),
          .values = reinterpret_cast<const float*>(block_.data() + layout_.values.begin),
          .first_sample = reinterpret_cast<const std::int64_t*>(block_.data() + layout_.first_sample.begin)};
}

}  // namespace lockstep::engine
