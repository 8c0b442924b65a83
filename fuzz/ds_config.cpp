#include "config/scalar.hpp"
#include "fuzz/target.hpp"
#include "fuzz/targets.hpp"
#include "job/job.hpp"

namespace lockstep::fuzz {

void ds_config(std::string_view input) {
  static InputFile file("ds_config.json");
  file.set(input);
  // What `lockstep import` makes of it.
  const std::string text = "model: {type: mlp}\ndata: {type: clusters}\nrun: {name: input, steps: 1000}\ndeepspeed: " +
                           config::to_yaml(file.path()) + "\n";
  job::LoadedJob job;
  if (!accepts("ds_config.json", [&] { job = job::load_job_text("import.yaml", text, "/"); })) return;
  (void)job::deepspeed_lines(job);
  try {
    promise(job::load_job_text("imported.yaml", job::imported_yaml(job), "/").config == job.config,
            "an imported file that loads to another job");
  } catch (const Error& error) {
    throw Finding(std::string("an imported file that cannot be read: ") + error.what());
  }
}

}  // namespace lockstep::fuzz
