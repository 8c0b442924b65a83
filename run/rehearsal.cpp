#include "run/rehearsal.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <thread>

#include "core/error.hpp"
#include "core/text.hpp"
#include "run/attempt.hpp"
#include "run/launcher.hpp"
#include "run/run_folder.hpp"
#include "run/twin_runs.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using nlohmann::json;

/// A killed job's processes are gone after it, or live on.
constexpr std::chrono::seconds death(1);
/// A busy machine may take so long to strike when its time has come.
constexpr double late_seconds = 1.0;
/// About every second kill of a save meets one that takes so much longer between its tensors and its name.
constexpr double longer_save = 0.2;

double seconds_since(Clock::time_point then) { return std::chrono::duration<double>(Clock::now() - then).count(); }

std::string log_tail(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  std::string text;
  for (std::size_t i = lines.size() - std::min<std::size_t>(lines.size(), 8); i < lines.size(); ++i)
    text += "\n  | " + printable(lines[i]);
  return text;
}

class Rehearser {
 public:
  explicit Rehearser(const RehearsalOptions& options)
      : options_(options), job_(job::load_job(options.job, options.overrides).config), random_(options.seed) {
    require_fit();
    result_.folder = options.folder.empty() ? run_folder(job_) + ".drill" : options.folder;
    const auto mpirun = program_in_path("mpirun");
    if (!mpirun)
      fail(ErrorKind::environment,
           "drill: there is no mpirun in PATH; a rehearsal starts the job with it: apt-get install openmpi-bin");
    mpirun_ = *mpirun;
    program_ = fs::read_symlink("/proc/self/exe").string();
    result_.steps = job_.run.steps;
    make_folder();
  }

  Rehearsal rehearse() {
    say(fmt::format("drill     {} on {}, {}, seed {}; in {}", printable(options_.job), counted(options_.ranks, "rank"),
                    counted(options_.kills, "kill"), options_.seed, printable(result_.folder)));
    run_undisturbed();
    while (static_cast<std::int64_t>(result_.kills.size()) < options_.kills && result_.passed())
      disturb(static_cast<std::int64_t>(result_.kills.size()));
    if (result_.passed()) finish();
    if (result_.passed()) compare();
    if (result_.passed()) fs::remove_all(result_.folder);
    return std::move(result_);
  }

 private:
  void require_fit() const {
    if (under_launcher())
      fail(ErrorKind::config, "drill: it starts mpirun itself; call it without: lockstep drill {} -n {}",
           printable(options_.job), options_.ranks);
    if (job_.run.checkpoint.every == 0)
      fail(ErrorKind::config,
           "drill: run.checkpoint.every is 0, so the job saves at its end alone and every kill would send it back to "
           "the start; give it a number of steps");
    if (job_.run.determinism == "fast")
      fail(ErrorKind::config,
           "drill: run.determinism: fast promises no equal bits to compare; add --set run.determinism=exact");
    if (job_.micro_batch_is_auto())
      fail(ErrorKind::config,
           "drill: train_micro_batch_size_per_gpu: auto is timed anew in each run, and another micro-batch has other "
           "bits; give the number that `lockstep train` says it chose");
  }

  void make_folder() const {
    std::error_code error;
    if (fs::exists(fs::symlink_status(result_.folder, error)))
      fail(ErrorKind::config,
           "drill: {} is there already, and nothing is overwritten; remove it, or give another folder with --dir",
           printable(result_.folder));
    fs::create_directories(result_.folder, error);
    if (error)
      fail(ErrorKind::environment, "drill: {} cannot be made: {}; give another folder with --dir",
           printable(result_.folder), error.message());
  }

  [[nodiscard]] std::string run_of(const std::string& name) const { return result_.folder + "/" + name; }
  [[nodiscard]] std::string log() const { return result_.folder + "/log.txt"; }
  void say(const std::string& text) const {
    if (options_.say) options_.say(text);
  }
  std::uint64_t below(std::int64_t end) { return end <= 1 ? 0 : random_() % static_cast<std::uint64_t>(end); }
  bool coin() { return below(2) == 1; }
  void pause(double at_most) {
    std::this_thread::sleep_for(std::chrono::duration<double>(at_most * static_cast<double>(below(1000)) / 1000));
  }

