#include "run/metrics.hpp"

#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.hpp"

namespace lockstep::run {
namespace {

std::string number(double value) { return std::isfinite(value) ? fmt::format("{}", value) : "null"; }

}  // namespace

std::string to_json(const StepMetrics& m) {
  std::string lr;
  for (const double value : m.lr) lr += (lr.empty() ? "" : ",") + number(value);
  std::string line = fmt::format(
      R"({{"step":{},"update":{},"loss":{},"loss_bits":"{:08x}","lr":[{}],"grad_norm":{},"loss_scale":{},"skipped":{},"{}_per_s":{:.1f},"step_ms":{:.3f})",
      m.step, m.update, number(m.loss), std::bit_cast<std::uint32_t>(static_cast<float>(m.loss)), lr,
      number(m.grad_norm), number(m.loss_scale), m.skipped, m.item, m.items_per_s, m.step_ms);
  if (m.val_loss) line += fmt::format(R"(,"val_loss":{})", number(*m.val_loss));
  return line + "}";
}

MetricsFile::MetricsFile(const std::string& path, std::int64_t keep_steps) {
  std::string kept;
  {
    std::ifstream old(path);
    for (std::string line; std::getline(old, line);) {
      const auto json = nlohmann::json::parse(line, nullptr, false);
      // A line cut short by a crash does not parse; it and what follows go.
      if (json.is_discarded() || !json.contains("step") || json["step"].get<std::int64_t>() > keep_steps) break;
      kept += line + "\n";
    }
  }
  file_ = std::fopen(path.c_str(), "w");
  if (file_ == nullptr) fail(ErrorKind::environment, "{}: cannot be written: {}", path, std::strerror(errno));
  std::fwrite(kept.data(), 1, kept.size(), file_);
  std::fflush(file_);
}

MetricsFile::~MetricsFile() {
  if (file_ != nullptr) std::fclose(file_);
}

void MetricsFile::write(const StepMetrics& metrics) {
  const std::string line = to_json(metrics) + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fflush(file_) != 0)
    fail(ErrorKind::environment, "metrics.jsonl: cannot be written: {}; is the disk full?", std::strerror(errno));
}

}  // namespace lockstep::run
