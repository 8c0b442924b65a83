#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "comm/communicator.hpp"
#include "core/error.hpp"

namespace lockstep::run {

inline void run_with_heartbeat(comm::Communicator& comm, std::string_view /*what*/, const std::function<void()>& work) {
  struct Outcome {
    int kind = 0;
  };
  std::vector<Outcome> all(static_cast<std::size_t>(comm.size()));
  std::string text;
  try {
    work();
  } catch (const Error& error) {
    all[static_cast<std::size_t>(comm.rank())].kind = static_cast<int>(error.kind());
    text = error.what();
  }
  comm.all_gather_values(std::span(all));
  for (std::size_t r = 0; r < all.size(); ++r) {
    if (all[r].kind == 0) continue;
    comm.broadcast_text(text, static_cast<int>(r));
    throw Error(static_cast<ErrorKind>(all[r].kind), text);
  }
}

}  // namespace lockstep::run
