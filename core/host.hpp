#pragma once

#include <string>

namespace lockstep {

/// This machine's name, for messages; "an unknown host" if the system does not say.
[[nodiscard]] std::string host_name();

}  // namespace lockstep
