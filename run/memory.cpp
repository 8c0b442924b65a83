#include "run/memory.hpp"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>

#include "core/error.hpp"
#include "core/isa.hpp"
#include "core/log.hpp"
#include "core/out_of_memory.hpp"
#include "core/text.hpp"
#include "engine/batch_upload.hpp"
#include "engine/flat_buffers.hpp"
#include "engine/unit_values.hpp"
#include "kernels/flat.hpp"
#include "kernels/matmul/widened_blocks.hpp"
#include "optim/optimizer.hpp"
#include "run/checkpoint_shards.hpp"
#include "run/memory_advice.hpp"
#include "run/micro_batch.hpp"
#include "run/process_memory.hpp"
#include "run/setup.hpp"

namespace lockstep::run {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// What the flat space is cut into, counted: lists of a model that is too large would be too large themselves.
struct Pieces {
  std::int64_t tiles = 0;
  std::int64_t tensors = 0;
  std::int64_t norm_leaves = 0;  ///< of this rank
  std::int64_t bucket_count = 0;
  std::int64_t shard = 0;  ///< elements of the largest
  std::int64_t own = 0;    ///< elements of this rank's
  std::vector<engine::LeafSums::Ranges> buckets;
};

Pieces pieces_of(const engine::FlatLayout& layout, std::int64_t bucket_elements) {
  Pieces pieces;
  const std::vector<engine::FlatLayout::Slice>& slices = layout.slices();
  for (std::size_t s = 0; s < slices.size();) {
    const std::int64_t begin = slices[s].begin;
    const int unit = slices[s].unit;
    for (; s < slices.size() && slices[s].unit == unit; ++s)
      pieces.tiles += ceil_div(slices[s].elements, tile_elements);
    const std::int64_t extent = (s < slices.size() ? slices[s].begin : layout.size()) - begin;
    pieces.norm_leaves += ceil_div(extent, norm_leaf_elements);
    pieces.bucket_count += ceil_div(extent, bucket_elements);
    pieces.buckets.push_back({.elements = bucket_elements, .count = extent / bucket_elements});
    if (extent % bucket_elements != 0) pieces.buckets.push_back({.elements = extent % bucket_elements, .count = 1});
  }
  pieces.tensors = static_cast<std::int64_t>(slices.size());
  pieces.shard = pieces.own = layout.size();
  return pieces;
}

/// The same of what a rank owns.
Pieces pieces_of(const engine::FlatLayout& layout, const engine::ShardMap& map) {
  Pieces pieces;
  for (const engine::FlatLayout::Slice& slice : layout.slices()) {
    bool some = false;
    map.for_own(slice.begin, slice.begin + slice.elements, [&](const engine::ShardMap::Own& run) {
      some = true;
      pieces.tiles += ceil_div(run.end - slice.begin, tile_elements) - (run.begin - slice.begin) / tile_elements;
    });
    pieces.tensors += some ? 1 : 0;
  }
  for (std::size_t b = 0; b < map.buckets().size(); ++b) {
    const engine::FlatLayout::Bucket& bucket = map.buckets()[b];
    pieces.norm_leaves += ceil_div(map.own_part(b).size(), norm_leaf_elements);
    pieces.buckets.push_back(
        {.elements = bucket.end - bucket.begin, .count = 1, .offsets = {map.offsets(b).begin(), map.offsets(b).end()}});
  }
  pieces.bucket_count = static_cast<std::int64_t>(map.buckets().size());
  pieces.shard = map.largest_shard();
  pieces.own = map.shard_elements();
  return pieces;
}

/// Elements of a unit that this rank owns.
std::int64_t own_of(const engine::ShardMap& map, const engine::FlatRange& unit) {
  std::int64_t elements = 0;
  map.for_own(unit.begin, unit.end, [&](const engine::ShardMap::Own& run) { elements += run.size(); });
  return elements;
}

std::string flop_text(double flops) {
  if (flops >= 999.5e9) return fmt::format("{:.2f} TFLOP", flops * 1e-12);
  if (flops >= 999.5e6) return fmt::format("{:.2f} GFLOP", flops * 1e-9);
  if (flops >= 999.5e3) return fmt::format("{:.1f} MFLOP", flops * 1e-6);
  return fmt::format("{:.1f} kFLOP", flops * 1e-3);
}

std::string bytes_text(std::uint64_t bytes) { return human_bytes(static_cast<double>(bytes)); }

/// What rank `worst` says, on every rank.
void require_agreed(const std::vector<std::int64_t>& margins, std::string own, comm::Communicator& comm) {
  const auto worst = std::ranges::min_element(margins);
  if (*worst >= 0) return;
  comm.broadcast_text(own, static_cast<int>(worst - margins.begin()));
  throw Error(ErrorKind::environment, own);
}

}  // namespace

