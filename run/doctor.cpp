#include "run/doctor.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "comm/mpi.hpp"
#include "comm/shared_memory.hpp"
#include "core/error.hpp"
#include "core/isa.hpp"
#include "core/text.hpp"
#include "kernels/cuda_loader.hpp"
#include "run/affinity.hpp"
#include "run/free_memory.hpp"
#include "run/launcher.hpp"

extern char** environ;

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

std::string human(double bytes) { return human_bytes(bytes); }

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// Of a line "key : value" of /proc/cpuinfo, the first one's value.
std::string cpu_info(const std::string& root, const std::string& key) {
  std::ifstream file(root + "/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key))
      if (const std::size_t colon = line.find(':'); colon != std::string::npos && colon + 2 <= line.size())
        return line.substr(colon + 2);
  return {};
}

bool has_flag(const std::string& flags, const std::string& flag) {
  return (" " + flags + " ").find(" " + flag + " ") != std::string::npos;
}

Finding cpus(const DoctorOptions& options) {
  const int allowed = allowed_cpus(), host = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  const std::string model = cpu_info(options.root, "model name");
  Finding finding{.what = "CPUs", .text = fmt::format("{}{}{}", allowed, model.empty() ? "" : " of ", model)};
  if (allowed < host) {
    finding.kind = Finding::Kind::note;
    finding.text += fmt::format("; this process may use {} of the machine's {}", allowed, host);
    finding.remedy = "a launcher's binding, taskset or a container's cpuset leaves so many; without it all would train";
  }
  return finding;
}

Finding instruction_sets(const DoctorOptions& options) {
  const std::string flags = cpu_info(options.root, "flags");
  const Bf16Features features = {.isa = current_isa(),
                                 .avx512_bf16 = has_flag(flags, "avx512_bf16"),
                                 .amx_bf16 = has_flag(flags, "amx_bf16"),
                                 .amd = cpu_info(options.root, "vendor_id") == "AuthenticAMD"};
  const char* const asked = std::getenv("LOCKSTEP_BF16");
  Finding finding{
      .what = "instruction set",
      .text = fmt::format("{}{}; bf16 products {}", to_string(current_isa()),
                          features.amx_bf16      ? ", AMX"
                          : features.avx512_bf16 ? ", AVX512_BF16, no AMX"
                                                 : "",
                          expectation(asked != nullptr ? current_bf16_products() : fastest_bf16_products(features)))};
  if (std::getenv("LOCKSTEP_ISA") != nullptr || asked != nullptr) {
    finding.kind = Finding::Kind::note;
    finding.remedy = "LOCKSTEP_ISA or LOCKSTEP_BF16 asks for it; unset them for the best one";
  }
  return finding;
}

Finding memory(const DoctorOptions& options) {
  const FreeMemory free = free_memory(options.root);
  if (free.host == FreeMemory::unlimited)
    return {Finding::Kind::note, "memory", "how much is free cannot be read", "/proc/meminfo is missing"};
  Finding finding{.what = "memory",
                  .text = fmt::format("{} free ({})", human(static_cast<double>(free.host)), free.host_limit)};
  const std::string pages = first_line(options.root + "/sys/kernel/mm/transparent_hugepage/enabled");
  if (pages.find("[never]") != std::string::npos) {
    finding.kind = Finding::Kind::note;
    finding.text += ", no huge pages";
    finding.remedy =
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (as root): the optimizer's pass gains up to a "
        "fifth";
  }
  return finding;
}

/// A command's exit code and output, or nothing if it could not be started. Killed with its group after `patience`.
struct Outcome {
  int code = 0;
  std::string output;
};
std::optional<Outcome> run_command(const std::vector<std::string>& words, std::chrono::seconds patience) {
  std::string name = (fs::temp_directory_path() / "lockstep-doctor-XXXXXX").string();
  const int file = mkostemp(name.data(), O_CLOEXEC);
  if (file < 0) return std::nullopt;
  unlink(name.c_str());
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, file, 1);
  posix_spawn_file_actions_adddup2(&actions, file, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t child = -1;
  const int failed = posix_spawnp(&child, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  Outcome outcome;
  if (failed == 0) {
    int status = 0;
    const auto end = Clock::now() + patience;
    while (waitpid(child, &status, WNOHANG) == 0) {
      if (Clock::now() > end) {
        kill(-child, SIGKILL);
        waitpid(child, &status, 0);
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    char text[4096];
    for (off_t at = 0;;) {
      const ssize_t count = pread(file, text, sizeof(text), at);
      if (count <= 0) break;
      outcome.output.append(text, static_cast<std::size_t>(count));
      at += count;
    }
  }
  close(file);
  if (failed != 0) return std::nullopt;
  return outcome;
}

Finding mpi(const DoctorOptions& options) {
  const std::optional<Outcome> version = run_command({"mpirun", "--version"}, std::chrono::seconds(10));
  if (!version || version->code != 0)
    return {Finding::Kind::problem, "MPI", "there is no mpirun on the PATH, so a job has one process",
            "install Open MPI (Debian: openmpi-bin), or use ranks that are threads: comm: {backend: local, ranks: 2}"};
  Finding finding{.what = "MPI", .text = version->output.substr(0, version->output.find('\n'))};
  if (!options.launch || under_launcher()) return finding;  // a launcher does not start another one
  const std::optional<Outcome> two = run_command({"mpirun", "-n", "2", "true"}, std::chrono::seconds(20));
  if (two && two->code == 0) {
    finding.text += ", starts 2 ranks";
    return finding;
  }
  finding.kind = Finding::Kind::problem;
  finding.text += ", but `mpirun -n 2 true` fails";
  const std::string output = two ? two->output : "";
  if (output.find("as root") != std::string::npos || output.find("allow-run-as-root") != std::string::npos)
    finding.remedy = "it does not start as root: export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1";
  else if (output.find("slots") != std::string::npos)
    finding.remedy =
        "it counts fewer than 2 cores: mpirun --oversubscribe, or export OMPI_MCA_rmaps_base_oversubscribe=1";
  else
    finding.remedy =
        "run it by hand to see why; where hosts have several networks, name one: --mca btl_tcp_if_include eth0";
  return finding;
}

Finding shared_memory(const DoctorOptions& options) {
  struct statvfs info {};
  if (statvfs((options.root + "/dev/shm").c_str(), &info) != 0)
    return {Finding::Kind::problem, "/dev/shm", "is not there, so ranks of one host exchange through files",
            "mount -t tmpfs tmpfs /dev/shm"};
  const double total = static_cast<double>(info.f_blocks) * static_cast<double>(info.f_frsize);
  const double free = static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize);
  Finding finding{.what = "/dev/shm", .text = fmt::format("{} of {} free", human(free), human(total))};
  if (free < 128.0 * (1 << 20)) {
    finding.kind = Finding::Kind::problem;
    finding.remedy =
        "ranks of one host talk through it, and MPI takes some 4 MiB for each: docker run --shm-size=1g, or mount -o "
        "remount,size=1g /dev/shm";
  }
  return finding;
}

/// What ranks of one host exchange gradients through: tried with a block of this process's own.
Finding shared_blocks(const DoctorOptions& options) {
  constexpr std::size_t bytes = std::size_t{2} << 20;
  std::string why;
  const auto block = comm::SharedMemory::make(bytes, why);
  if (block != nullptr) {
    const std::array<comm::SharedHandle, 2> handles = {block->handle(), block->handle()};
    if (block->map_peers(handles, 0, why)) {
      const std::string pages = first_line(options.root + "/sys/kernel/mm/transparent_hugepage/shmem_enabled");
      const bool huge = pages.find("[advise]") != std::string::npos || pages.find("[always]") != std::string::npos ||
                        pages.find("[within_size]") != std::string::npos;
      return {.what = "ranks of a host",
              .text = fmt::format("share memory (comm.intra_host: auto), {} huge pages", huge ? "in" : "without")};
    }
  }
  return {Finding::Kind::note, "ranks of a host", fmt::format("exchange messages: no shared memory ({})", why),
          "/proc must show the files of one's own processes, and memfd_create be allowed"};
}

Finding run_folder_finding(const DoctorOptions& options) {
  Finding finding{.what = "run folder"};
  std::error_code error;
  const std::string folder = fs::absolute(options.folder, error).lexically_normal().string();
  std::string name = folder + "/.lockstep-doctor-XXXXXX";
  const int file = mkostemp(name.data(), O_CLOEXEC);
  if (file < 0)
    return {Finding::Kind::problem, "run folder", fmt::format("{} cannot be written: {}", folder, std::strerror(errno)),
            "start jobs in a folder of yours, or set run.output_dir"};
  const bool locks = flock(file, LOCK_EX | LOCK_NB) == 0;
  const char zeros[4096] = {};
  const auto begin = Clock::now();
  const bool written = write(file, zeros, sizeof(zeros)) == static_cast<ssize_t>(sizeof(zeros)) && fsync(file) == 0;
  const double ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  close(file);
  unlink(name.c_str());
  struct statvfs info {};
  const bool known = statvfs(folder.c_str(), &info) == 0;
  const double free = known ? static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize) : 0;
  finding.text = fmt::format("{} free, {}, a flush takes {:.1f} ms ({})", human(free),
                             locks ? "locks work" : "no locks", ms, folder);
  if (!written) {
    finding.kind = Finding::Kind::problem;
    finding.remedy = "nothing can be written there: is the disk full?";
  } else if (!locks) {
    finding.kind = Finding::Kind::problem;
    finding.remedy =
        "two jobs on one run would not notice each other: mount with locks (NFS: without nolock), or set "
        "run.output_dir "
        "elsewhere";
  }
  return finding;
}

std::vector<Finding> gpus() {
  if (!cuda_is_available()) {
    std::string why;
    try {
      (void)load_cuda_module();
    } catch (const Error& failure) {
      why = failure.what();
    }
    return {{Finding::Kind::note, "GPU", "none that can be used", why}};
  }
  std::vector<Finding> found;
  const CudaModule& module = load_cuda_module();
  for (int i = 0; i < module.device_count(); ++i) {
    try {
      found.push_back({.what = "GPU", .text = module.make_device(i)->name()});
    } catch (const Error& failure) {
      found.push_back({Finding::Kind::problem, "GPU", fmt::format("number {} cannot be opened", i), failure.what()});
    }
  }
  return found;
}

}  // namespace

std::vector<Finding> examine(const DoctorOptions& options) {
  std::vector<Finding> findings = {
      cpus(options),          instruction_sets(options),  memory(options), mpi(options), shared_memory(options),
      shared_blocks(options), run_folder_finding(options)};
  for (Finding& gpu : gpus()) findings.push_back(std::move(gpu));
  return findings;
}

std::string to_text(const std::vector<Finding>& findings) {
  static constexpr const char* marks[] = {"ok", "note", "PROBLEM"};
  std::string text;
  for (const Finding& finding : findings) {
    text += fmt::format("{:<8} {:<16} {}\n", marks[static_cast<int>(finding.kind)], finding.what, finding.text);
    if (!finding.remedy.empty()) text += fmt::format("{:<26}-> {}\n", "", finding.remedy);
  }
  const auto problems = std::count_if(findings.begin(), findings.end(),
                                      [](const Finding& finding) { return finding.kind == Finding::Kind::problem; });
  return text + (problems == 0 ? "\nEverything that training needs is here.\n"
                               : fmt::format("\n{} to mend; the arrows say how.\n", counted(problems, "problem")));
}

int exit_code_of(const std::vector<Finding>& findings) {
  for (const Finding& finding : findings)
    if (finding.kind == Finding::Kind::problem) return exit_code(ErrorKind::environment);
  return 0;
}

}  // namespace lockstep::run
