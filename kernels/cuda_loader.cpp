#include "kernels/cuda_loader.hpp"

#include <dlfcn.h>

#include <cstring>
#include <filesystem>
#include <string>

#include <lockstep_build_id.h>
#include "core/error.hpp"

namespace lockstep {
namespace {

/// The folder of the library (or program) that this function is linked into.
std::filesystem::path own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&load_cuda_module), &info) == 0 || info.dli_fname == nullptr) return ".";
  return std::filesystem::absolute(info.dli_fname).parent_path();
}

const CudaModule& open_module() {
  const std::filesystem::path file = own_folder() / "liblockstep_cuda.so";
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr)
    fail(ErrorKind::environment,
         "device: cuda: the CUDA module is missing: {}; build with the CUDA toolkit (preset cuda), or use device: cpu",
         dlerror());
  using Factory = const CudaModule* (*)(const char* build_id);
  const auto factory = reinterpret_cast<Factory>(dlsym(handle, "lockstep_cuda_module"));
  const CudaModule* module = factory == nullptr ? nullptr : factory(build_id());
  if (module == nullptr)
    fail(ErrorKind::environment,
         "device: cuda: the CUDA module {} is of another build than this program ({:.12}): "
         "build both",
         file.string(), build_id());
  if (module->device_count() == 0)
    fail(ErrorKind::environment, "device: cuda: the {} is missing: {}; use device: cpu",
         std::strstr(module->why_no_device(), "driver") != nullptr ? "NVIDIA driver" : "GPU", module->why_no_device());
  return *module;
}

}  // namespace

const char* build_id() { return LOCKSTEP_BUILD_ID; }

std::unique_ptr<DeviceApi> CudaModule::make_device(int ordinal) const {
  const int count = device_count();
  if (ordinal < 0 || ordinal >= count)
    fail(ErrorKind::environment, "device: cuda: there is no GPU number {} ({} here)", ordinal, count);
  return std::unique_ptr<DeviceApi>(new_device(ordinal));
}

const CudaModule& load_cuda_module() {
  static const CudaModule& module = open_module();
  return module;
}

bool cuda_is_available() {
  try {
    (void)load_cuda_module();
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace lockstep