MemoryNeed memory_need(nn::Model& model, const KernelTable& kernels, bool immediate, int rank, int ranks,
                       const engine::EngineOptions& options) {
  const nn::Plan plan = nn::plan(model, kernels, options.micro_batch, options.compute);
  const nn::Plan eval_plan = nn::plan(model, kernels, options.micro_batch, options.compute, false);
  const std::vector<int> groups =
      options.group_of.empty() ? std::vector<int>(model.parameters().size(), 0) : options.group_of;
  const engine::FlatLayout layout(model.parameters(), plan, groups);
  const auto elements = static_cast<std::size_t>(layout.size());
  const bool one_copy = ranks > 1 && options.one_copy;
  const int stage = ranks == 1 ? 0 : std::max(options.zero_stage, one_copy ? 1 : 0);
  const bool leaves_kept = options.leaves > 0;
  std::optional<engine::ShardMap> map;
  if (stage > 0) {
    // Of a model that no machine holds the map would be too large; coarser buckets tell as much.
    constexpr std::int64_t most_buckets = 100'000;
    map.emplace(layout, std::max(options.bucket_elements, layout.size() / most_buckets),
                optim::make_optimizer(options.optimizer)->granularity(), true, rank, ranks);
  }
  const Pieces pieces = map ? pieces_of(layout, *map) : pieces_of(layout, options.bucket_elements);
  const auto optimizer = optim::make_optimizer(
      options.optimizer, map ? map->tensors(layout, model.parameters()) : layout.tensors(model.parameters()));
  const std::size_t moments = optimizer->moments().size();
  const auto leaves = static_cast<std::size_t>(std::max<std::int64_t>(1, options.leaves));
  const engine::BufferExtents extents = engine::BufferExtents::of(stage, options.compute, leaves_kept, one_copy);
  const auto of_extent = [&](Extent extent, std::size_t width) {
    return static_cast<std::size_t>(extent == Extent::full ? layout.size() : pieces.shard) * width;
  };

  MemoryNeed need;
  MemoryNeed::State& state = need.parts;
  const std::size_t width = size_of(options.compute);
  if (options.compute == DType::f32) {
    state.parameters = of_extent(extents.master, width);
  } else {
    state.parameters = of_extent(extents.param16, width);
    state.masters = of_extent(extents.master, sizeof(float));
  }
  if (one_copy)
    state.parameters = (state.parameters + static_cast<std::size_t>(ranks) - 1) / static_cast<std::size_t>(ranks);
  state.gradients = of_extent(extents.grad, sizeof(float));
  state.moments = moments * of_extent(extents.moments, sizeof(float));
  if (leaves_kept) {
    const auto sums = engine::LeafSums::needs(layout.size(), options.leaves, rank, ranks, pieces.buckets);
    state.sums = sums.bytes;
    need.exchange = sums.sent * sizeof(float);
  } else if (ranks > 1) {
    const int times = extents.grad == Extent::full ? 1 : options.grad_accum;
    need.exchange = elements * sizeof(float) * static_cast<std::size_t>(times);
  }
  if (extents.grad == Extent::shard)
    state.windows =
        static_cast<std::size_t>(engine::GradientWindows(engine::unit_elements(layout), plan.unit_events).elements) *
        sizeof(float);
  if (stage == 3) {
    const std::vector<std::int64_t> units = engine::unit_elements(layout);
    state.gathered =
        static_cast<std::size_t>(engine::UnitSchedule::needed(units, {&plan.unit_events, &eval_plan.unit_events})) *
        width;
    const std::vector<engine::FlatRange> ranges = layout.units();
    for (const int unit : engine::UnitSchedule::brought(units, plan.unit_events))
      need.exchange += static_cast<std::size_t>(own_of(*map, ranges[static_cast<std::size_t>(unit)])) * width *
                       static_cast<std::size_t>(options.grad_accum);
  } else if (one_copy) {
    need.exchange += engine::one_copy_bytes;
  } else if (stage > 0) {
    need.exchange += static_cast<std::size_t>(pieces.own) * width;
  }
  need.state = state.total();
  need.activations = std::max(plan.train_bytes, eval_plan.train_bytes);
  const auto group_count = options.groups.size();
  need.other = engine::StepQueue::bytes_of(immediate, static_cast<int>(group_count), options.max_in_flight) +
               engine::BatchUpload::bytes_of(immediate, model, options.micro_batch) +
               static_cast<std::size_t>(pieces.tiles) * sizeof(Tile) +
               optimizer->scratch_bytes(static_cast<std::size_t>(pieces.tiles)) +
               static_cast<std::size_t>(pieces.norm_leaves) * (sizeof(NormLeaf) + sizeof(std::int64_t)) +
               layout.norm_leaf_count() * sizeof(double) + static_cast<std::size_t>(ranks) * sizeof(StepReport) +
               leaves * sizeof(LossSum) + sizeof(engine::EvaluationSum) + group_count * sizeof(GroupStep) +
               sizeof(StepState) + kernels.context_bytes + (one_copy ? engine::one_copy_bytes : 0);
  if (optimizer->granularity() != optim::Granularity::element)
    need.other += static_cast<std::size_t>(pieces.tensors) * sizeof(TileRun);
  if (immediate) {
    std::vector<MatmulArgs> products = plan.weight_products;
    products.insert(products.end(), eval_plan.weight_products.begin(), eval_plan.weight_products.end());
    const auto device = make_cpu_device();
    const kernels::Context context(kernels, *device);
    need.packed = kernels::packed_weight_bytes(
        {.table = &kernels, .device = device.get(), .context = context.get(), .invariant = options.leaves > 0},
        products);
  }
  const bool widens =
      options.compute == DType::f16 || options.leaves > 0 || current_bf16_products() == Bf16Products::widened;
  if (immediate && options.compute != DType::f32 && widens)
    for (const MatmulArgs& product : plan.weight_products) {
      // Its own and the one that gives the weight's gradient, which adds up over rows.
      const std::int64_t most =
          std::max(widened_scratch(product.m, product.n, product.k), widened_scratch(product.k, product.n, product.m));
      need.widening = std::max(need.widening, static_cast<std::size_t>(most) * sizeof(float));
    }
  const auto whole_pages = [&](std::size_t bytes, std::size_t count = 1) {
    constexpr std::size_t page = std::size_t{2} << 20;
    const std::size_t one = count == 0 ? 0 : bytes / count;
    if (one >= page) need.rounding += count * ((one + page - 1) / page * page - one);
  };
  for (const std::size_t bytes :
       {state.parameters, state.masters, state.gradients, state.windows, state.gathered, need.activations})
    whole_pages(bytes);
  whole_pages(state.moments, moments);
  std::vector<engine::FlatRange> saved = {engine::even_share(layout.size(), rank, ranks)};
  if (map) saved.assign(map->own().begin(), map->own().end());
  need.snapshot = static_cast<std::size_t>(shard_elements(model.parameters(), layout, saved,
                                                          static_cast<std::int64_t>(moments), rank, ranks)) *
                  sizeof(float);
  need.flops = plan.forward.flops + plan.backward.flops + plan.again.flops;
  need.owned = pieces.own;
  need.moments = static_cast<std::int64_t>(moments);
  if (ranks > 1) need.buckets = static_cast<std::size_t>(pieces.bucket_count);
  return need;
}