  [[nodiscard]] ChildJob::Options child(const std::string& name, bool long_save) const {
    ChildJob::Options child{.mpirun = mpirun_, .ranks = options_.ranks, .command = {}, .log = log()};
    child.command = {program_, "train", options_.job};
    for (const std::string& override : options_.overrides)
      child.command.insert(child.command.end(), {"--set", override});
    for (const std::string& own : {"run.name=" + name, "run.output_dir=" + result_.folder})
      child.command.insert(child.command.end(), {"--set", own});
    child.command.insert(child.command.end(), {"--resume", "auto"});
    child.environment["LOCKSTEP_DRILL"] = std::nullopt;
    if (long_save) child.environment["LOCKSTEP_DRILL"] = fmt::format("slow_save@seconds={}", longer_save);
    if (name == undisturbed) child.environment["LOCKSTEP_FAULT"] = std::nullopt;
    return child;
  }

  /// Learns what the job does, how long its start and its saves take, and whether it is long enough.
  void run_undisturbed() {
    const std::string run = run_of(undisturbed), metrics = run + "/metrics.jsonl";
    const auto began = Clock::now();
    ChildJob job(child(undisturbed, false));
    bool saving = false;
    Clock::time_point save_began;
    while (!job.ended()) {
      if (start_seconds_ == 0 && size_of(metrics) > 0) start_seconds_ = seconds_since(began);
      const bool saves = !partial_saves(run).empty();
      if (saves && !saving) save_began = Clock::now();
      if (!saves && saving) result_.save_seconds.push_back(seconds_since(save_began));
      saving = saves;
      std::this_thread::sleep_for(look_every);
    }
    if (job.exit_code() != 0) {
      const int code = job.exit_code();
      const std::string tail = log_tail(log());
      std::error_code ignored;
      fs::remove_all(result_.folder, ignored);
      fail(code >= 2 && code <= 7 ? ErrorKind{code} : ErrorKind::environment,
           "drill: the undisturbed run ended with exit code {}:{}", code, tail);
    }
    std::vector<double> times;
    for (const json& line : metrics_of(run))
      if (line.contains("step_ms")) times.push_back(line["step_ms"].get<double>() * 1e-3);
    if (times.empty()) fail(ErrorKind::internal, "drill: the undisturbed run has no metrics");
    std::ranges::sort(times);
    result_.step_seconds = times[times.size() / 2];
    // The fastest steps say how far a job may come before it is struck.
    const double fast = times[times.size() / 10];
    const std::int64_t needed = steps_for_rehearsal(job_.run.checkpoint.every, fast);
    if (result_.steps < needed) {
      std::error_code ignored;
      fs::remove_all(result_.folder, ignored);
      fail(ErrorKind::config,
           "drill: the job is too short: {} of {:.3g} ms with a checkpoint every {} could end before they are struck; "
           "it "
           "needs {}: --set run.steps={}, or fewer steps between checkpoints",
           counted(result_.steps, "step"), fast * 1e3, job_.run.checkpoint.every, counted(needed, "step"), needed);
    }
    last_target_ = result_.steps - needed + job_.run.checkpoint.every;
    say(fmt::format("reference {} in {:.1f} s, {:.3g} ms a step, {:.2f} s to the first", counted(result_.steps, "step"),
                    seconds_since(began), result_.step_seconds * 1e3, start_seconds_));
  }

  /// What kill number `i` aims at. The first four are one of each kind, so that none is missing by chance.
  Kill aim(std::int64_t i) {
    if (i == 0) {
      first_four_ = {Kill{KillMoment::training, false}, Kill{KillMoment::training, true},
                     Kill{KillMoment::saving, false}, Kill{KillMoment::saving, true}};
      for (std::size_t k = 3; k > 0; --k)
        std::swap(first_four_[k], first_four_[below(static_cast<std::int64_t>(k) + 1)]);
    }
    if (i < 4) return first_four_[static_cast<std::size_t>(i)];
    constexpr std::array moments = {KillMoment::starting, KillMoment::training, KillMoment::training,
                                    KillMoment::saving, KillMoment::saving};
    return {.moment = moments[below(moments.size())], .of_launcher = coin()};
  }

