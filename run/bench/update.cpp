#include <algorithm>
#include <vector>

#include "comm/mpi.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
#include "run/bench/benches.hpp"
#include "run/bench/ceilings.hpp"
#include "run/bench/optimizer_state.hpp"

namespace lockstep::run::bench {
namespace {

/// This rank's even part, in whole tiles.
comm::Part part_of(std::size_t elements, int rank, int ranks) {
  const std::size_t tiles = (elements + tile_elements - 1) / tile_elements;
  const auto bound = [&](int r) {
    return std::min(elements, tiles * static_cast<std::size_t>(r) / static_cast<std::size_t>(ranks) * tile_elements);
  };
  return {bound(rank), bound(rank + 1)};
}

/// What ranks do with their gradients after backward, in the ways that there are.
class Updates {
 public:
  Updates(RankContext& rank, Workbench& bench, std::size_t elements)
      : comm_(rank.comm),
        exec_(bench.exec()),
        elements_(elements),
        memory_(bench.device().memory()),
        part_(part_of(elements, comm_.rank(), comm_.size())),
        gradients_(comm_.make_arena(bench.device(), elements * sizeof(float))),
        parameters_(comm_.make_arena(bench.device(), elements * sizeof(float))),
        norm_sums_(comm_.make_arena(bench.device(), (elements / norm_leaf_elements + 1) * sizeof(double))),
        word_(comm_.make_arena(bench.device(), sizeof(std::int32_t))),
        shared_(bench, elements, part_, address_of(*parameters_, 0), address_of(*gradients_, comm_.rank())),
        own_(bench, elements, {0, elements}, address_of(*parameters_, comm_.rank()), shared_.g) {
    shared_.sums = reinterpret_cast<double*>(norm_sums_->data());
    const auto buckets = (elements + bucket_elements - 1) / bucket_elements;
    for (std::size_t b = 0; b < buckets; ++b) {
      const std::size_t begin = b * bucket_elements, end = std::min(elements, begin + bucket_elements);
      // Of each bucket a rank has what lies in its part of the whole, so that the bench's parts are in one piece.
      std::vector<std::size_t> offsets = {0};
      for (int r = 0; r < comm_.size(); ++r)
        offsets.push_back(std::clamp(part_of(elements, r, comm_.size()).end, begin, end) - begin);
      buckets_.push_back({begin, end, std::move(offsets)});
    }
  }

  [[nodiscard]] const OptimizerState& own() const { return own_; }
  [[nodiscard]] const OptimizerState& shared() const { return shared_; }
  [[nodiscard]] comm::Part part() const { return part_; }

  /// Sums in buckets, each rank the norm and the update of its part of the one copy.
  void one_copy() {
    std::vector<comm::Pending> pending;
    for (const Bucket& bucket : buckets_)
      pending.push_back(comm_.start_reduce_scatter(buffer(bucket), bucket.offsets, comm::Reduce::sum, exec_.stream));
    for (const comm::Pending each : pending) comm_.wait(each, exec_.stream);
    finish({shared_.g}, 1);
  }
  /// The same, but the norm and the update read the gradients of all ranks where they are made.
  void one_copy_unsummed() {
    barrier();
    std::vector<const float*> sources;
    for (int r = 0; r < comm_.size(); ++r) sources.push_back(address_of(*gradients_, r));
    finish(sources, comm_.size());
  }
  /// Sums in buckets to all, each rank the whole norm and the update of a copy of its own.
  void copy_each() {
    std::vector<comm::Pending> pending;
    for (const Bucket& bucket : buckets_)
      pending.push_back(comm_.start_all_reduce(buffer(bucket), comm::Reduce::sum, exec_.stream));
    for (const comm::Pending each : pending) comm_.wait(each, exec_.stream);
    kernels::grad_leaf_sums(exec_, own_.leaf_sums());
    kernels::grad_norm(exec_, own_.norm());
    kernels::adam(exec_, own_.adam());
  }
  /// As a program that knows of MPI alone has it, and without a norm.
  void library() {
    comm::blocking_library_all_reduce({own_.g, elements_, DType::f32, memory_});
    kernels::adam(exec_, own_.adam());
  }

