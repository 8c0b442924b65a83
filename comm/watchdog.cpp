#include "comm/watchdog.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include "comm/deadline.hpp"
#include "core/error.hpp"
#include "core/log.hpp"

namespace lockstep::comm {
namespace {

constexpr std::chrono::milliseconds look{100};

/// A wait that passed its deadline speaks by itself, after a roll call and with what it wrote; then it is the
/// watchdog's turn.
constexpr Seconds patience_with_waits{5};

/// In these the library waits by itself, without a deadline.
bool waits_by_itself(Phase phase) {
  return phase == Phase::starting || phase == Phase::connecting || phase == Phase::ending;
}

std::string_view place_in(Phase phase) {
  if (phase == Phase::connecting) return "the making of communicators after MPI_Init";
  return phase == Phase::starting ? "MPI_Init" : "MPI_Finalize";
}

/// What a rank is in, since when; times in which this process was stopped do not count.
struct Stay {
  Phase phase = Phase::absent;
  std::uint64_t awaited = 0;
  Deadline warn, abort;
  bool warned = false;
};

}  // namespace

Watchdog::Watchdog(std::shared_ptr<FlightTable> table, Options options)
    : table_(std::move(table)), options_(std::move(options)), thread_([this] { run(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    stopped_.notify_one();
  }
  thread_.join();
}

void Watchdog::use_folder(const std::string& folder) {
  const std::lock_guard lock(mutex_);
  options_.folder = folder;
}

std::string Watchdog::after_hang() {
  std::string text;
  const std::lock_guard lock(mutex_);
  for (int place = 0; place < table_->size(); ++place) {
    const std::uint64_t number = table_->track(place).awaited();
    if (number == 0) continue;
    const std::string missing = table_->missing_from(number);
    if (!missing.empty()) text = "\nmissing on this host: " + missing;
  }
  return text + dump();
}

/// With the mutex held.
std::string Watchdog::dump() {
  if (options_.folder.empty() || !table_->claim_dump()) return {};
  std::error_code ignored;
  std::filesystem::create_directories(options_.folder, ignored);
  const std::string path = fmt::format("{}/hang-{}.txt", options_.folder, options_.host);
  std::ofstream out(path, std::ios::trunc);
  out << "The last collectives of the ranks of " << options_.host << " as the job was given up, oldest first.\n\n"
      << table_->text();
  out.close();
  if (!out) return fmt::format("\n{} could not be written", path);
  return fmt::format("\nthe last collectives of this host's ranks are in {}", path);
}

void Watchdog::end_process(const std::string& why) {
  if (table_->claim_end()) log::error("{}: {}{}", to_string(ErrorKind::hang), why, dump());
  std::fflush(nullptr);
  _exit(exit_code(ErrorKind::hang));
}

void Watchdog::run() {
  std::vector<std::optional<Stay>> stays(static_cast<std::size_t>(table_->size()));
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, look, [this] { return stop_; })) {
    for (int place = 0; place < table_->size(); ++place) {
      const FlightTrack& track = table_->track(place);
      auto& stay = stays[static_cast<std::size_t>(place)];
      if (track.process() != getpid()) continue;
      const Phase phase = track.phase();
      const std::uint64_t awaited = track.awaited();
      const bool waits = waits_by_itself(phase) || awaited != 0;
      if (!waits) {
        stay.reset();
        continue;
      }
      if (!stay || stay->phase != phase || stay->awaited != awaited) {
        const Seconds limit = phase == Phase::running ? options_.abort + patience_with_waits : options_.start;
        stay = Stay{phase, awaited, Deadline(options_.warn), Deadline(limit), options_.warn.count() <= 0};
      }
      const bool late = stay->warn.passed(), over = stay->abort.passed();
      if (!over && (stay->warned || !late)) continue;
      const bool collective = phase == Phase::running;
      std::string missing = collective ? table_->missing_from(awaited) : table_->missing_from(phase);
      if (missing.empty()) missing = "none of this host's ranks; another host's, or the network";
      const std::string what = collective ? fmt::format("collective number {}, {} (step {})", awaited,
                                                        describe(track.signature(awaited)), track.step())
                                          : std::string(place_in(phase));
      const std::string where = fmt::format("rank {} ({}) waits in {}", track.rank(), options_.host, what);
      const double limit = (collective ? options_.abort : options_.start).count();
      const std::string_view key = collective ? "comm.timeout_s" : "comm.start_timeout_s";
      if (over)
        end_process(
            fmt::format("{}, which did not return within {:g} s ({}). Missing: {}", where, limit, key, missing));
      stay->warned = true;
      if (table_->claim_warning(options_.warn.count()))
        log::warning("{} for more than {:g} s. Missing: {}; after {:g} s ({}) the job ends", where,
                     options_.warn.count(), missing, limit, key);
    }
  }
}

}  // namespace lockstep::comm