  /// Starts the job, strikes it, and looks at what is left.
  void disturb(std::int64_t i) {
    const Kill aimed = aim(i);
    const std::int64_t every = job_.run.checkpoint.every;
    const bool long_save = aimed.moment == KillMoment::saving && (i < 4 || coin());
    Attempt attempt(run_of(disturbed), child(disturbed, long_save));
    const bool alive = await_moment(attempt, aimed, every * (last_target_ * i / options_.kills / every), long_save);
    // Who is to be struck was looked up while the job began: now every moment counts.
    std::optional<pid_t> victim;
    if (!aimed.of_launcher && !ranks_.empty()) {
      const auto chosen = static_cast<std::ptrdiff_t>(below(static_cast<std::int64_t>(ranks_.size())));
      victim = std::next(ranks_.begin(), chosen)->second;
    }
    if (!alive || !attempt.job().kill_one(victim)) {
      (void)attempt.job().wait_gone(death);
      if (attempt.job().exit_code() == 0) return begin_anew();
      return complain(fmt::format("attempt {} ended by itself with exit code {} before it was killed:{}", i + 1,
                                  attempt.job().exit_code(), log_tail(log())));
    }
    const auto struck = Clock::now();
    const std::vector<pid_t> late = attempt.job().wait_gone(death);
    if (!late.empty())
      complain(fmt::format("kill {}: still there after mpirun's end: process {}", i + 1, fmt::join(late, ", ")));
    await_lock();
    attempt.notice_start();
    take_stock(attempt);
    Kill done{.moment = KillMoment::training, .of_launcher = !victim};
    if (!attempt.first())
      done.moment = KillMoment::starting;
    else if (attempt.saves())
      done.moment = KillMoment::saving;
    result_.kills.push_back(done);
    const ChildJob::Leftovers left = attempt.job().sweep();
    if (left.lockstep_blocks > 0 && done.moment != KillMoment::starting)
      complain(fmt::format("kill {}: shared memory of Lockstep was left: {}", i + 1, left.first_own));
    result_.swept += left;
    killed_at_ = struck;
    reached_ = attempt.step();
    constexpr std::array names = {"starting", "training", "saving"};
    say(fmt::format("kill {:4}  step {}, {}, {}", i + 1, reached_, names[static_cast<std::size_t>(done.moment)],
                    done.of_launcher ? "mpirun" : "a rank"));
  }

  /// The job came to its end before it was struck, on a machine that is busy with other things: what there is must be
  /// right, and another run is disturbed from its beginning.
  void begin_anew() {
    if (++result_.completed > options_.kills + 3)
      return complain(
          fmt::format("{} came to their ends before they were struck: this machine is too busy to strike in "
                      "time; give the job more steps: --set run.steps={}",
                      counted(result_.completed, "run"), 2 * result_.steps));
    compare_runs();
    if (!result_.passed()) return;
    fs::remove_all(run_of(disturbed));
    killed_at_.reset();
    say("          the run came to its end before it was struck; it is as it should be, and another one begins");
  }

