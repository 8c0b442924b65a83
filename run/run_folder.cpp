#include "run/run_folder.hpp"

#include <filesystem>

namespace lockstep::run {

namespace fs = std::filesystem;

std::string run_folder(const job::JobConfig& job) { return (fs::path(job.run.output_dir) / job.run.name).string(); }

}  // namespace lockstep::run
