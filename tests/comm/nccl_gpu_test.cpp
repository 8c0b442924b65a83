// The communicators' contract on the nccl backend, on real GPUs and in real processes:
//
//   mpirun -n N comm_nccl_test [--share-gpu] [--ordered | --library]
//       0 if every rank finds every promise kept; --share-gpu lets ranks have one GPU together, --ordered and --library
//       are the two other orders of sums
//   mpirun -n N comm_nccl_test [--share-gpu] --leave-last
//       the last rank leaves out a collective: the others must end with code 6 within the deadline, 10 s, and name it
//
// Without the CUDA module, a driver, a GPU or NCCL it says so and ends with 77, which CTest counts as skipped.
#include <cstdio>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <thread>

#include "comm/mpi.hpp"
#include "comm/nccl.hpp"
#include "comm/nccl_loader.hpp"
#include "kernels/cuda_loader.hpp"
#include "kernels/table.hpp"
#include "tests/comm/contract.hpp"

namespace {

using namespace lockstep;
using namespace lockstep::comm;
namespace contract = lockstep::comm::contract;

constexpr int skipped = 77;

int skip(const MpiEnvironment& world, std::string_view why) {
  if (world.world_rank() == 0)
    std::printf("comm_nccl_test is skipped: %.*s\n", static_cast<int>(why.size()), why.data());
  return skipped;
}

/// Why this cannot run on every rank, or nothing. Told alike on all ranks.
std::string reason_to_skip(const MpiEnvironment& world, Communicator& control, bool share_gpu) {
  std::string why;
  try {
    (void)load_nccl();
    const int devices = load_cuda_module().device_count();
    if (world.world_size() < 2)
      why = "one rank exchanges nothing: start at least two (mpirun -n 2)";
    else if (world.host_size() > devices && !share_gpu)
      why = fmt::format("{} ranks, but {} GPUs on this host: --share-gpu puts several ranks on one", world.host_size(),
                        devices);
  } catch (const Error& error) {
    why = error.what();
  }
  std::vector<int> without(static_cast<std::size_t>(world.world_size()));
  without[static_cast<std::size_t>(world.world_rank())] = why.empty() ? 0 : 1;
  control.all_gather_values(std::span(without));
  for (int r = 0; r < world.world_size(); ++r) {
    if (without[static_cast<std::size_t>(r)] == 0) continue;
    control.broadcast_text(why, r);
    return why;
  }
  return {};
}

int run(const std::set<std::string_view>& flags) {
  const MpiEnvironment world;
  const bool oversubscribed = world.oversubscribed(1);
  const bool share = flags.contains("--share-gpu"), leave = flags.contains("--leave-last");
  auto host = make_mpi(world, {.timeout = Seconds(60), .oversubscribed = oversubscribed});
  if (const std::string why = reason_to_skip(world, *host, share); !why.empty()) return skip(world, why);

  const CudaModule& module = load_cuda_module();
  const auto device = module.make_device(world.host_rank() % module.device_count());
  const kernels::Context context(*module.table, *device);
  const NcclOptions options{.timeout = Seconds(leave ? 10 : 60),
                            .library_order = flags.contains("--library"),
                            .ordered_sum = flags.contains("--ordered"),
                            .share_gpu = share,
                            .kernels = module.table,
                            .kernels_context = context.get()};
  const int rank = host->rank(), last = host->size() - 1;
  const auto comm = make_nccl(std::move(host), *device, load_nccl(), options);
  const auto begin = std::chrono::steady_clock::now();
  if (leave) {
    contract::all_reduce<float>({*comm, device.get()});
    if (rank == last) std::this_thread::sleep_for(Seconds(60));
    contract::Data<float> data({*comm, device.get()}, contract::values_of<float>(rank, 1000));
    comm->wait(comm->start_all_reduce(data.buffer(), Reduce::sum, data.after()));
    return 0;
  }
  for (const contract::Case& one : contract::cases()) {
    if (options.ordered_sum && one.name == "all_reduce_f64") continue;  // not offered
    try {
      one.run({*comm, device.get()});
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      throw contract::Broken(fmt::format("{}: {}", one.name, error.what()));
    }
  }
  contract::long_all_reduce({*comm, device.get()});
  comm->barrier();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (rank == 0)
    std::printf("%s on %s: contract kept by %d ranks in %.1f s\n", comm->name().c_str(), device->name().c_str(),
                comm->size(), seconds.count());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::fflush(nullptr);
    _Exit(exit_code(error.kind()));  // the others are somewhere else: nothing that waits for them
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::fflush(nullptr);
    _Exit(1);
  }
}