  /// Lets the attempt run to where it is to be struck. `from`: steps by which the run keeps pace with its kills.
  bool await_moment(Attempt& attempt, const Kill& aimed, std::int64_t from, bool long_save) {
    const std::int64_t every = job_.run.checkpoint.every;
    if (aimed.moment == KillMoment::starting) {
      const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
                                          start_seconds_ * static_cast<double>(below(1000)) / 1000));
      const bool alive = attempt.wait_until([&] { return Clock::now() >= end; });
      know_processes(attempt);
      return alive;
    }
    if (!attempt.wait_until([&] { return attempt.first().has_value(); })) return false;
    know_processes(attempt);
    const std::int64_t base = std::max(*attempt.first(), from);
    if (aimed.moment == KillMoment::training) {
      const std::int64_t target = base + 1 + static_cast<std::int64_t>(below(every - 1));
      if (!attempt.wait_until([&] { return attempt.step() >= target; })) return false;
      pause(std::min(result_.step_seconds, 1.0));
      return true;
    }
    if (!attempt.wait_until([&] { return attempt.step() >= base + every - 1; })) return false;
    if (!attempt.wait_until([&] { return attempt.saves(); })) return false;
    pause(typical_save() + (long_save ? longer_save : 0));
    return true;
  }

  void know_processes(Attempt& attempt) {
    ranks_ = attempt.job().ranks();
    attempt.job().look();
  }

  [[nodiscard]] double typical_save() const {
    if (result_.save_seconds.empty()) return 0;
    std::vector<double> times = result_.save_seconds;
    std::ranges::sort(times);
    return times[times.size() / 2];
  }

  /// What the kills before this attempt cost, once it has gone on.
  void take_stock(const Attempt& attempt) {
    if (!killed_at_ || !attempt.first()) return;
    result_.lost_steps.push_back(std::max<std::int64_t>(0, reached_ - *attempt.first()));
    if (attempt.went_on())
      result_.recovery_seconds.push_back(std::chrono::duration<double>(*attempt.went_on() - *killed_at_).count());
    killed_at_.reset();
  }

  void finish() {
    Attempt attempt(run_of(disturbed), child(disturbed, false));
    (void)attempt.wait_until([] { return false; });
    take_stock(attempt);
    if (!attempt.job().wait_gone(death).empty()) complain("after the last attempt a process lived on");
    if (attempt.job().exit_code() != 0)
      complain(fmt::format("the last attempt ended with exit code {}:{}", attempt.job().exit_code(), log_tail(log())));
  }

  void compare() {
    const auto hits = [&](KillMoment moment) {
      return std::ranges::count_if(result_.kills, [&](const Kill& kill) { return kill.moment == moment; });
    };
    if (options_.kills >= 4 && (hits(KillMoment::training) == 0 || hits(KillMoment::saving) == 0))
      complain("the kills did not strike both training and saving; give more of them, or another --seed");
    compare_runs();
  }

  void compare_runs() {
    const Twins twins = compare_twins(run_of(undisturbed), run_of(disturbed), result_.steps);
    result_.equal_lines = twins.equal_lines;
    for (const std::string& failure : twins.failures) complain(failure);
    const std::vector<std::string> expected = {fmt::format(".{}.lock", disturbed), fmt::format(".{}.lock", undisturbed),
                                               disturbed, "log.txt", undisturbed};
    if (const std::vector<std::string> found = names_in(result_.folder); found != expected)
      complain(
          fmt::format("{} holds {}", printable(result_.folder), printable(fmt::format("{}", fmt::join(found, " ")))));
    await_lock();
  }

  /// A thread of a killed process that waits for a slow disk holds the lock until that answers.
  void await_lock() {
    if (!fs::exists(lock_path(run_of(disturbed)))) return;  // killed before it took it
    try {
      const RunLock lock(run_of(disturbed), std::chrono::seconds(60));
    } catch (const Error& error) {
      complain(std::string("the run's lock is still held: ") + error.what());
    }
  }

  void complain(const std::string& text) { result_.failures.push_back(text); }

  static constexpr const char* disturbed = "disturbed";
  static constexpr const char* undisturbed = "undisturbed";

  const RehearsalOptions& options_;
  job::JobConfig job_;
  std::mt19937_64 random_;
  std::string mpirun_, program_;
  Rehearsal result_;
  double start_seconds_ = 0;
  std::map<int, pid_t> ranks_;    ///< of the attempt at hand
  std::int64_t last_target_ = 0;  ///< the step by which the last kill aims
  std::array<Kill, 4> first_four_;
  std::optional<Clock::time_point> killed_at_;  ///< the last kill that no attempt has gone on from yet
  std::int64_t reached_ = 0;                    ///< steps whose metrics were written by then
};

}  // namespace

std::int64_t steps_for_rehearsal(std::int64_t every, double step_seconds) {
  return 3 * every + static_cast<std::int64_t>(std::ceil(late_seconds / std::max(step_seconds, 1e-6)));
}

Rehearsal rehearse(const RehearsalOptions& options) { return Rehearser(options).rehearse(); }

}  // namespace lockstep::run
