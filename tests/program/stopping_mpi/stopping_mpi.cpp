// Laid before the MPI library with LD_PRELOAD: stops the process where LOCKSTEP_TEST_STOP says, as SIGSTOP from outside
// would that came in that moment. By MPI's own profiling interface: each function has a second name.
#include <mpi.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

namespace {

void at(const char* place) {
  const char* const asked = std::getenv("LOCKSTEP_TEST_STOP");
  if (asked != nullptr && std::strcmp(asked, place) == 0) (void)raise(SIGSTOP);
}

}  // namespace

extern "C" {

int MPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
  at("init");
  const int result = PMPI_Init_thread(argc, argv, required, provided);
  at("initialized");
  return result;
}

int MPI_Comm_dup(MPI_Comm from, MPI_Comm* to) {
  at("communicator");
  return PMPI_Comm_dup(from, to);
}

int MPI_Finalize() {
  at("finalize");
  return PMPI_Finalize();
}
}
