#include "job/job.hpp"

#include "fuzz/target.hpp"
#include "fuzz/targets.hpp"

namespace lockstep::fuzz {
namespace {

/// Relative paths lead nowhere from here.
constexpr const char* folder = "/lockstep-fuzz-no-such-folder";

/// Each way of writing a job out reads as the same job.
void check_listings(const job::JobConfig& config) {
  for (const std::string& text : {job::effective_yaml(config), job::full_yaml(config), job::minimal_yaml(config)})
    promise(job::load_job_text("listing.yaml", text, folder).config == config, "a listing that loads to another job");
}

}  // namespace

void job(std::string_view input) {
  job::LoadedJob job;
  if (!accepts("input.yaml", [&] { job = job::load_job_text("input.yaml", std::string(input), folder); })) return;
  try {
    check_listings(job.config);
  } catch (const Error& error) {
    throw Finding(std::string("a listing that cannot be read: ") + error.what());
  }
}

}  // namespace lockstep::fuzz
