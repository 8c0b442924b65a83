#pragma once

#include <gtest/gtest.h>

#include <string>

#include "core/error.hpp"

namespace lockstep::testing {

/// Runs `body`, which must throw an Error of `kind`; returns its text.
template <class Body>
std::string error_text(ErrorKind kind, const Body& body) {
  try {
    body();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return {};
}

}  // namespace lockstep::testing
