#pragma once

#include <cstdint>
#include <string_view>

namespace lockstep {

/// What a rank does in a part of a step.
enum class Activity : std::uint8_t {
  forward,
  backward,
  recompute,      ///< forward work that backward does again
  communication,  ///< waiting for other ranks, or moving their bytes
  optimizer,      ///< the gradient's norm, the update
  data,
  other,
};
[[nodiscard]] constexpr std::string_view to_string(Activity activity) noexcept {
  constexpr std::string_view names[] = {"forward",   "backward", "recompute", "communication",
                                        "optimizer", "data",     "other"};
  return names[static_cast<std::size_t>(activity)];
}

/// Told of the parts of a step as the host comes to them and leaves them: parts nest, the innermost is the one that
/// time passes in. For devices that do work at once; of others it sees the enqueueing alone. One rank's, called by its
/// thread.
class Probe {
 public:
  virtual ~Probe() = default;
  /// `name` is looked at during the call only. FLOPs and bytes of memory as the plan counts them; 0: not counted.
  virtual void begin(Activity activity, std::string_view name, double flops, double bytes) = 0;
  virtual void end() = 0;
};

/// A part for as long as it lives; nothing without a probe.
class ProbeScope {
 public:
  ProbeScope(Probe* probe, Activity activity, std::string_view name, double flops = 0, double bytes = 0)
      : probe_(probe) {
    if (probe_ != nullptr) probe_->begin(activity, name, flops, bytes);
  }
  ProbeScope(const ProbeScope&) = delete;
  ProbeScope& operator=(const ProbeScope&) = delete;
  ~ProbeScope() {
    if (probe_ != nullptr) probe_->end();
  }

 private:
  Probe* probe_;
};

}  // namespace lockstep
