#include "run/attempt.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/json.hpp"
#include "run/run_starts.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;

/// Whether one of `now` was not there before.
bool has_new(const std::vector<std::string>& now, const std::vector<std::string>& before) {
  return std::ranges::any_of(now,
                             [&](const std::string& name) { return std::ranges::find(before, name) == before.end(); });
}

}  // namespace

std::int64_t last_step(const std::string& metrics) {
  constexpr std::streamoff tail = 1 << 16;
  std::ifstream in(metrics, std::ios::binary | std::ios::ate);
  if (!in) return 0;
  const std::streamoff size = in.tellg();
  in.seekg(std::max<std::streamoff>(0, size - tail));
  std::string text(static_cast<std::size_t>(std::min(size, tail)), '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  const std::size_t end = text.rfind('\n');
  if (end == std::string::npos || end == 0) return 0;
  const std::size_t begin = text.rfind('\n', end - 1);
  const nlohmann::json line = parse_json(text.substr(begin == std::string::npos ? 0 : begin + 1, end - begin - 1));
  return line.is_object() && line.contains("step") && line["step"].is_number_integer()
             ? line["step"].get<std::int64_t>()
             : 0;
}

std::uintmax_t size_of(const std::string& path) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  return error ? 0 : size;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    names.push_back(at->path().filename().string());
  std::ranges::sort(names);
  return names;
}

std::vector<std::string> partial_saves(const std::string& run) {
  std::vector<std::string> names = names_in(run + "/checkpoints");
  std::erase_if(names, [](const std::string& name) { return name.find(".partial-") == std::string::npos; });
  return names;
}

Attempt::Attempt(const std::string& run, const ChildJob::Options& job)
    : run_(run), starts_bytes_(size_of(run + "/starts.jsonl")), partial_before_(partial_saves(run)), job_(job) {}

bool Attempt::wait_until(const std::function<bool()>& come) {
  for (;; std::this_thread::sleep_for(look_every)) {
    const bool over = job_.ended();
    notice_start();
    if (over) return false;
    if (come()) return true;
  }
}

void Attempt::notice_start() {
  if (!first_ && size_of(run_ + "/starts.jsonl") > starts_bytes_) {
    const std::vector<RunStart> starts = read_starts(run_);
    if (!starts.empty()) first_ = starts.back().step;
  }
  if (first_ && !went_on_ && step() > *first_) went_on_ = Clock::now();
}

bool Attempt::saves() const { return has_new(partial_saves(run_), partial_before_); }

}  // namespace lockstep::run
