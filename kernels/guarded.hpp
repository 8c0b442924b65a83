#pragma once

// How a table is filled from an implementation namespace: each entry turns exceptions into a Status, because a table
// may belong to a module that exceptions must not cross.

#include <exception>

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
  } catch (const std::exception& error) {
    return {keep_error(error.what())};
  }
}

}  // namespace
}  // namespace lockstep::kernels

/// One line of a table's initialiser; LOCKSTEP_TABLE_NS names the implementation.
#define LOCKSTEP_GUARDED(kernel, Args) &guarded<Args, &LOCKSTEP_TABLE_NS::kernel>,