std::uint64_t job_limit(const job::JobConfig& job, const MemoryNeed& need, int host_ranks, int process_ranks,
                        bool on_device) {
  if (!job.run.memory_limit) return FreeMemory::unlimited;
  const auto limit = static_cast<std::uint64_t>(*job.run.memory_limit * 1024 * 1024 * 1024);
  const auto threads = static_cast<std::uint64_t>(process_ranks);
  // Without the copy for saving, which is done without where it has no room.
  MemoryNeed engine = need;
  engine.snapshot = 0;
  const std::uint64_t besides =
      on_device ? 0 : planned_process_bytes(job, engine, host_ranks, process_ranks, true) / threads - need.total();
  return limit > besides ? limit - besides : 0;
}

std::uint64_t MemoryQuestion::left(const FreeMemory& free, const MemoryNeed& need) const {
  return std::min(free.of_rank(sharing(), sharing_process()),
                  job_limit(job.config, need, host_ranks, process_ranks, on_device()));
}

std::string MemoryQuestion::limit(const FreeMemory& free, const MemoryNeed& need) const {
  if (left(free, need) < free.of_rank(sharing(), sharing_process()))
    return fmt::format("run.memory_limit {} GiB, the process's program and data among it",
                       *job.config.run.memory_limit);
  return free.limit(sharing(), sharing_process());
}

