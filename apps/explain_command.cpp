#include "apps/explain_command.hpp"

#include <cstdio>

#include "core/config/schema_text.hpp"
#include "engine/job.hpp"

namespace lockstep {

int explain_command(const std::string& key) {
  const std::string text = explain_key(engine::job_section(), key);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace lockstep
