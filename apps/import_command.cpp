#include "apps/import_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>

#include "config/scalar.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
#include "job/job.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

/// The file's name as a run's.
std::string run_name(const std::string& path) {
  std::string name = fs::path(path).stem().string();
  std::replace_if(
      name.begin(), name.end(),
      [](unsigned char c) { return std::isalnum(c) == 0 && c != '.' && c != '_' && c != '-'; }, '_');
  return name.empty() || name[0] == '.' ? "imported" : name;
}

job::LoadedJob load(const std::string& path, const std::vector<std::string>& overrides) {
  if (!fs::is_regular_file(path))
    fail(ErrorKind::config, "{}: {}; give a DeepSpeed configuration, such as ds_config.json", printable(path),
         fs::exists(path) ? "it is no file" : "there is no such file");
  const std::string job =
      fmt::format("model: {{type: mlp}}\ndata: {{type: clusters}}\nrun: {{name: {}, steps: 1000}}\ndeepspeed: {}\n",
                  config::to_yaml(run_name(path)), config::to_yaml(fs::absolute(path).lexically_normal().string()));
  return job::load_job_text("lockstep import", job, "/", overrides);
}

}  // namespace

std::string import_text(const std::string& path, const std::vector<std::string>& overrides) {
  job::LoadedJob job = load(path, overrides);
  job.deepspeed->path = path;
  return job::imported_yaml(job);
}

int import_command(const std::string& path, const std::vector<std::string>& overrides) {
  for (const std::string& warning : load(path, overrides).warnings) fmt::print(stderr, "{}\n", warning);
  const std::string text = import_text(path, overrides);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace lockstep
