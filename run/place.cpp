#include "run/place.hpp"

#include "core/error.hpp"
#include "core/isa.hpp"
#include "core/text.hpp"
#include "kernels/table.hpp"

namespace lockstep::run {
namespace {

SelectedPlace cpu_place(const std::string& name) {
  (void)current_bf16_products();  // what LOCKSTEP_BF16 cannot have is refused before anything is computed
  return {.device = make_cpu_device(),
          .kernels = &kernels::cpu_table(),
          .text = fmt::format("{} {}", name, to_string(current_isa()))};
}

SelectedPlace cuda_place(const job::JobConfig& job, HostRank host, const CudaModule& module) {
  const int gpus = module.device_count();
  if (host.ranks > gpus && !job.comm.share_gpu)
    fail(ErrorKind::environment,
         "device: cuda: {} on this host, but {}: start as many ranks as there are GPUs, or let ranks share them with "
         "comm.share_gpu: true (correct, but slower than one rank a GPU)",
         counted(host.ranks, "rank"), counted(gpus, "GPU"));
  auto device = module.make_device(host.rank % gpus);
  std::string text = device->name();
  return {.device = std::move(device),
          .kernels = module.table,
          .text = std::move(text),
          .host_reads_memory = false,
          .sharing = (host.ranks - host.rank % gpus + gpus - 1) / gpus};
}

/// Of "device: cuda: this is so (because): do that" the middle, for a line that goes on.
std::string reason_in(std::string text) {
  const std::string begin = "device: cuda: ";
  if (text.starts_with(begin)) text.erase(0, begin.size());
  text = text.substr(0, text.find_first_of("(:;\n"));
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

SelectedPlace best_place(const job::JobConfig& job, HostRank host, const Gpus& gpus) {
  if (!gpus.module_is_there) return cpu_place("cpu (auto)");
  if (job.run.determinism == "invariant") return cpu_place("cpu (auto: run.determinism: invariant is for CPUs)");
  try {
    SelectedPlace place = cuda_place(job, host, gpus.load());
    place.text += " (auto)";
    return place;
  } catch (const Error& error) {
    return cpu_place(fmt::format("cpu (auto: {})", reason_in(error.what())));
  }
}

}  // namespace

SelectedPlace select_place(const job::JobConfig& job, HostRank host, const Gpus& gpus) {
  const bool nccl = job.comm.backend == "nccl";
  if (job.run.device == "cuda" || (job.run.device == "auto" && nccl)) return cuda_place(job, host, gpus.load());
  if (job.run.device == "auto") return best_place(job, host, gpus);
  if (nccl) fail(ErrorKind::environment, "comm.backend: nccl needs run.device: cuda; on CPUs use mpi, local or auto");
  return cpu_place("cpu");
}

}  // namespace lockstep::run
