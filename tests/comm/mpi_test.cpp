// The communicators' contract on the mpi backend, in real processes:
//
//   mpirun -n N --oversubscribe comm_mpi_test                 0 if every rank finds every promise kept
//   mpirun -n N --oversubscribe comm_mpi_test --break-last    the last rank claims a failure: must not be 0
//   mpirun -n N --oversubscribe comm_mpi_test --abort         the last rank aborts with code 5 while the others wait
#include "comm/mpi.hpp"

#include <bit>
#include <chrono>
#include <cstdio>
#include <map>
#include <string_view>
#include <thread>

#include "comm/heartbeat.hpp"
#include "tests/comm/contract.hpp"

namespace {

using namespace lockstep;
using namespace lockstep::comm;
namespace contract = lockstep::comm::contract;

void environment_is_consistent(const MpiEnvironment& world) {
  contract::expect(world.world_rank() >= 0 && world.world_rank() < world.world_size(), "rank {} of {}",
                   world.world_rank(), world.world_size());
  contract::expect(world.host_rank() < world.host_size() && world.host_size() <= world.world_size(),
                   "host rank {} of {}, world {}", world.host_rank(), world.host_size(), world.world_size());
  contract::expect(static_cast<int>(world.host_names().size()) == world.world_size(), "{} host names",
                   world.host_names().size());
  contract::expect(!world.host_names().front().empty() && world.host_cpus() >= 1, "no host name or no CPU");
}

void launcher_mismatch_is_explained() {
  const auto says = [](std::string_view name, const char* value) {
    return [=](const char* asked) { return asked == name ? value : nullptr; };
  };
  contract::expect(explain_launcher_mismatch(1, says("OMPI_COMM_WORLD_SIZE", "1")).empty(), "one rank is one rank");
  contract::expect(explain_launcher_mismatch(4, says("OMPI_COMM_WORLD_SIZE", "4")).empty(), "four are four");
  contract::expect(explain_launcher_mismatch(1, says("SLURM_NTASKS", "4")).empty(), "a batch script is one process");
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const std::string text = explain_launcher_mismatch(1, says(name, "4"));
    contract::expect(text.find("4 ranks") != std::string::npos && text.find(name) != std::string::npos,
                     "{}=4 against one rank is explained as '{}'", name, text);
  }
}

void several_hosts_are_explained() {
  for (const std::vector<int>& fine : {std::vector<int>{0, 0, 0}, {0, 0, 1, 1}, {0, 1, 2}, {0}})
    contract::expect(explain_order_of_ranks(fine).empty(), "nothing is wrong with {} ranks", fine.size());
  contract::expect(explain_order_of_ranks({0, 1, 0, 1}).find("--map-by slot") != std::string::npos, "in turn");
  contract::expect(explain_order_of_ranks({0, 0, 1}).find("unequal") != std::string::npos, "unequal");

  using Variables = std::map<std::string, std::string, std::less<>>;
  const auto of = [](int hosts, double timeout, Variables variables) {
    return explain_short_timeout(hosts, Seconds(timeout), [&](const char* name) {
      const auto found = variables.find(name);
      return found == variables.end() ? nullptr : found->second.c_str();
    });
  };
  const Variables mpirun = {{"OMPI_COMM_WORLD_SIZE", "4"}};
  Variables quick = mpirun;
  quick["OMPI_MCA_oob_tcp_keepalive_time"] = "10";
  quick["OMPI_MCA_oob_tcp_keepalive_intvl"] = "1";
  quick["OMPI_MCA_oob_tcp_keepalive_probes"] = "3";
  contract::expect(of(2, 600, mpirun).empty(), "mpirun's own 480 s are enough for the default");
  contract::expect(of(2, 30, mpirun).find("oob_tcp_keepalive_time 12") != std::string::npos, "30 s are too short");
  contract::expect(of(2, 30, quick).empty() && !of(2, 13, quick).empty(), "10 + 1 x 3 s");
  contract::expect(of(1, 30, mpirun).empty() && of(2, 30, {}).empty(), "one host, or no mpirun");
}

/// The communicator's deadline is 0.3 s.
void long_work_goes_through(Communicator& comm) {
  const int last = comm.size() - 1;
  run_with_heartbeat(
      comm, "waiting", [&] { std::this_thread::sleep_for(Seconds(comm.rank() == last ? 1.0 : 0.0)); }, Seconds(0.05));
  try {
    run_with_heartbeat(comm, "failing", [&] {
      if (comm.rank() == last) fail(ErrorKind::checkpoint, "the disk of rank {} is full", last);
    });
    contract::expect(false, "rank {} was not told of the failure", comm.rank());
  } catch (const Error& error) {
    // Rank 0 is well, so the rank is named, with a host.
    const std::string_view text(error.what());
    contract::expect(error.kind() == ErrorKind::checkpoint && text.starts_with(fmt::format("rank {} (", last)) &&
                         text.ends_with(fmt::format("): the disk of rank {} is full", last)),
                     "told '{}'", text);
  }
}

