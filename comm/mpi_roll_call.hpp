#pragma once

#include <mpi.h>

#include <vector>

#include "comm/communicator.hpp"

namespace lockstep::comm {

/// Finds out who is missing when a wait has passed its deadline. In a tree a rank mostly waits for one that waits
/// itself, so whom it waits for says little: a roll call asks everybody, and who is in a wait of its own answers.
///
/// Messages go over a communicator of its own. Collective: all ranks make it together.
class MpiRollCall {
 public:
  explicit MpiRollCall(MPI_Comm group);
  MpiRollCall(const MpiRollCall&) = delete;
  MpiRollCall& operator=(const MpiRollCall&) = delete;
  ~MpiRollCall() = default;
  /// Not while other ranks may be gone: MPI_Comm_free is collective.
  void free();

  /// Answers those that ask; to be called several times a second from every wait.
  void answer();
  /// Asks everybody and returns the ranks that have not answered within `patience`.
  [[nodiscard]] std::vector<int> absent(Seconds patience);

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace lockstep::comm
