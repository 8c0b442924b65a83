#include "comm/flight_recorder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <new>

#include "core/error.hpp"

namespace lockstep::comm {
namespace {

std::int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

std::uint64_t pack(const Signature& s) {
  return static_cast<std::uint64_t>(s.call) | static_cast<std::uint64_t>(s.dtype) << 8 |
         static_cast<std::uint64_t>(s.op) << 16 | static_cast<std::uint64_t>(static_cast<std::uint32_t>(s.root)) << 32;
}

Signature unpack(std::uint64_t what, std::uint64_t elements) {
  return {.call = static_cast<Call>(what & 0xff),
          .dtype = static_cast<DType>(what >> 8 & 0xff),
          .op = static_cast<std::uint8_t>(what >> 16 & 0xff),
          .root = static_cast<std::int32_t>(static_cast<std::uint32_t>(what >> 32)),
          .elements = elements};
}

/// The state letter of /proc/PID/stat: T stopped, Z over, 0 gone.
char state_of(int process) {
  std::ifstream in(fmt::format("/proc/{}/stat", process));
  std::string stat;
  std::getline(in, stat);
  const std::size_t name_end = stat.rfind(')');
  return name_end == std::string::npos || name_end + 2 >= stat.size() ? '\0' : stat[name_end + 2];
}

bool is_stopped(char state) { return state == 'T' || state == 't'; }
bool is_gone(char state) { return state == '\0' || state == 'Z' || state == 'X'; }

std::string_view word_for(char state) {
  if (is_stopped(state)) return "stopped; ";
  if (is_gone(state)) return "gone; ";
  return "";
}

const char* environment(const char* name) { return std::getenv(name); }

int number_in(const char* name) {
  const char* text = environment(name);
  return text == nullptr ? -1 : std::atoi(text);
}

}  // namespace

std::string_view to_string(Call call) noexcept {
  switch (call) {
    case Call::none:
      return "nothing";
    case Call::all_reduce:
      return "all_reduce";
    case Call::reduce_scatter:
      return "reduce_scatter";
    case Call::all_gather:
      return "all_gather";
    case Call::broadcast:
      return "broadcast";
    case Call::all_to_all:
      return "all_to_all";
    case Call::barrier:
      return "barrier";
  }
  return "unknown";
}

std::string describe(const Signature& signature) {
  std::string text(to_string(signature.call));
  if (signature.call == Call::none || signature.call == Call::barrier) return text;
  static constexpr std::string_view ops[] = {"sum", "max", "min"};
  if ((signature.call == Call::all_reduce || signature.call == Call::reduce_scatter) && signature.op < 3)
    text += fmt::format(" ({})", ops[signature.op]);
  if (signature.root >= 0) text += fmt::format(" from rank {}", signature.root);
  return text + fmt::format(" of {} x {}", signature.elements, lockstep::to_string(signature.dtype));
}

void FlightTrack::sit_down(int rank, int process, Phase phase) {
  process_.store(process, std::memory_order_release);
  rank_.store(rank, std::memory_order_release);
  enter(phase);
}

std::uint64_t FlightTrack::begin(const Signature& signature) {
  const std::uint64_t number = begun_.load(std::memory_order_relaxed) + 1;
  Line& line = ring_[number % lines];
  line.number.store(number, std::memory_order_relaxed);
  line.what.store(pack(signature), std::memory_order_relaxed);
  line.elements.store(signature.elements, std::memory_order_relaxed);
  line.left.store(0, std::memory_order_relaxed);
  line.entered.store(now_ns(), std::memory_order_relaxed);
  begun_.store(number, std::memory_order_release);
  return number;
}

void FlightTrack::begin_wait(std::uint64_t number) { awaited_.store(number, std::memory_order_release); }

void FlightTrack::end(std::uint64_t number) {
  Line& line = ring_[number % lines];
  if (line.number.load(std::memory_order_relaxed) == number) line.left.store(now_ns(), std::memory_order_relaxed);
  awaited_.store(0, std::memory_order_release);
}

Signature FlightTrack::signature(std::uint64_t number) const {
  const Line& line = ring_[number % lines];
  if (number == 0 || line.number.load(std::memory_order_acquire) != number) return {};
  return unpack(line.what.load(std::memory_order_relaxed), line.elements.load(std::memory_order_relaxed));
}

std::string FlightTrack::text(std::int64_t now) const {
  std::string text;
  const std::uint64_t last = begun();
  for (std::uint64_t number = last >= lines ? last - lines + 1 : 1; number <= last; ++number) {
    const Line& line = ring_[number % lines];
    if (line.number.load(std::memory_order_relaxed) != number) continue;
    const auto before = [&](std::int64_t then) { return static_cast<double>(now - then) * 1e-9; };
    const std::int64_t left = line.left.load(std::memory_order_relaxed);
    text += fmt::format("  {:>8}  {:<44} entered {:.6f} s ago, {}\n", number, describe(signature(number)),
                        before(line.entered.load(std::memory_order_relaxed)),
                        left != 0 ? fmt::format("left {:.6f} s ago", before(left)) : "under way");
  }
  return text;
}

struct FlightTable::Head {
  std::atomic<std::int32_t> mapped{0};
  std::atomic<bool> dumped{false};
  std::atomic<bool> ended{false};
  std::atomic<std::int64_t> warned{0};  ///< when; 0: never
  [[nodiscard]] FlightTrack* tracks() { return std::launder(reinterpret_cast<FlightTrack*>(this + 1)); }
};

// A new file is zeros, and zeros must be a valid table but for the few fields that sit_down() sets.
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

FlightTable::FlightTable(int ranks) : bytes_(sizeof(Head) + sizeof(FlightTrack) * static_cast<std::size_t>(ranks)) {
  void* memory = ::operator new(bytes_, std::align_val_t(alignof(FlightTrack)));
  head_ = new (memory) Head;
  for (int r = 0; r < ranks; ++r)
    new (reinterpret_cast<std::byte*>(head_ + 1) + sizeof(FlightTrack) * static_cast<std::size_t>(r)) FlightTrack;
  size_ = ranks;
}

/// A job that was killed while it started left its table's name. A job that is still starting after an hour loses the
/// view of its late ranks and nothing else.
static void sweep_tables() {
  constexpr auto old = std::chrono::hours(1);
  const std::string own = fmt::format("lockstep-ranks-{}-", getuid());
  std::error_code error;
  for (std::filesystem::directory_iterator at("/dev/shm", error), end; !error && at != end; at.increment(error)) {
    if (!at->path().filename().string().starts_with(own)) continue;
    std::error_code ignored;
    const auto written = std::filesystem::last_write_time(at->path(), ignored);
    if (!ignored && std::filesystem::file_time_type::clock::now() - written > old)
      std::filesystem::remove(at->path(), ignored);
  }
}

std::unique_ptr<FlightTable> FlightTable::of_process(int rank) {
  const int local_size = number_in("OMPI_COMM_WORLD_LOCAL_SIZE"), local_rank = number_in("OMPI_COMM_WORLD_LOCAL_RANK");
  const char* job = environment("PMIX_NAMESPACE");
  const auto alone = [&] {
    auto table = std::make_unique<FlightTable>(1);
    table->own().sit_down(rank, getpid(), Phase::starting);
    return table;
  };
  if (job == nullptr || local_size < 1 || local_rank < 0 || local_rank >= local_size) return alone();
  const char* session = environment("PMIX_SERVER_TMPDIR");
  const std::size_t name = std::hash<std::string>()(fmt::format("{}|{}", job, session == nullptr ? "" : session));
  if (local_rank == 0) sweep_tables();
  std::unique_ptr<FlightTable> table(new FlightTable);
  table->file_ = fmt::format("/dev/shm/lockstep-ranks-{}-{:016x}", getuid(), name);
  table->bytes_ = sizeof(Head) + sizeof(FlightTrack) * static_cast<std::size_t>(local_size);
  const int file = open(table->file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file < 0) return alone();
  struct stat info {};
  // posix_fallocate and not ftruncate: a full /dev/shm is an answer here and SIGBUS later.
  const bool sized = fstat(file, &info) == 0 && info.st_uid == getuid() &&
                     posix_fallocate(file, 0, static_cast<off_t>(table->bytes_)) == 0;
  void* memory = sized ? mmap(nullptr, table->bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  close(file);
  if (memory == MAP_FAILED) return alone();
  table->head_ = static_cast<Head*>(memory);
  table->shared_ = true;
  table->size_ = local_size;
  table->own_ = local_rank;
  table->own().sit_down(rank, getpid(), Phase::starting);
  // Once all have it the name is of no more use, and nothing is left however the job ends.
  if (table->head_->mapped.fetch_add(1) + 1 >= local_size) unlink(table->file_.c_str());
  return table;
}

FlightTable::~FlightTable() {
  if (head_ == nullptr) return;
  if (!shared_) {
    ::operator delete(head_, std::align_val_t(alignof(FlightTrack)));
    return;
  }
  if (head_->mapped.load() < size_) unlink(file_.c_str());
  munmap(head_, bytes_);
}

FlightTrack& FlightTable::track(int place) const {
  require(place >= 0 && place < size_, "flight table: no such place");
  return head_->tracks()[place];
}

bool FlightTable::claim_dump() { return !head_->dumped.exchange(true); }

bool FlightTable::claim_end() { return !head_->ended.exchange(true); }

bool FlightTable::claim_warning(double apart) {
  const std::int64_t now = now_ns();
  std::int64_t last = head_->warned.load();
  if (last != 0 && static_cast<double>(now - last) * 1e-9 < apart) return false;
  return head_->warned.compare_exchange_strong(last, now);
}

std::string FlightTable::missing_from(std::uint64_t number) const {
  std::string culprits, others;
  for (int place = 0; place < size_; ++place) {
    const FlightTrack& track = this->track(place);
    if (track.phase() == Phase::absent) continue;
    const char state = state_of(track.process());
    const bool dead = is_stopped(state) || is_gone(state);
    if (track.begun() >= number && !dead) continue;
    const std::uint64_t awaited = track.awaited();
    std::string& text = dead || awaited == 0 ? culprits : others;
    text +=
        fmt::format("{}rank {} ({}at step {}, ", text.empty() ? "" : ", ", track.rank(), word_for(state), track.step());
    text += awaited != 0
                ? fmt::format("waits for collective number {}, {})", awaited, describe(track.signature(awaited)))
                : fmt::format("in no collective, the last was number {}, {})", track.begun(),
                              describe(track.signature(track.begun())));
  }
  return culprits.empty() ? others : culprits;
}

std::string FlightTable::missing_from(Phase phase) const {
  std::string text;
  for (int place = 0; place < size_; ++place) {
    const FlightTrack& track = this->track(place);
    const Phase here = track.phase();
    const char state = here == Phase::absent ? 'R' : state_of(track.process());
    if (here != Phase::absent && here >= phase && here != Phase::gone && !is_stopped(state) && !is_gone(state))
      continue;
    if (here == Phase::gone && phase == Phase::ending) continue;
    text += text.empty() ? "" : ", ";
    if (here == Phase::absent)
      text += fmt::format("local rank {} of this host (has not started)", place);
    else
      text += fmt::format("rank {} ({}pid {})", track.rank(), word_for(state), track.process());
  }
  return text;
}

std::string FlightTable::text() const {
  static constexpr std::string_view phases[] = {"absent",  "in MPI_Init",     "connecting",
                                                "running", "in MPI_Finalize", "gone"};
  std::string text;
  const std::int64_t now = now_ns();
  for (int place = 0; place < size_; ++place) {
    const FlightTrack& track = this->track(place);
    if (track.phase() == Phase::absent) {
      text += fmt::format("local rank {}: has not started\n\n", place);
      continue;
    }
    const std::string waits = track.awaited() == 0 ? "in no wait" : fmt::format("waits for number {}", track.awaited());
    text += fmt::format("rank {}: pid {}, {}{}, step {}, {} collectives begun, {}\n", track.rank(), track.process(),
                        word_for(state_of(track.process())), phases[static_cast<std::size_t>(track.phase())],
                        track.step(), track.begun(), waits);
    text += track.text(now) + "\n";
  }
  return text;
}

}  // namespace lockstep::comm
