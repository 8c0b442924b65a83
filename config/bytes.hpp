#pragma once

#include <memory>
#include <string>

#include "config/diagnostics.hpp"
#include "config/source.hpp"

namespace lockstep::config {

/// Whether `text` is UTF-8 without NUL bytes; otherwise the first byte that is wrong is reported.
[[nodiscard]] bool check_bytes(const std::string& text, const std::shared_ptr<const Source>& source,
                               Diagnostics& diagnostics);

}  // namespace lockstep::config
