#pragma once

// How a table is filled from an implementation namespace: each entry turns exceptions into a Status, because a table
// may belong to a module that exceptions must not cross.

#include <exception>
#include <new>

#include "core/error.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels {

/// Keeps a copy of `text` for this thread, until its next failing kernel call, and returns the copy.
[[nodiscard]] const char* keep_error(const char* text) noexcept;

namespace {

template <class Args, void (*function)(const Exec&, const Args&)>
Status guarded(const Exec& exec, const Args& args) {
  try {
    function(exec, args);
    return {};
  } catch (const Error& error) {
    return {keep_error(error.what()), error.kind()};
  } catch (const std::bad_alloc&) {
    return {"out of host memory inside a kernel: use a smaller model, micro-batch or fewer ranks on this host",
            ErrorKind::environment};
  } catch (const std::exception& error) {
    return {keep_error(error.what()), ErrorKind::internal};
  } catch (...) {
    return {"a kernel threw what is not an exception", ErrorKind::internal};
  }
}

}  // namespace
}  // namespace lockstep::kernels

/// Lines of a table's initialiser; LOCKSTEP_TABLE_NS names the implementation.
#define LOCKSTEP_GUARDED(kernel, Args) &guarded<Args, &LOCKSTEP_TABLE_NS::kernel>,
#define LOCKSTEP_SCRATCH(kernel, Args) &LOCKSTEP_TABLE_NS::kernel##_scratch,
