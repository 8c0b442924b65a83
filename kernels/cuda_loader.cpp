#include "kernels/cuda_loader.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include <lockstep_build_id.h>
#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep {
namespace {

/// The folder of the library (or program) that this function is linked into.
std::filesystem::path own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&load_cuda_module), &info) == 0 || info.dli_fname == nullptr) return ".";
  return std::filesystem::absolute(info.dli_fname).parent_path();
}

/// dlerror() of a library that is needed and not there is "libx.so.1: cannot open shared object file: ...".
std::string missing_library(const std::string& message, const std::string& module) {
  const std::size_t colon = message.find(": cannot open shared object file");
  if (colon == std::string::npos || message.substr(0, colon) == module) return "";
  return message.substr(0, colon);
}

std::string module_file() { return (own_folder() / "liblockstep_cuda.so").string(); }

void* open_file(const std::string& file) {
  if (!cuda_module_is_there())
    fail(ErrorKind::environment,
         "device: cuda: the CUDA module is missing: there is no {}; build it with the CUDA toolkit (preset cuda), or "
         "use "
         "device: cpu",
         file);
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle != nullptr) return handle;
  const std::string message = dlerror();
  if (const std::string library = missing_library(message, file); !library.empty())
    fail(ErrorKind::environment,
         "device: cuda: the CUDA module is there, but {}, which it needs, is not found: install it with the CUDA "
         "toolkit "
         "or as a Python wheel of NVIDIA, and name its folder in LD_LIBRARY_PATH; or use device: cpu ({})",
         library, file);
  fail(ErrorKind::environment, "device: cuda: the CUDA module cannot be opened: {}; build it again, or use device: cpu",
       message);
}

/// 13000 -> "13.0"
std::string cuda_version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

void require_device(const CudaStatus& status) {
  if (status.devices > 0) return;
  if (status.driver == 0)
    fail(
        ErrorKind::environment,
        "device: cuda: the NVIDIA driver is missing (libcuda.so.1 cannot be opened): install it on this machine, start "
        "the container with its GPUs (docker run --gpus all), or use device: cpu");
  if (status.driver / 1000 < status.runtime / 1000)
    fail(ErrorKind::environment,
         "device: cuda: the NVIDIA driver is too old: it knows CUDA {}, and the CUDA module was built with {}: update "
         "the "
         "driver, build with an older toolkit, or use device: cpu",
         cuda_version(status.driver), cuda_version(status.runtime));
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  fail(ErrorKind::environment,
       "device: cuda: the NVIDIA driver is there, but no GPU ({}): nvidia-smi -L lists those that it sees{}; or use "
       "device: cpu",
       status.reason,
       visible == nullptr ? "" : fmt::format(", and CUDA_VISIBLE_DEVICES={} chooses among them", printable(visible)));
}

const CudaModule& open_module() {
  const std::string file = module_file();
  void* handle = open_file(file);
  // Of no use, it would still take some 100 MB of every process: relocated tables of NVIDIA's libraries.
  struct Closer {
    void* handle;
    ~Closer() {
      if (handle != nullptr) (void)dlclose(handle);
    }
  } closer{handle};
  using Factory = const CudaModule* (*)(const char* build_id);
  const auto factory = reinterpret_cast<Factory>(dlsym(handle, "lockstep_cuda_module"));
  const CudaModule* module = factory == nullptr ? nullptr : factory(build_id());
  if (module == nullptr)
    fail(ErrorKind::environment,
         "device: cuda: the CUDA module {} is of another build than this program ({:.12}): build both", file,
         build_id());
  require_device(module->status());
  closer.handle = nullptr;
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

bool cuda_module_is_there() { return access(module_file().c_str(), F_OK) == 0; }

bool cuda_is_available() {
  try {
    (void)load_cuda_module();
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace lockstep
