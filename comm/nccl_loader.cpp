#include "comm/nccl_loader.hpp"

#include <dlfcn.h>

#include "core/error.hpp"
#include "kernels/cuda_loader.hpp"

namespace lockstep::comm {
namespace {

const NcclApi& open_nccl() {
  const CudaModule& module = load_cuda_module();
  // The module is open: the table of its devices lies in it, and says where it is.
  Dl_info info{};
  void* handle = dladdr(&module, &info) != 0 ? dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD) : nullptr;
  require(handle != nullptr, "nccl: the CUDA module is open but cannot be found");
  const auto entry = reinterpret_cast<NcclEntry>(dlsym(handle, nccl_entry_name));
  if (entry == nullptr)
    fail(ErrorKind::environment,
         "comm.backend: nccl: the CUDA module {} was built without NCCL; install NCCL's header (Debian: libnccl-dev) "
         "and build again, or use comm.backend: mpi",
         info.dli_fname);
  const char* why = "";
  const NcclApi* api = entry(build_id(), &why);
  if (api == nullptr) fail(ErrorKind::environment, "comm.backend: nccl: {}; or use comm.backend: mpi", why);
  return *api;
}

}  // namespace

const NcclApi& load_nccl() {
  static const NcclApi& api = open_nccl();
  return api;
}

}  // namespace lockstep::comm