void layouts_are_known() {
  const HostLayout two = host_layout({0, 0, 1, 1}, 3);
  contract::expect(two.regular && two.subtrees && two.hosts == 2 && two.place == 1, "two hosts of two ranks");
  contract::expect(two.neighbors == std::vector<int>{2, 3}, "the neighbours of rank 3");
  const HostLayout three = host_layout({0, 0, 0, 1, 1, 1}, 0);
  contract::expect(three.regular && !three.subtrees, "three ranks a host are no subtree");
  contract::expect(!host_layout({0, 0, 1}, 0).regular, "hosts of unequal numbers of ranks");
  contract::expect(!host_layout({0, 1, 0, 1}, 0).regular, "ranks dealt out in turn");
  contract::expect(!host_layout({0, 0}, 0).regular && host_layout({0, 0}, 1).place == 1, "one host");
  contract::expect(host_layout({0, 1, 2}, 1).regular && host_layout({0, 1, 2}, 1).subtrees, "a host for each rank");
}

/// Buffers in arenas: in memory, on one host and on what is taken for several.
void shared_memory_keeps_the_contract(const MpiEnvironment& world) {
  const bool oversubscribed = world.oversubscribed(1);
  for (const int ranks_per_host : {0, 1, 2, 3, 4}) {
    std::string why_not;
    const auto comm = make_mpi(world,
                               {.timeout = Seconds(60),
                                .oversubscribed = oversubscribed,
                                .intra_host = IntraHost::automatic,
                                .progress_thread = true,
                                .ranks_per_host = ranks_per_host},
                               &why_not);
    contract::expect(why_not.empty(), "no shared memory: {}", why_not);
    const bool shares = ranks_per_host != 1 && world.world_size() > 1;
    contract::expect((comm->name().find("shared memory") != std::string::npos) == shares, "{} with {} ranks a host",
                     comm->name(), ranks_per_host);
    const bool one_host = ranks_per_host == 0 || ranks_per_host >= world.world_size();
    contract::expect(comm->capabilities().shared_address_space == (shares && one_host), "{} ranks a host",
                     ranks_per_host);
    for (const contract::Case& one : contract::cases()) {
      // Between hosts a peer's arena is null.
      if (one.name == "arenas" && !one_host) continue;
      try {
        one.run({.comm = *comm, .in_arenas = true});
      } catch (const std::exception& error) {
        throw contract::Broken(
            fmt::format("{} in memory, {} ranks a host: {}", one.name, ranks_per_host, error.what()));
      }
    }
    contract::long_all_reduce({.comm = *comm, .in_arenas = true});
    comm->barrier();
  }
  if (world.world_size() == 1) return;
  const auto impatient =
      make_mpi(world, {.timeout = Seconds(0.3), .oversubscribed = oversubscribed, .intra_host = IntraHost::shared});
  contract::late_rank({.comm = *impatient, .in_arenas = true}, Seconds(2.5), contract::AfterDeadline::goes_on);
  // What one rank asks for and another does not is said, on every rank.
  const auto cpu = make_cpu_device();
  const auto arena = impatient->make_arena(*cpu, 4096);
  const std::size_t count = world.world_rank() == 0 ? 1000 : 1001;
  try {
    impatient->all_reduce({arena->data(), count, DType::f32, Memory::host}, Reduce::sum);
    contract::expect(false, "different lengths were summed");
  } catch (const Error& error) {
    contract::expect(error.kind() == ErrorKind::desync, "different lengths are reported as '{}'", error.what());
  }
}

/// T(lo, hi) over what `ranks_per_host` consecutive ranks have added in memory, each such sum rounded.
template <class Narrow>
float rounded_tree(int lo, int hi, int ranks_per_host, std::size_t i) {
  if (hi - lo == 1)
    return static_cast<float>(
        Narrow(contract::tree_of_ranks<float>(lo * ranks_per_host, (lo + 1) * ranks_per_host, i, Reduce::sum, 0)));
  const int half = static_cast<int>(std::bit_floor(static_cast<unsigned>(hi - lo - 1)));
  return rounded_tree<Narrow>(lo, lo + half, ranks_per_host, i) +
         rounded_tree<Narrow>(lo + half, hi, ranks_per_host, i);
}

