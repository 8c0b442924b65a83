#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/nccl_api.hpp"

namespace lockstep::test {

/// What goes wrong at one rank.
struct NcclFaults {
  bool start_up_hangs = false;  ///< init_rank never gets through
  bool abort_hangs = false;
  int error_after = -1;  ///< this many calls with work go well, then NCCL reports `error`
  comm::NcclResult error = comm::NcclResult::remote_error;
};

/// NCCL's table for ranks that are threads of this process, on devices whose memory is the host's. It is strict where
/// NCCL is: communicators are non-blocking (work gets into its stream some questions later), calls at the wrong time
/// and ranks that disagree are noted and refused, a collective waits for its peers inside the stream, sums go round a
/// ring in the type that travels. And it can fail where NCCL can.
class FakeNccl {
 public:
  explicit FakeNccl(int version = 22809);
  ~FakeNccl();
  FakeNccl(const FakeNccl&) = delete;
  FakeNccl& operator=(const FakeNccl&) = delete;

  [[nodiscard]] const comm::NcclApi& api() const { return api_; }

  /// The calling thread's place in this world while it lives: its device and its own environment.
  class Seat {
   public:
    Seat(FakeNccl& world, DeviceApi& device, std::string place, const NcclFaults& faults = {});
    ~Seat();
    Seat(const Seat&) = delete;
    Seat& operator=(const Seat&) = delete;
    [[nodiscard]] std::map<std::string, std::string>& environment() { return environment_; }

   private:
    friend class FakeNccl;
    FakeNccl& world_;
    DeviceApi& device_;
    std::string place_;
    NcclFaults faults_;
    std::map<std::string, std::string> environment_;
    std::map<void*, std::size_t> memory_;
  };

  /// Uses that NCCL forbids, in the order in which they were seen.
  [[nodiscard]] std::vector<std::string> violations();
  /// Communicators that were neither destroyed nor aborted.
  [[nodiscard]] int alive();
  /// How many were aborted.
  [[nodiscard]] int aborted();

 private:
  struct Op;
  struct Group;
  struct Comm;
  struct Functions;
  struct World;
  std::unique_ptr<World> world_;
  comm::NcclApi api_;
};

}  // namespace lockstep::test
