#pragma once

#include <exception>
#include <string>

#include "core/error.hpp"

namespace lockstep {

/// What ended a rank, as a value that can be sent to others.
struct Failure {
  ErrorKind kind = ErrorKind::internal;
  std::string text;
};

/// An exception's kind and text; memory that ran out is the environment's.
[[nodiscard]] Failure failure_of(const std::exception_ptr& error);

}  // namespace lockstep