namespace {
std::int64_t stage_of(const MemoryQuestion& question) { return question.job.config.zero_optimization.stage; }
}  // namespace

std::string memory_line(const MemoryNeed& need, const FreeMemory& free, const MemoryQuestion& question) {
  const bool one = question.batch.world == 1;
  const std::uint64_t left = question.left(free, need);
  std::string line =
      fmt::format("memory    {}{} (activations {}{})", bytes_text(need.total()), one ? "" : " a rank",
                  bytes_text(need.activations), need.packed == 0 ? "" : ", packed weights " + bytes_text(need.packed));
  if (left != FreeMemory::unlimited) line += fmt::format(", {} free{}", bytes_text(left), one ? "" : " for each");
  line += fmt::format("; {} a micro-batch", flop_text(need.flops));
  if (!one)
    line += fmt::format("; {} {} a step in {}", stage_of(question) < 1 ? "gradient exchange" : "exchange",
                        bytes_text(need.exchange), counted(static_cast<std::int64_t>(need.buckets), "bucket"));
  return line;
}

std::optional<std::string> memory_shortage(const MemoryNeed& need, const FreeMemory& free,
                                           const MemoryQuestion& question) {
  const std::uint64_t left = question.left(free, need);
  if (need.total() <= left) return std::nullopt;
  const auto sharing = static_cast<std::uint64_t>(question.sharing());
  const char* const shared = question.on_device() ? "GPU" : "host";
  const std::string parts = fmt::format("weights, gradients and moments {}, activations {}", bytes_text(need.state),
                                        bytes_text(need.activations));
  const std::string limit = question.limit(free, need);
  std::string text;
  if (sharing == 1)
    text = fmt::format("the job needs {} of memory ({}), but {} are free (limit: {})", bytes_text(need.total()), parts,
                       bytes_text(left), limit);
  else
    text = fmt::format(
        "the job needs {} of memory for {} ranks of this {}, {} a rank ({}), but {} a rank are free (limit: {})",
        bytes_text(need.total() * sharing), sharing, shared, bytes_text(need.total()), parts, bytes_text(left), limit);
  return text + "\n" + memory_advice(free, question);
}

MemoryNeed require_memory(const MemoryQuestion& question, comm::Communicator& comm) {
  const MemoryNeed need =
      memory_need(question.model, question.kernels, question.device.immediate(), comm.rank(), comm.size(),
                  engine_options(question.job, question.model, question.batch, comm.rank(), question.device.immediate(),
                                 question.one_memory()));
  const FreeMemory free = question.free();
  if (comm.rank() == 0) log::print("{}\n", memory_line(need, free, question));
  const std::uint64_t left = question.left(free, need);
  // Every rank has looked before one allocates, or the last would see what the others have left.
  std::vector<std::int64_t> margins(static_cast<std::size_t>(comm.size()));
  constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
  margins[static_cast<std::size_t>(comm.rank())] =
      static_cast<std::int64_t>(std::min(left, most)) -
      static_cast<std::int64_t>(std::min<std::uint64_t>(need.total(), most));
  comm.all_gather_values(std::span(margins));
  require_agreed(margins, memory_shortage(need, free, question).value_or(""), comm);
  return need;
}

