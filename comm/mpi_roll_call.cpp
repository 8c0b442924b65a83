#include "comm/mpi_roll_call.hpp"

#include <sched.h>

#include "comm/deadline.hpp"
#include "comm/mpi_task.hpp"

namespace lockstep::comm {
namespace {

constexpr int question = 1;
constexpr int here = 2;

}  // namespace

MpiRollCall::MpiRollCall(MPI_Comm group) {
  check_mpi(MPI_Comm_dup(group, &comm_), "MPI_Comm_dup");
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  MPI_Comm_rank(comm_, &rank_);
  MPI_Comm_size(comm_, &size_);
}

void MpiRollCall::free() { MPI_Comm_free(&comm_); }

void MpiRollCall::answer() {
  for (int asked = 1; asked != 0;) {
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, question, comm_, &asked, &status) != MPI_SUCCESS || asked == 0) return;
    // Messages without content: the library takes them at once, nothing waits for the other end.
    MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, question, comm_, MPI_STATUS_IGNORE);
    MPI_Send(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, here, comm_);
  }
}

std::vector<int> MpiRollCall::absent(Seconds patience) {
  std::vector<bool> answered(static_cast<std::size_t>(size_), false);
  answered[static_cast<std::size_t>(rank_)] = true;
  for (int r = 0; r < size_; ++r)
    if (r != rank_) MPI_Send(nullptr, 0, MPI_BYTE, r, question, comm_);
  int missing = size_ - 1;
  for (Deadline deadline(patience); missing > 0 && !deadline.passed();) {
    answer();
    int arrived = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, here, comm_, &arrived, &status) == MPI_SUCCESS && arrived != 0) {
      MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, here, comm_, MPI_STATUS_IGNORE);
      answered[static_cast<std::size_t>(status.MPI_SOURCE)] = true;
      missing = static_cast<int>(std::ranges::count(answered, false));
    }
    sched_yield();
  }
  std::vector<int> absent;
  for (int r = 0; r < size_; ++r)
    if (!answered[static_cast<std::size_t>(r)]) absent.push_back(r);
  return absent;
}

}  // namespace lockstep::comm
