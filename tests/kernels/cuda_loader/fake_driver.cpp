// A libcuda.so.1 of a machine whose driver sees no GPU: the CUDA runtime finds it by name and asks it for the rest.
#include <cstdint>
#include <cstring>

namespace {

constexpr int success = 0, no_device = 100;  // CUDA's numbers

int answer_no_device() { return no_device; }

}  // namespace

extern "C" {

int cuInit(unsigned flags);
int cuDriverGetVersion(int* version);
int cuGetProcAddress_v2(const char* name, void** function, int version, std::uint64_t flags, int* status);
int cuGetProcAddress(const char* name, void** function, int version, std::uint64_t flags);

int cuInit(unsigned /*flags*/) { return no_device; }

int cuDriverGetVersion(int* version) {
  *version = 99990;  // newer than any toolkit
  return success;
}

int cuGetProcAddress_v2(const char* name, void** function, int /*version*/, std::uint64_t /*flags*/, int* status) {
  if (status != nullptr) *status = success;
  *function = reinterpret_cast<void*>(&answer_no_device);
  if (std::strcmp(name, "cuDriverGetVersion") == 0) *function = reinterpret_cast<void*>(&cuDriverGetVersion);
  if (std::strcmp(name, "cuGetProcAddress") == 0) *function = reinterpret_cast<void*>(&cuGetProcAddress_v2);
  return success;
}

int cuGetProcAddress(const char* name, void** function, int version, std::uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}

}  // extern "C"
