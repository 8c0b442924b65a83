#include "run/run_starts.hpp"

#include <fmt/chrono.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/json.hpp"
#include "core/text.hpp"
#include "kernels/cuda_loader.hpp"

namespace lockstep::run {
namespace {

using nlohmann::json;

constexpr const char* file_name = "/starts.jsonl";

std::string now() {
  const auto time = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(time));
}

}  // namespace

void append_start(const std::string& run_folder, RunStart start) {
  if (start.time.empty()) start.time = now();
  if (start.version.empty()) start.version = LOCKSTEP_VERSION;
  if (start.build.empty()) start.build = build_id();
  const json object = {{"step", start.step},   {"time", start.time},   {"version", start.version},
                       {"build", start.build}, {"ranks", start.ranks}, {"batch", start.batch},
                       {"model", start.model}, {"data", start.data}};
  const std::string path = run_folder + file_name;
  std::ofstream out(path, std::ios::binary | std::ios::app);
  out << object.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
  if (!out.flush()) fail(ErrorKind::environment, "{}: cannot be written: {}", printable(path), std::strerror(errno));
}

std::vector<RunStart> read_starts(const std::string& run_folder) {
  std::vector<RunStart> starts;
  std::ifstream in(run_folder + file_name, std::ios::binary);
  for (std::string line; std::getline(in, line);) {
    const json object = parse_json(line);
    if (!object.is_object() || !object.contains("step") || !object["step"].is_number_integer()) continue;
    const auto text = [&](const char* key) {
      const auto found = object.find(key);
      return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    starts.push_back({.step = object["step"].get<std::int64_t>(),
                      .time = text("time"),
                      .version = text("version"),
                      .build = text("build"),
                      .ranks = text("ranks"),
                      .batch = text("batch"),
                      .model = text("model"),
                      .data = text("data")});
  }
  return starts;
}

}  // namespace lockstep::run
