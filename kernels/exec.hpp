#pragma once

#include "core/device.hpp"

namespace lockstep {
struct KernelTable;
enum class ErrorKind : int;  // core/error.hpp, whose formatting library device code does not read

/// Where and how a kernel runs: passed to every kernel call, never stored by one.
struct Exec {
  const KernelTable* table = nullptr;  ///< which implementation
  DeviceApi* device = nullptr;
  StreamRef stream = {};
  int threads = 1;          ///< CPU threads this rank may use
  void* context = nullptr;  ///< what the table's create_context returned: library handles, packed-weight caches
  /// Results must not depend on `threads`: library products are cut by rules of their shape alone, each piece a
  /// one-thread call. Our own kernels never depend on it.
  bool invariant = false;
  /// Libraries may try several ways to do a product when they meet it first, and keep the fastest: another run may keep
  /// another, with other bits. Not with `invariant`.
  bool tune = false;
};

/// What a table entry returns across the module boundary, which exceptions must not cross.
struct [[nodiscard]] Status {
  const char* error = nullptr;  ///< null, or a text that stays valid until the thread's next failing kernel call
  ErrorKind kind{1};            ///< what its reader can do; 1 is internal
};

namespace kernels {
/// Throws an Error of the status' kind with its text, if there is one.
void check(Status status);
}  // namespace kernels

}  // namespace lockstep
