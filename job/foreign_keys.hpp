#pragma once

#include <string>
#include <vector>

namespace lockstep::job {

/// What a value of a DeepSpeed key may look like.
enum class Form { boolean, integer, number, text, block, any };

/// When a key is refused; otherwise it has no effect.
enum class Refuse {
  never,
  when_on,   ///< set to anything but false, null, 0, "none" or a block that is off
  when_off,  ///< set to false: the engine always does it
};

/// A key of DeepSpeed that this engine knows and does not act on.
struct ForeignKey {
  const char* path;
  Form form;
  Refuse refuse;
  const char* reason;
  std::vector<std::string> keys = {};  ///< of a block; empty: not looked into
};

[[nodiscard]] const std::vector<ForeignKey>& foreign_keys();

/// Null if `path` is no such key.
[[nodiscard]] const ForeignKey* find_foreign(const std::string& path);

}  // namespace lockstep::job
