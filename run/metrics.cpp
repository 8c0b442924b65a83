#include "run/metrics.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "core/text.hpp"

namespace lockstep::run {
namespace {

std::string lost_text(std::int64_t lines) {
  return fmt::format("{} {} lost", counted(lines, "line"), lines == 1 ? "is" : "are");
}

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
  if (m.val_accuracy) line += fmt::format(R"(,"val_accuracy":{})", number(*m.val_accuracy));
  if (m.memory_bytes) line += fmt::format(R"(,"memory_bytes":{})", *m.memory_bytes);
  return line + "}";
}

MetricsScan scan_metrics(const std::string& path, std::int64_t keep_steps) {
  MetricsScan scan;
  std::ifstream in(path, std::ios::binary);
  if (!in && errno == ENOENT) return scan;
  if (!in) fail(ErrorKind::environment, "{}: cannot be read: {}", printable(path), std::strerror(errno));
  std::int64_t number = 0, bytes = 0, bad_lines = 0, first_bad = 0, behind = 0;
  for (std::string line; std::getline(in, line);) {
    const bool whole = !in.eof();  // its line end was there
    bytes += static_cast<std::int64_t>(line.size()) + (whole ? 1 : 0);
    ++number;
    const auto object = parse_json(line);
    if (!object.is_object() || !object.contains("step")) {
      if (bad_lines++ == 0) first_bad = number;
      continue;  // stays if a good line follows
    }
    if (!object["step"].is_number_integer())
      fail(ErrorKind::data, "{} line {}: step is {}; expected a whole number. Correct the line or move the file away",
           printable(path), number, printable(object["step"].dump()));
    if (object["step"].get<double>() > static_cast<double>(keep_steps)) {
      for (behind = 1; std::getline(in, line);) ++behind;
      break;
    }
    scan = {.keep_bytes = bytes, .add_line_end = !whole, .bad_lines = bad_lines, .first_bad = first_bad};
  }
  if (in.bad()) fail(ErrorKind::environment, "{}: cannot be read", printable(path));
  scan.behind = behind;
  return scan;
}

MetricsFile::MetricsFile(std::string path, const MetricsScan& scan)
    : path_(std::move(path)), file_(::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) {
  if (file_ < 0) fail(ErrorKind::environment, "{}: cannot be opened: {}", printable(path_), std::strerror(errno));
  size_ = scan.keep_bytes;
  if (::ftruncate(file_, size_) != 0) {
    const int reason = errno;
    ::close(file_);
    fail(ErrorKind::environment, "{}: cannot be cut back to the checkpoint: {}", printable(path_),
         std::strerror(reason));
  }
  if (scan.add_line_end) wait_with("\n");
}

MetricsFile::~MetricsFile() {
  (void)flush();
  const std::int64_t lost = lost_ + static_cast<std::int64_t>(waiting_.size());
  if (lost > 0) log::warning("{}: {}, which could not be written", printable(path_), lost_text(lost));
  ::close(file_);
}

std::string MetricsFile::write(const StepMetrics& metrics) {
  wait_with(to_json(metrics) + "\n");
  return told(flush());
}

int MetricsFile::flush_to_disk() const { return ::fsync(file_) == 0 ? 0 : errno; }

std::string MetricsFile::flushed(int reason) {
  bool fine = flush();
  if (fine && reason != 0) {
    reason_ = reason;
    fine = false;
  }
  return told(fine);
}

void MetricsFile::wait_with(std::string line) {
  waiting_bytes_ += line.size();
  waiting_.push_back(std::move(line));
  while (waiting_bytes_ > most_waiting) {
    waiting_bytes_ -= waiting_.front().size();
    waiting_.pop_front();
    ++lost_;
  }
}

bool MetricsFile::flush() {
  while (!waiting_.empty()) {
    if (!append(waiting_.front())) return false;
    waiting_bytes_ -= waiting_.front().size();
    waiting_.pop_front();
  }
  return true;
}

bool MetricsFile::append(const std::string& line) {
  ssize_t n = 0;
  do n = ::write(file_, line.data(), line.size());
  while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(line.size())) {
    size_ += n;
    return true;
  }
  reason_ = n < 0 ? errno : ENOSPC;
  // A part of a line may stand there now; the next try starts at a line's beginning again.
  if (n > 0 && ::ftruncate(file_, size_) != 0) reason_ = errno;
  return false;
}

std::string MetricsFile::told(bool fine) {
  if (fine == !complained_) return {};
  complained_ = !fine;
  if (!fine)
    return fmt::format("{} cannot be written: {}; training goes on, the lines wait in memory", printable(path_),
                       std::strerror(reason_));
  const std::int64_t lost = std::exchange(lost_, 0);
  return fmt::format("{} can be written again; {}", printable(path_), lost == 0 ? "no line is lost" : lost_text(lost));
}

}  // namespace lockstep::run
