#include "run/metrics.hpp"

#include <filesystem>
#include <fstream>

#include "fuzz/target.hpp"
#include "fuzz/targets.hpp"
#include "run/report_data.hpp"

namespace lockstep::fuzz {

void metrics(std::string_view input) {
  static InputFile file("metrics.jsonl");
  // The starts of a run are read line by line as well.
  static const bool linked = [] {
    std::filesystem::create_hard_link(file.path(), file.folder() + "/starts.jsonl");
    return true;
  }();
  (void)linked;
  file.set(input);
  for (const std::int64_t keep : {std::int64_t{0}, std::int64_t{5}, std::int64_t{1} << 62})
    (void)accepts(file.path(), [&] {
      const run::MetricsScan scan = run::scan_metrics(file.path(), keep);
      promise(scan.keep_bytes >= 0 && scan.keep_bytes <= static_cast<std::int64_t>(input.size()),
              "more bytes are kept than the file has");
    });
  (void)accepts(file.folder(), [&] {
    const run::RunRecord record = run::read_run(file.folder());
    promise(!record.rows.empty(), "a run without rows");
    for (std::size_t i = 1; i < record.rows.size(); ++i)
      promise(record.rows[i - 1].step < record.rows[i].step, "steps that do not ascend");
    (void)run::summary_of(record);
  });
}

}  // namespace lockstep::fuzz
