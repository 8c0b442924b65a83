#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "files/durable_file.hpp"
#include "kernels/decide/step.hpp"
#include "sched/schedule.hpp"

namespace lockstep::run {

/// Everything besides tensors that a run needs to go on exactly.
struct RunState {
  StepState step;
  std::int64_t sample_position = 0;  ///< of the next step's first sample
  std::uint64_t seed = 1;            ///< of the run; parameters, data order
  std::int64_t train_batch = 0;      ///< samples a step; kept on resume, whatever the number of ranks
  std::int64_t micro_batch = 0;
  int world = 1;    ///< ranks that wrote it
  int threads = 1;  ///< of each; with it and the ISA a resume repeats the bits
  std::string isa;
  std::string job;                                ///< the effective job file
  std::optional<sched::MetricState> metric = {};  ///< of a schedule that reads one
  std::string data;                               ///< fingerprint of the data set, in hex
  std::optional<double> next_loss = {};           ///< resume_proof.hpp; nothing: it was not taken
  // Of a program with a model of its own:
  std::int64_t schedule_index = 0;  ///< where the program steps the schedule: how often it did
  std::string client_state = {};    ///< the program's own text
};

/// One whole, logical fp32 tensor: no padding, no ranks. Where its elements lie, the headers of the shards say.
struct TensorEntry {
  std::string name;  ///< the model's
  std::string kind;  ///< "master" or a moment's name
  std::vector<std::int64_t> shape;
  [[nodiscard]] std::int64_t elements() const;
};

/// A file beside manifest.json.
struct FileEntry {
  std::string name;  ///< plain: of a file in the same folder
  files::FileSum sum;
};

/// manifest.json: what a checkpoint holds.
struct Manifest {
  RunState state;
  std::vector<FileEntry> files;  ///< every one of the checkpoint but this
  std::vector<TensorEntry> tensors;
};

inline constexpr int manifest_version = 3;

/// A checkpoint whose content is not what was written: another one may do. ErrorKind::checkpoint; a disk that cannot be
/// read throws a plain Error instead.
class Damaged : public Error {
 public:
  explicit Damaged(const std::string& what) : Error(ErrorKind::checkpoint, what) {}
};

/// The text of manifest.json. It carries its own XXH3-128, taken over the same object without that field, printed
/// without spaces and with sorted keys.
[[nodiscard]] std::string manifest_text(const Manifest& manifest);

/// Reads such a text; `place` names it in messages. The hash is compared before any other field is looked at, then
/// every number is held against its range, and every name. Throws Damaged; ErrorKind::checkpoint
/// alone for a whole manifest of another version.
[[nodiscard]] Manifest parse_manifest(const std::string& text, const std::string& place);

}  // namespace lockstep::run
