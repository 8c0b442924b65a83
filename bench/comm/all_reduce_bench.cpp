// Time of one fp32 all-reduce in place on the mpi backend, for each size in turn and again for each round: medians of
// the tree T and, alternating with it in the same process, of the library's own order (`run.determinism: fast`). The
// bound is what MPI itself does; only the ratio is stable where other work runs on the machine.
//
//   mpirun -n N [--oversubscribe] all_reduce_bench [rounds] [largest size in MiB]

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <vector>

#include "comm/mpi.hpp"

namespace lockstep::comm {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Microseconds of one all-reduce, the mean over enough of them to fill about a millisecond.
double time_of(Communicator& comm, std::vector<float>& values, std::size_t count) {
  const int repeats = static_cast<int>(std::clamp<std::size_t>((std::size_t{1} << 18) / count, 1, 500));
  comm.barrier();
  const double begin = seconds();
  for (int i = 0; i < repeats; ++i) comm.all_reduce({values.data(), count, DType::f32, Memory::host}, Reduce::sum);
  return (seconds() - begin) / repeats * 1e6;
}

void run(int rounds, std::size_t largest) {
  const MpiEnvironment world;
  const bool oversubscribed = world.oversubscribed(1);
  const auto tree = make_mpi(world, {.oversubscribed = oversubscribed});
  const auto library = make_mpi(world, {.oversubscribed = oversubscribed, .library_order = true});
  std::vector<float> values(largest / sizeof(float));  // zeros stay zeros, however often they are added
  if (tree->rank() == 0) fmt::print("{}, {} ranks, {} rounds\n", tree->name(), tree->size(), rounds);
  for (const std::size_t bytes : {64U, 4U << 10, 64U << 10, 1U << 20, 4U << 20, 64U << 20}) {
    if (bytes > largest) continue;
    const std::size_t count = bytes / sizeof(float);
    std::vector<double> of_tree, of_library;
    (void)time_of(*tree, values, count), (void)time_of(*library, values, count);
    for (int round = 0; round < rounds; ++round) {
      of_tree.push_back(time_of(*tree, values, count));
      of_library.push_back(time_of(*library, values, count));
    }
    if (tree->rank() == 0)
      fmt::print("{:>9} B  tree {:>10.1f} us  library {:>10.1f} us  library : tree {:.2f}\n", bytes, median(of_tree),
                 median(of_library), median(of_library) / median(of_tree));
  }
}

}  // namespace
}  // namespace lockstep::comm

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  const std::size_t largest = argc > 2 ? static_cast<std::size_t>(std::atoi(argv[2])) << 20 : std::size_t{64} << 20;
  lockstep::comm::run(std::max(rounds, 1), std::max(largest, std::size_t{1} << 20));
}
