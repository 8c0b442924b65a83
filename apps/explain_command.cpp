#include "apps/explain_command.hpp"

#include <cstdio>

#include "config/schema_text.hpp"
#include "job/schema.hpp"

namespace lockstep {

int explain_command(const std::string& key) {
  const std::string text = config::explain_key(job::job_section(), key);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace lockstep
