#include "run/place.hpp"

#include "core/error.hpp"
#include "core/isa.hpp"
#include "kernels/cuda_loader.hpp"
#include "kernels/table.hpp"

namespace lockstep::run {

SelectedPlace select_place(const job::JobConfig& job) {
  if (job.run.device == "cuda") {
    (void)load_cuda_module();  // names what is missing: driver, device or module
    fail(ErrorKind::environment,
         "run.device: cuda: the CUDA module of this version has no GEMM and attention yet, so it cannot train; use "
         "device: cpu");
  }
  if (job.comm.backend == "nccl")
    fail(ErrorKind::environment, "comm.backend: nccl needs run.device: cuda; on CPUs use mpi, local or auto");
  return {.device = make_cpu_device(),
          .kernels = &kernels::cpu_table(),
          .text = fmt::format("{} {}", job.run.device == "auto" ? "cpu (auto)" : "cpu", to_string(current_isa()))};
}

}  // namespace lockstep::run
