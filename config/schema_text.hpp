#pragma once

#include <string>

#include "config/schema.hpp"

namespace lockstep::config {

/// What `lockstep explain KEY` prints. `key` is a path ("run.checkpoint.every"), the end of one ("lr") or a type
/// name ("WarmupLR"); everything that matches is shown.
/// Throws ErrorKind::config naming the nearest key if nothing does.
[[nodiscard]] std::string explain_key(const Section& root, const std::string& key);

/// The reference page of all keys, in Markdown.
[[nodiscard]] std::string reference_markdown(const Section& root);

/// A JSON Schema (draft 7), which editors use to complete and check job files.
[[nodiscard]] std::string json_schema(const Section& root);

}  // namespace lockstep::config
