#include "run/background_save.hpp"

#include <chrono>
#include <utility>

#include "comm/heartbeat.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "core/text.hpp"

namespace lockstep::run {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

}  // namespace

BackgroundSave::BackgroundSave(const CheckpointStore& store, engine::Engine& engine)
    : store_(store), engine_(engine), snapshot_(engine) {}

BackgroundSave::~BackgroundSave() { cancelled_ = true; }

void BackgroundSave::begin(const RunState& state, SaveHooks hooks) {
  require(part_ == Part::none, "background save: one is under way");
  const auto began = Clock::now();
  manifest_ = {.state = state, .files = {}, .tensors = root() ? tensors_of(engine_) : std::vector<TensorEntry>()};
  hooks_ = std::move(hooks);
  temporary_ = store_.temporary_path(state.step.attempted);
  engine_.comm().broadcast_text(temporary_, 0);
  needed_ = checkpoint_bytes(engine_);
  error_ = {};
  saved_ = {};
  snapshot_.take(engine_);
  seconds_ = since(began);
  log::debug("step {}: {} copied for its checkpoint in {:.1f} ms", state.step.attempted,
             human_bytes(static_cast<double>(bytes())), seconds_ * 1e3);
  start(Part::prepare);
}

void BackgroundSave::report() { engine_.set_busy(!over_); }

void BackgroundSave::start(Part part) {
  part_ = part;
  if (part != Part::write && !root()) return;
  over_ = false;
  thread_ = std::jthread([this] {
    const auto began = Clock::now();
    if (part_ == Part::give_up) {
      if (saved_.path.empty()) store_.give_up();
    } else {
      error_.unless_failed([this] { work(); });
    }
    const double took = since(began);
    seconds_ += took;
    constexpr const char* names[] = {"", "prepared", "written", "committed", "given up"};
    log::debug("step {}: its checkpoint {} in {:.1f} ms beside training", manifest_.state.step.attempted,
               names[static_cast<int>(part_)], took * 1e3);
    over_ = true;
  });
}

void BackgroundSave::work() {
  if (part_ == Part::prepare) {
    if (hooks_.before) hooks_.before();
    store_.prepare(temporary_, needed_);
  } else if (part_ == Part::write) {
    store_.require_shared(temporary_);
    manifest_.files = snapshot_.write(temporary_, store_.file_system(), hooks_.writing, cancelled_);
  } else {
    if (hooks_.under_way) hooks_.under_way();
    store_.complete(temporary_, manifest_, saved_);
  }
}

std::optional<Saved> BackgroundSave::advance() {
  require(part_ != Part::none, "background save: none is under way");
  if (thread_.joinable()) thread_.join();
  comm::Communicator& comm = engine_.comm();
  if (part_ != Part::give_up) {
    error_.agree(comm);
    if (error_.failed()) {
      start(Part::give_up);
      return std::nullopt;
    }
    if (part_ == Part::write) gather_entries(comm, manifest_.files);
    if (part_ != Part::commit) {
      start(part_ == Part::prepare ? Part::write : Part::commit);
      return std::nullopt;
    }
  }
  part_ = Part::none;
  return outcome_of_save(comm, manifest_.state.step.attempted, std::move(saved_), error_);
}

Saved BackgroundSave::finish() {
  const std::string what = fmt::format("saving step {}", manifest_.state.step.attempted);
  for (;;) {
    comm::run_with_heartbeat(
        engine_.comm(), what,
        [this] {
          if (thread_.joinable()) thread_.join();
        },
        store_.options().heartbeat);
    if (std::optional<Saved> saved = advance()) return *std::move(saved);
  }
}

}  // namespace lockstep::run
