#include "job/batch.hpp"

#include <limits>

#include "core/error.hpp"

namespace lockstep::job {
namespace {

using Number = std::optional<std::int64_t>;

void check_given(const char* key, const Number& value) {
  if (value && *value <= 0) fail(ErrorKind::config, "{} is {}; it must be at least 1", key, *value);
}

void check_numbers(const Number& train, const Number& micro, const Number& accumulation, std::int64_t world,
                   const std::string& world_source) {
  check_given("train_batch_size", train);
  check_given("train_micro_batch_size_per_gpu", micro);
  check_given("gradient_accumulation_steps", accumulation);
  if (world <= 0) fail(ErrorKind::config, "the number of ranks is {} ({}); it must be at least 1", world, world_source);
}

/// a * b, refusing what does not fit.
std::int64_t times(std::int64_t a, std::int64_t b) {
  if (a > std::numeric_limits<std::int64_t>::max() / b)
    fail(ErrorKind::config, "the batch sizes {} and {} multiply to more than 64 bits hold; reduce them", a, b);
  return a * b;
}

const char* origin(const Number& given) { return given ? "given" : "derived"; }

}  // namespace

BatchSizes resolve_leaves(Number train, Number micro, Number accumulation, std::int64_t world,
                          const std::string& world_source) {
  check_numbers(train, micro, accumulation, world, world_source);
  if (!train || !micro)
    fail(ErrorKind::config,
         "run.determinism: invariant needs both train_batch_size and train_micro_batch_size_per_gpu: a step's sums are "
         "defined by its micro-batches, not by the ranks that share them; {} is missing",
         train ? "train_micro_batch_size_per_gpu" : "train_batch_size");
  if (*train % *micro != 0)
    fail(ErrorKind::config,
         "train_batch_size {} is not a multiple of train_micro_batch_size_per_gpu {}; run.determinism: invariant "
         "divides "
         "a step into micro-batches of that size",
         *train, *micro);
  BatchSizes sizes;
  sizes.train = *train;
  sizes.micro = *micro;
  sizes.world = world;
  sizes.leaves = *train / *micro;
  if (world > sizes.leaves)
    fail(
        ErrorKind::config,
        "{} ranks ({}), but a step has only train_batch_size {} / train_micro_batch_size_per_gpu {} = {} micro-batches "
        "to share out (run.determinism: invariant); start at most {} ranks or make the micro-batch smaller",
        world, world_source, *train, *micro, sizes.leaves, sizes.leaves);
  if (accumulation && (sizes.leaves % world != 0 || sizes.leaves / world != *accumulation))
    fail(ErrorKind::config,
         "gradient_accumulation_steps is {} (given), but {} micro-batches over {} ranks ({}) are another number; leave "
         "it out: run.determinism: invariant derives it for each rank",
         *accumulation, sizes.leaves, world, world_source);
  const std::int64_t fewest = sizes.leaves / world;
  sizes.accumulation = fewest + (sizes.leaves % world != 0 ? 1 : 0);
  sizes.text = fmt::format(
      "{} {} ({}) share {} micro-batches of {} ({} each) = {}", world, world == 1 ? "rank" : "ranks", world_source,
      sizes.leaves, sizes.micro,
      fewest == sizes.accumulation ? std::to_string(fewest) : fmt::format("{} or {}", fewest, sizes.accumulation),
      sizes.train);
  return sizes;
}

BatchSizes resolve_batch(Number train, Number micro, Number accumulation, std::int64_t world,
                         const std::string& world_source) {
  check_numbers(train, micro, accumulation, world, world_source);
  if (!train && !micro)
    fail(ErrorKind::config,
         "no batch size: give train_batch_size (samples of a step over all ranks) or train_micro_batch_size_per_gpu "
         "(samples of one rank at a time){}",
         accumulation ? "; gradient_accumulation_steps alone does not say how many" : "");

  // DeepSpeed's derivations, floors included: a division with a remainder shows in the product below.
  BatchSizes sizes;
  sizes.world = world;
  if (train && micro) {
    sizes.accumulation = accumulation.value_or(*train / *micro / world);
  } else if (accumulation) {
    sizes.accumulation = *accumulation;
  } else {
    sizes.accumulation = 1;
  }
  if (micro) {
    sizes.micro = *micro;
  } else {
    sizes.micro = *train / world / sizes.accumulation;
  }
  sizes.train = train ? *train : times(times(sizes.micro, sizes.accumulation), world);

  const std::int64_t product = sizes.accumulation == 0 ? 0 : times(times(sizes.micro, sizes.accumulation), world);
  sizes.text =
      fmt::format("{} {} ({}) x {} micro ({}) x {} accumulation ({}) = {}", world, world == 1 ? "rank" : "ranks",
                  world_source, sizes.micro, origin(micro), sizes.accumulation, origin(accumulation), product);
  if (sizes.micro <= 0 || sizes.accumulation <= 0 || product != sizes.train) {
    std::string remedy;
    const std::int64_t unit = times(world, times(micro.value_or(1), accumulation.value_or(1)));
    const std::int64_t below = *train / unit * unit;
    if (below > 0)
      remedy = fmt::format("{} or {}", below, below + unit);
    else
      remedy = fmt::format("{}", unit);
    fail(ErrorKind::config,
         "train_batch_size is {} (given), but {}; make train_batch_size a multiple of {} (nearest: {}), or change the "
         "number of ranks",
         sizes.train, sizes.text, unit, remedy);
  }
  return sizes;
}

}  // namespace lockstep::job