 private:
  static constexpr std::size_t bucket_elements = std::size_t{1} << 20;  // as the engine's
  struct Bucket {
    std::size_t begin, end;
    std::vector<std::size_t> offsets;
  };

  static float* address_of(const comm::FlatArena& arena, int rank) {
    return reinterpret_cast<float*>(arena.peer(rank));
  }
  [[nodiscard]] Buffer buffer(const Bucket& bucket) const {
    return {shared_.g + bucket.begin, bucket.end - bucket.begin, DType::f32, memory_};
  }
  void barrier() {
    comm_.wait(comm_.start_all_reduce({word_->data(), 1, DType::i32, memory_}, comm::Reduce::max, exec_.stream),
               exec_.stream);
  }
  void finish(const std::vector<const float*>& sources, int count) {
    GradLeafSumsArgs leaf_sums = shared_.leaf_sums();
    AdamArgs adam = shared_.adam();
    for (GradSources* grad : {&leaf_sums.grad, &adam.grad}) {
      std::ranges::copy(sources, grad->source);
      grad->count = count;
    }
    std::fill_n(shared_.sums, shared_.all_leaves, 0.0);
    kernels::grad_leaf_sums(exec_, leaf_sums);
    comm_.wait(comm_.start_all_reduce({shared_.sums, shared_.all_leaves, DType::f64, memory_}, comm::Reduce::sum,
                                      exec_.stream),
               exec_.stream);
    kernels::grad_norm(exec_, shared_.norm());
    kernels::adam(exec_, adam);
    barrier();
  }

  comm::Communicator& comm_;
  Exec exec_;
  std::size_t elements_;
  Memory memory_;
  comm::Part part_;
  std::unique_ptr<comm::FlatArena> gradients_, parameters_, norm_sums_, word_;
  OptimizerState shared_, own_;
  std::vector<Bucket> buckets_;
};

}  // namespace

Report bench_update(RankContext& rank, const OptimizerShape& shape, const Sampling& sampling) {
  if (rank.comm.size() == 1)
    fail(ErrorKind::config,
         "bench update: one rank has no gradients to add up; start it with mpirun -n 2, or give --ranks 2 for threads "
         "as ranks. What an update takes alone: lockstep bench optimizer");
  if (!rank.place.device->immediate() || !rank.comm.capabilities().shared_address_space)
    fail(ErrorKind::config, "bench update: it compares ways for ranks that share the memory of one host's CPUs, and {}",
         rank.place.device->immediate() ? "these do not (" + rank.comm.name() + ")"
                                        : "these compute on " + rank.place.device->name());
  Workbench bench(rank);
  const auto elements = static_cast<std::size_t>(shape.elements > 0 ? shape.elements : gpt2_124m);
  Updates updates(rank, bench, elements);
  const comm::Part part = updates.part();
  std::vector<Task> tasks;
  Task ceiling = in_place_update(
      {updates.own().p + part.begin, updates.shared().m, updates.shared().v, updates.own().g + part.begin, part.size()},
      bench.exec().threads);
  ceiling.name = "4 reads and 3 writes of a part";
  tasks.push_back(ceiling);
  const auto add = [&](const std::string& name, void (Updates::*run)()) {
    tasks.push_back({.name = name,
                     .shape = fmt::format("{} elements", elements),
                     .bytes = 28 * static_cast<double>(part.size()),
                     .ceiling = ceiling.name,
                     .same_job = true,
                     .run = [&updates, run] { (updates.*run)(); }});
  };
  add("one copy: sum, norm, adamw", &Updates::one_copy);
  if (rank.comm.size() <= max_grad_sources)
    add("one copy: norm and adamw of unsummed gradients", &Updates::one_copy_unsummed);
  add("a copy each: sum, norm, adamw", &Updates::copy_each);
  if (rank.comm.name().starts_with("mpi")) add("MPI_Allreduce, then adamw", &Updates::library);
  return {.bench = "update",
          .lines = measure(rank, bench.stream(), std::move(tasks), sampling),
          .notes = {fmt::format("{} over {}; shares are of the time that the least traffic of an update takes, where "
                                "each rank has a part",
                                counted(rank.comm.size(), "rank"), rank.comm.name())}};
}

}  // namespace lockstep::run::bench
