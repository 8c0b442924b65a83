#include <algorithm>
#include <memory>

#include "comm/mpi.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
#include "run/bench/benches.hpp"
#include "run/bench/ceilings.hpp"
#include "run/bench/workbench.hpp"

namespace lockstep::run::bench {
namespace {

/// The same ranks with the library's own all-reduce, where MPI carries the data itself.
struct LibraryOrder {
  explicit LibraryOrder(const RankContext& rank) {
    if (!rank.comm.name().starts_with("mpi") || !rank.place.device->immediate()) return;
    world = std::make_unique<comm::MpiEnvironment>();
    comm = comm::make_mpi(*world, {.oversubscribed = world->oversubscribed(rank.place.threads), .library_order = true});
  }
  std::unique_ptr<comm::MpiEnvironment> world;
  std::unique_ptr<comm::Communicator> comm;  ///< null without
};

std::function<void()> reduction(comm::Communicator& comm, Buffer buffer, StreamRef stream) {
  return [&comm, buffer, stream] { comm.wait(comm.start_all_reduce(buffer, comm::Reduce::sum, stream), stream); };
}

}  // namespace

Report bench_all_reduce(RankContext& rank, const AllReduceShape& shape, const Sampling& sampling) {
  if (rank.comm.size() == 1)
    fail(ErrorKind::config,
         "bench allreduce: one rank has nobody to exchange with; start it with mpirun -n 2, or give --ranks 2 for "
         "threads as ranks");
  Workbench bench(rank);
  const Exec exec = bench.exec();
  const LibraryOrder library(rank);
  const auto largest = static_cast<std::size_t>(*std::ranges::max_element(shape.bytes));
  // Zeros stay zeros, however often they are added. Memory that the ranks share, where the backend has it.
  const auto arena = rank.comm.make_arena(bench.device(), largest);
  auto* spare = bench.memory<std::byte>(largest);
  const Memory memory = bench.device().memory();

  std::vector<Task> tasks;
  for (const std::int64_t asked : shape.bytes) {
    const std::size_t count = static_cast<std::size_t>(asked) / sizeof(float), bytes = count * sizeof(float);
    const Buffer buffer{arena->data(), count, DType::f32, memory};
    const std::string size = human_bytes(static_cast<double>(bytes));
    const auto add = [&](const std::string& name, std::function<void()> run, const std::string& ceiling) {
      tasks.push_back({.name = fmt::format("{} of {}", name, size),
                       .shape = fmt::format("{} bytes", bytes),
                       .bytes = static_cast<double>(bytes),
                       .ceiling = ceiling.empty() ? "" : fmt::format("{} of {}", ceiling, size),
                       .same_job = true,
                       .run = std::move(run)});
    };
    add("copy", copy_of("", exec, spare, arena->data(), bytes).run, "");
    add("all-reduce", reduction(rank.comm, buffer, exec.stream), "copy");
    if (library.comm == nullptr) continue;
    // In memory of the rank's own, as a program that knows of nothing else has it.
    const Buffer own{spare, count, DType::f32, memory};
    add("MPI_Iallreduce", reduction(*library.comm, own, {}), "copy");
    add(
        "MPI_Allreduce", [own] { comm::blocking_library_all_reduce(own); }, "copy");
  }
  return {.bench = "allreduce",
          .lines = measure(rank, bench.stream(), std::move(tasks), sampling),
          .notes = {fmt::format("{} over {}; GB/s are bytes of the buffer by time (algorithm bandwidth), shares are of "
                                "the time that a copy of the buffer takes on every rank at once",
                                counted(rank.comm.size(), "rank"), rank.comm.name())}};
}

}  // namespace lockstep::run::bench
