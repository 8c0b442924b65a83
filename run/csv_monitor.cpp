#include "run/csv_monitor.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view line_end = "\r\n";

/// How many bytes of a file to keep: up to its first row with an x of at least `begin`. A row that a crash cut short
/// goes too.
std::uintmax_t kept_bytes(const std::string& path, std::int64_t begin) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(ErrorKind::environment, "csv_monitor: {}: {}", printable(path), std::strerror(errno));
  std::uintmax_t kept = 0;
  for (std::string line; std::getline(in, line) && !in.eof();) {
    std::int64_t x = 0;
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), x);
    if (error == std::errc() && x >= begin) break;  // a header is no number
    kept += line.size() + 1;
  }
  return kept;
}

int append(const std::string& path, const std::string& text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file < 0) return errno;
  ssize_t n = 0;
  do n = ::write(file, text.data(), text.size());
  while (n < 0 && errno == EINTR);
  const int reason = n == static_cast<ssize_t>(text.size()) ? 0 : (n < 0 ? errno : ENOSPC);
  ::close(file);
  return reason;
}

}  // namespace

CsvMonitor::CsvMonitor(std::string folder, std::int64_t begin) : folder_(std::move(folder)) {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) fail(ErrorKind::environment, "csv_monitor: {}: {}", printable(folder_), error.message());
  if (begin == 0) return;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const std::string path = entry.path().string();
    if (!entry.path().filename().string().starts_with("Train_Samples_") || entry.path().extension() != ".csv") continue;
    const std::uintmax_t kept = kept_bytes(path, begin);
    fs::resize_file(path, kept, error);
    if (error) fail(ErrorKind::environment, "csv_monitor: {}: {}", printable(path), error.message());
    if (kept > 0) begun_.insert(path);
  }
}

std::string CsvMonitor::file_of(const std::string& tag) const {
  std::string name = tag;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '/' || c == ' '; }, '_');
  return folder_ + "/" + name + ".csv";
}

int CsvMonitor::write(std::span<const ScalarEvent> events) {
  int reason = 0;
  for (const ScalarEvent& event : events) {
    const std::string path = file_of(event.tag);
    std::string rows;
    if (!begun_.contains(path)) rows = fmt::format("step,{}{}", event.tag.substr(event.tag.rfind('/') + 1), line_end);
    rows += fmt::format("{},{}{}", event.x, event.value, line_end);
    const int failed = append(path, rows);
    if (failed == 0)
      begun_.insert(path);
    else
      reason = failed;
  }
  return reason;
}

}  // namespace lockstep::run