/// fp32 sums that travel in 16 bits: rounded before and after, added in fp32; other types and operations untouched.
template <class Narrow>
void sums_travel_rounded(const MpiEnvironment& world, int ranks_per_host) {
  const int n = world.world_size();
  const auto comm = make_mpi(world, {.timeout = Seconds(60),
                                     .oversubscribed = world.oversubscribed(1),
                                     .intra_host = IntraHost::automatic,
                                     .wire = lockstep::dtype_of<Narrow>,
                                     .progress_thread = true,
                                     .ranks_per_host = ranks_per_host});
  contract::expect(n == 1 || comm->capabilities().wire == lockstep::dtype_of<Narrow>, "{}", comm->name());
  // Sums of a host's ranks in memory, where the layout gives subtrees.
  const bool two_levels = n % ranks_per_host == 0 && std::has_single_bit(static_cast<unsigned>(ranks_per_host));
  const int together = two_levels ? ranks_per_host : 1;
  for (const std::size_t count : {std::size_t{1}, std::size_t{100}, std::size_t{70'001}}) {
    contract::Data<float> all({.comm = *comm, .in_arenas = true}, contract::values_of<float>(comm->rank(), count));
    comm->all_reduce(all.buffer(), Reduce::sum);
    contract::Data<float> part({.comm = *comm, .in_arenas = true}, contract::values_of<float>(comm->rank(), count));
    std::vector<std::size_t> offsets;
    for (int r = 0; r <= n; ++r) offsets.push_back(count * static_cast<std::size_t>(r) / static_cast<std::size_t>(n));
    comm->wait(comm->start_reduce_scatter(part.buffer(), offsets, Reduce::sum));

    const std::vector<float> everywhere = all.read(), own = part.read();
    const auto me = static_cast<std::size_t>(comm->rank());
    for (std::size_t i = 0; i < count; ++i) {
      const auto want = static_cast<float>(Narrow(rounded_tree<Narrow>(0, n / together, together, i)));
      contract::expect(n == 1 || everywhere[i] == want, "all_reduce, {} ranks a host, element {}: {} for {}",
                       ranks_per_host, i, everywhere[i], want);
      contract::expect(n == 1 || i < offsets[me] || i >= offsets[me + 1] || own[i] == want,
                       "reduce_scatter, {} ranks a host, element {}: {} for {}", ranks_per_host, i, own[i], want);
    }
  }
  contract::all_reduce<double>({.comm = *comm, .in_arenas = true});
  contract::all_gather<float>({.comm = *comm, .in_arenas = true});
  comm->barrier();
}

void run_all(const MpiEnvironment& world, Communicator& comm, bool break_last) {
  const auto begin = std::chrono::steady_clock::now();
  layouts_are_known();
  environment_is_consistent(world);
  launcher_mismatch_is_explained();
  several_hosts_are_explained();
  for (const contract::Case& one : contract::cases()) {
    try {
      one.run({comm});
    } catch (const std::exception& error) {
      throw contract::Broken(fmt::format("{}: {}", one.name, error.what()));
    }
  }
  contract::long_all_reduce({comm});
  // Pieces much smaller than the buffers, and a length that does not divide them.
  const bool oversubscribed = world.oversubscribed(1);
  const auto cut = make_mpi(world, {.oversubscribed = oversubscribed, .max_piece = 999});
  contract::all_reduce<float>({*cut});
  contract::all_reduce<bf16>({*cut});
  contract::reduce_scatter<float>({*cut});
  contract::all_gather<float>({*cut});
  contract::broadcast<float>({*cut});
  contract::several_in_flight({*cut});
  const auto library = make_mpi(world, {.oversubscribed = oversubscribed, .library_order = true});
  contract::expect(!library->capabilities().ordered_sum, "the library's order is nobody's promise");
  contract::all_reduce<float>({*library});
  contract::all_reduce<bf16>({*library});
  contract::all_reduce<std::int64_t>({*library});
  if (comm.size() > 1) {
    const auto impatient = make_mpi(world, {.timeout = Seconds(0.3), .oversubscribed = oversubscribed});
    contract::late_rank({*impatient}, Seconds(2.5), contract::AfterDeadline::goes_on);
    long_work_goes_through(*impatient);
  }
  shared_memory_keeps_the_contract(world);
  for (const int ranks_per_host : {1, 2, 3})
    if (ranks_per_host < comm.size()) {
      sums_travel_rounded<bf16>(world, ranks_per_host);
      sums_travel_rounded<f16>(world, ranks_per_host);
    }
  contract::expect(!break_last || comm.rank() != comm.size() - 1, "the last rank was asked to fail");
  comm.barrier();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (comm.rank() == 0)
    std::printf("%s: contract kept by %d ranks in %.1f s\n", comm.name().c_str(), comm.size(), seconds.count());
}

int run(std::string_view mode) {
  const MpiEnvironment world;
  const auto comm = make_mpi(world, {.timeout = Seconds(60), .oversubscribed = world.oversubscribed(1)});
  try {
    if (mode == "--abort") {
      if (comm->rank() == comm->size() - 1) comm->abort("the numbers went bad", exit_code(ErrorKind::diverged));
      comm->barrier();
    }
    run_all(world, *comm, mode == "--break-last");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d: %s\n", comm->rank(), error.what());
    comm->abort(error.what(), exit_code(ErrorKind::internal));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : "");
  } catch (const Error& error) {  // there is no group to abort yet
    std::fprintf(stderr, "%s\n", error.what());
    return exit_code(error.kind());
  }
}
