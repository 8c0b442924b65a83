#pragma once

#include <map>
#include <string>
#include <vector>

#include "job/job.hpp"

namespace lockstep::job {

/// One line of a listed configuration.
struct Line {
  std::string path;  ///< "run.checkpoint.every"
  std::string key;
  int depth;
  bool is_block;
  std::string value;          ///< YAML; empty for a block
  bool has_default = true;    ///< the key has a default, so it may be left out when equal to it
  bool has_no_value = false;  ///< nothing stands for it in YAML; `value` says what that means
};

/// Every key of the types that `config` has, with its value, in the order of the table.
[[nodiscard]] std::vector<Line> list_all(const JobConfig& config);
/// Those that have a value.
[[nodiscard]] std::vector<Line> list(const JobConfig& config);
/// Those that differ from the defaults or have none.
[[nodiscard]] std::vector<Line> list_minimal(const JobConfig& config);
/// By path, the text of every default; of the types that `config` has.
[[nodiscard]] std::map<std::string, std::string> defaults_for(const JobConfig& config);
/// Removes blocks without keys.
void drop_empty_blocks(std::vector<Line>& lines);

}  // namespace lockstep::job