bool wants_snapshot(const job::JobConfig& job) { return job.run.checkpoint.async && job.run.checkpoint.every > 0; }

bool room_for_snapshots(const MemoryQuestion& question, const MemoryNeed& need, comm::Communicator& comm) {
  const std::uint64_t left = question.on_device() ? free_memory().of_rank(question.host_ranks, question.process_ranks)
                                                  : question.left(question.free(), need);
  const std::size_t needed = need.snapshot + (question.on_device() ? 0 : need.total());
  std::vector<std::int32_t> rooms(static_cast<std::size_t>(comm.size()));
  rooms[static_cast<std::size_t>(comm.rank())] = needed <= left ? 1 : 0;
  comm.all_gather_values(std::span(rooms));
  return std::ranges::all_of(rooms, [](std::int32_t room) { return room == 1; });
}

void with_memory_advice(const MemoryQuestion& question, const std::function<void()>& make) {
  try {
    make();
  } catch (const OutOfMemory& error) {
    // What it had taken it has given back by now.
    throw Error(error.kind(), std::string(error.what()) + "\n" + memory_advice(question.free(), question));
  }
}

namespace {

struct DataNeed {
  std::uint64_t bytes = 0;
  std::string what;
};

DataNeed data_need(const job::JobConfig& job) {
  if (job.data.type == "clusters") {
    const job::ClustersDataConfig& points = job.data.clusters;
    return {static_cast<std::uint64_t>(points.samples) * static_cast<std::uint64_t>(points.features) * sizeof(float),
            fmt::format("data.samples: {} points of {} features", points.samples, points.features)};
  }
  // Tokens are mapped: the system takes their memory back when others need it.
  if (job.data.type == "tokens" || job.data.type == "custom") return {};
  if (job.data.type == "images")
    return {static_cast<std::uint64_t>(data::image_bytes(image_options(job))),
            "the images of data.path: " + printable(job.data.images.path)};
  const std::string& path = job.data.type == "csv" ? job.data.csv.path : job.data.text.path;
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) return {};  // whoever reads it says why
  return {std::filesystem::file_size(path, none), "data.path: " + printable(path)};
}

}  // namespace

std::uint64_t data_bytes(const job::JobConfig& job) { return data_need(job).bytes; }

void require_memory_for_data(const job::JobConfig& job, const FreeMemory& free, const RankContext& rank) {
  const std::uint64_t left = free.of_rank(rank.host_ranks, rank.process_ranks);
  const DataNeed need = data_need(job);
  if (need.bytes <= left) return;
  fail(ErrorKind::environment,
       "{} take {} of memory on each rank, but {} are free for each (limit: {}). Use less data, fewer ranks on this "
       "host, or a machine with more memory",
       need.what, bytes_text(need.bytes), bytes_text(left), free.limit(rank.host_ranks, rank.process_ranks));
}

std::string memory_forecast(const job::LoadedJob& asked, int ranks) {
  job::LoadedJob loaded = asked;
  const job::JobConfig& job = loaded.config;
  try {
    const auto model = make_model(job, data_shape(job));
    const bool threads = job.comm.backend != "mpi" && job.comm.ranks > 1;
    const SelectedPlace place = select_place(job, {});
    (void)settle_micro_batch(loaded, *model, *place.kernels, *place.device, ranks, threads ? "comm.ranks" : "from MPI");
    const MemoryQuestion question{.job = loaded,
                                  .model = *model,
                                  .kernels = *place.kernels,
                                  .device = *place.device,
                                  .batch = batch_sizes(job, ranks, threads ? "comm.ranks" : "from MPI"),
                                  .host_ranks = ranks,
                                  .process_ranks = threads ? ranks : 1};
    const MemoryNeed need = memory_need(
        *model, question.kernels, question.device.immediate(), 0, ranks,
        engine_options(loaded, *model, question.batch, 0, question.device.immediate(), question.one_memory()));
    const FreeMemory free = question.free();
    const std::optional<std::string> shortage = memory_shortage(need, free, question);
    return memory_line(need, free, question) + (shortage ? "\nnot on this machine now: " + *shortage : "");
  } catch (const Error&) {
    return {};  // who checks the job says why
  }
}

}  // namespace lockstep::run
