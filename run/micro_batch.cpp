#include "run/micro_batch.hpp"

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

#include "core/error.hpp"
#include "core/text.hpp"
#include "run/memory_advice.hpp"
#include "run/process_memory.hpp"
#include "run/setup.hpp"

namespace lockstep::run {

MicroBatchChoice largest_micro_batch(const job::LoadedJob& job, nn::Model& model, const KernelTable& kernels,
                                     DeviceApi& device, std::int64_t ranks, const std::string& ranks_source,
                                     int host_ranks, int process_ranks, int device_ranks) {
  job::LoadedJob variant = job;
  variant.config.train_micro_batch_size_per_gpu.reset();
  const std::int64_t share = batch_sizes(variant.config, ranks, ranks_source).micro;  // all in one micro-batch
  const auto question_of = [&](std::int64_t micro) {
    variant.config.train_micro_batch_size_per_gpu = micro;
    return MemoryQuestion{.job = variant,
                          .model = model,
                          .kernels = kernels,
                          .device = device,
                          .batch = batch_sizes(variant.config, ranks, ranks_source),
                          .host_ranks = host_ranks,
                          .process_ranks = process_ranks,
                          .device_ranks = device_ranks};
  };
  const bool limited = job.config.run.memory_limit.has_value();
  const FreeMemory free = question_of(1).free();
  const auto need_of = [&](const MemoryQuestion& question) {
    return memory_need(model, kernels, device.immediate(), 0, static_cast<int>(ranks),
                       engine_options(variant, model, question.batch, 0, device.immediate(), question.one_memory()));
  };
  const auto fits = [&](std::int64_t micro) {
    const MemoryQuestion question = question_of(micro);
    const MemoryNeed need = need_of(question);
    std::uint64_t left = question.left(free, need);
    // What is free is an estimate of the system's, and others take of it too.
    if (!limited && left != FreeMemory::unlimited) left = left / 10 * 9;
    return need.total() <= left;
  };
  constexpr std::int64_t most = 1'000'000;  // of the key
  const std::vector<std::int64_t> sizes = divisors_below(share, std::min(share, most) + 1);
  const auto found = std::ranges::partition_point(sizes, [&](std::int64_t micro) { return !fits(micro); });
  const MemoryQuestion smallest = question_of(1);
  const MemoryNeed least = need_of(smallest);
  const std::uint64_t left = smallest.left(free, least);
  if (found == sizes.end()) {
    const std::string what = fmt::format("train_micro_batch_size_per_gpu: auto: not even one sample fits: {}",
                                         human_bytes(static_cast<double>(least.total())));
    if (const auto shortage = memory_shortage(least, free, smallest))
      fail(ErrorKind::environment, "{}\n  {}", what, *shortage);
    fail(ErrorKind::environment,
         "{} of {} that are free for each rank; a tenth of them stays free. Give a number, or "
         "run.memory_limit, to use them all",
         what, human_bytes(static_cast<double>(left)));
  }
  const std::string within = limited ? fmt::format("run.memory_limit {} GiB", *job.config.run.memory_limit)
                             : left == FreeMemory::unlimited
                                 ? std::string("what there is")
                                 : fmt::format("{} free for each", human_bytes(static_cast<double>(left)));
  return {.micro = *found, .why = "auto, the largest within " + within};
}

std::string settle_micro_batch(job::LoadedJob& job, nn::Model& model, const RankContext& rank) {
  if (!job.config.micro_batch_is_auto()) return {};
  std::vector<std::int64_t> all(static_cast<std::size_t>(rank.comm.size()));
  std::int64_t& own = all[static_cast<std::size_t>(rank.comm.rank())];
  std::string why;
  std::string trouble;
  try {
    const MicroBatchChoice choice =
        largest_micro_batch(job, model, *rank.place.kernels, *rank.place.device, rank.comm.size(), rank.world_source,
                            rank.host_ranks, rank.process_ranks, rank.device_ranks);
    own = choice.micro;
    why = choice.why;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::environment) throw;  // of the job: all ranks meet it
    trouble = error.what();
  }
  rank.comm.all_gather_values(std::span(all));
  const auto least = std::ranges::min_element(all);
  if (*least == 0) {
    rank.comm.broadcast_text(trouble, static_cast<int>(least - all.begin()));
    throw Error(ErrorKind::environment, trouble);
  }
  job.config.train_micro_batch_size_per_gpu = *least;
  return why;
}

std::string settle_micro_batch(job::LoadedJob& job, nn::Model& model, const KernelTable& kernels, DeviceApi& device,
                               int ranks, const std::string& ranks_source) {
  if (!job.config.micro_batch_is_auto()) return {};
  const bool threads = job.config.comm.backend != "mpi" && job.config.comm.ranks > 1;
  const MicroBatchChoice choice =
      largest_micro_batch(job, model, kernels, device, ranks, ranks_source, ranks, threads ? ranks : 1, 1);
  job.config.train_micro_batch_size_per_gpu = choice.micro;
  return choice.why;
}

void explain_micro_batch(job::BatchSizes& batch, const std::string& why) {
  if (why.empty()) return;
  const std::string given = "micro (given)";
  if (const std::size_t at = batch.text.find(given); at != std::string::npos)
    batch.text.replace(at, given.size(), "micro (" + why + ")");
}

}  // namespace lockstep::run
