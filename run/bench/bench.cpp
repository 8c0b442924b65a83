#include "run/bench/bench.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/log.hpp"
#include "core/text.hpp"
#include "run/bench/text.hpp"

namespace lockstep::run::bench {
namespace {

Report run_one(const std::string& name, RankContext& rank, const BenchOptions& options) {
  if (name == "optimizer") return bench_optimizer(rank, options.optimizer, options.sampling);
  if (name == "allreduce") return bench_all_reduce(rank, options.all_reduce, options.sampling);
  if (name == "update") return bench_update(rank, options.optimizer, options.sampling);
  if (name == "gemm") return bench_gemm(rank, options.gemm, options.sampling);
  if (name == "attention") return bench_attention(rank, options.attention, options.sampling);
  require(name == "step", "run_benches: no such measurement");
  if (options.job != nullptr) return bench_step(rank, *options.job, options.step, options.sampling);
  return bench_step(rank, usual_step_job(rank.place.device->immediate(), options.overrides), options.step,
                    options.sampling);
}

/// Empty, or why a measurement of several is not for these ranks.
std::string why_left_out(const std::string& name, const RankContext& rank) {
  if (name != "allreduce" && name != "update") return {};
  if (rank.comm.size() == 1) return "one rank has nobody to exchange with (mpirun -n 2, or --ranks 2)";
  const bool share = rank.place.device->immediate() && rank.comm.capabilities().shared_address_space;
  return name == "update" && !share ? "the ranks do not share the memory of one host's CPUs" : "";
}

void write_json(const std::string& path, const nlohmann::ordered_json& json) {
  errno = 0;
  std::ofstream file(path);
  file << json.dump(1) << '\n';
  file.close();
  if (!file)
    fail(ErrorKind::environment, "--json: {} cannot be written: {}", printable(path),
         errno == 0 ? "unknown error" : std::strerror(errno));
}

}  // namespace

const std::vector<std::string>& bench_names() {
  static const std::vector<std::string> names = {"optimizer", "allreduce", "update", "gemm", "attention", "step"};
  return names;
}

void run_benches(RankContext& rank, const BenchOptions& options) {
  const bool root = rank.comm.rank() == 0;
  const Machine machine = machine_of(rank);
  if (root) log::print("{}", header_text(machine));
  std::vector<Report> reports;
  for (const std::string& name : options.what) {
    if (const std::string why = options.what.size() > 1 ? why_left_out(name, rank) : ""; !why.empty()) {
      if (root) log::print("\n{}\n  left out: {}\n", name, why);
      continue;
    }
    reports.push_back(run_one(name, rank, options));
    if (!root) continue;
    log::print("{}", report_text(reports.back()));
    // After each: what is there stays, whatever ends the run.
    if (!options.json_path.empty()) write_json(options.json_path, json_of(machine, reports));
  }
}

}  // namespace lockstep::run::bench
