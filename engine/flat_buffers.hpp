#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "engine/flat_layout.hpp"
#include "optim/optimizer.hpp"

namespace lockstep::engine {

/// Owns one rank's flat buffers, which all share the layout of the flat space: master parameters, the 16-bit copy that
/// the passes read, the gradient sum and the optimizer's moments. Made by the communicator, so that ranks of one host
/// can reach each other's; zero at first.
class FlatBuffers {
 public:
  FlatBuffers(comm::Communicator& comm, DeviceApi& device, const FlatLayout& layout, DType compute,
              const optim::Optimizer& optimizer);

  [[nodiscard]] float* master() const { return as_float(*master_); }
  /// Null in fp32 training, where the passes read the master.
  [[nodiscard]] void* param16() const { return param16_ != nullptr ? param16_->data() : nullptr; }
  [[nodiscard]] float* grad() const { return as_float(*grad_); }
  [[nodiscard]] std::vector<float*> moments() const;
  [[nodiscard]] DType compute() const { return compute_; }

  /// "master" and the optimizer's names of its moments: what a checkpoint holds.
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
  /// Elements [begin, begin + count) of a buffer by name; ErrorKind::internal for what does not exist.
  [[nodiscard]] float* range(const std::string& name, std::int64_t begin, std::int64_t count) const;
  [[nodiscard]] std::size_t bytes() const;

 private:
  static float* as_float(const comm::FlatArena& arena) { return reinterpret_cast<float*>(arena.data()); }

  std::int64_t elements_;
  DType compute_;
  std::vector<std::string> names_;
  std::unique_ptr<comm::FlatArena> master_, grad_, param16_;
  std::vector<std::unique_ptr<comm::FlatArena>> moments_;
};

}  // namespace lockstep::engine
