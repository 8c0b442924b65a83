#pragma once

#include "comm/nccl_api.hpp"

namespace lockstep::comm {

/// NCCL, from the CUDA module. ErrorKind::environment, naming what is missing, unless module, driver, device, NCCL's
/// part of the module and NCCL's library are all there.
[[nodiscard]] const NcclApi& load_nccl();

/// What the module exports besides its devices and kernels: the table, or null with `why` a sentence. The caller's
/// build id is compared with the module's.
using NcclEntry = const NcclApi* (*)(const char* build_id, const char** why);
inline constexpr const char* nccl_entry_name = "lockstep_nccl";

}  // namespace lockstep::comm
