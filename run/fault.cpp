#include "run/fault.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>

#include "core/error.hpp"
#include "core/log.hpp"
#include "core/text.hpp"

namespace lockstep::run {
namespace {

constexpr std::array<std::pair<std::string_view, FaultKind>, 7> kinds = {{{"kill", FaultKind::kill},
                                                                          {"stop", FaultKind::stop},
                                                                          {"sleep", FaultKind::sleep},
                                                                          {"flip", FaultKind::flip},
                                                                          {"enospc", FaultKind::enospc},
                                                                          {"eio", FaultKind::eio},
                                                                          {"nan", FaultKind::nan}}};
constexpr std::array<std::pair<std::string_view, FaultPoint>, 5> points = {{{"begin", FaultPoint::begin},
                                                                            {"end", FaultPoint::end},
                                                                            {"save", FaultPoint::save},
                                                                            {"writing", FaultPoint::writing},
                                                                            {"commit", FaultPoint::commit}}};

template <class All>
auto value_of(std::string_view name, const All& all) -> std::optional<decltype(all[0].second)> {
  for (const auto& [known, value] : all)
    if (name == known) return value;
  return std::nullopt;
}

/// All of `text` as a number of at least `least`.
template <class Number>
std::optional<Number> number(std::string_view text, Number least) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size() && !text.empty();
  return whole && value >= least ? std::optional(value) : std::nullopt;
}

/// Cuts `text` at the first `mark`: what is before it; `text` becomes what is behind it, empty without a mark.
std::string_view cut(std::string_view& text, char mark) {
  const std::size_t at = text.find(mark);
  const std::string_view head = text.substr(0, at);
  text = at == std::string_view::npos ? std::string_view() : text.substr(at + 1);
  return head;
}

std::optional<Fault> parse(std::string_view text) {
  std::string_view place = text;
  std::string_view what = cut(place, '@');
  const std::string_view name = cut(what, '=');  // `what` is now the seconds, if any
  const std::string_view rank = cut(place, ':'), step = cut(place, ':'), point = place;
  const auto kind = value_of(name, kinds);
  if (!kind || !rank.starts_with("rank") || !step.starts_with("step")) return std::nullopt;
  const auto r = number<int>(rank.substr(4), 0);
  const auto s = number<std::int64_t>(step.substr(4), 1);
  const bool names_parameter = *kind == FaultKind::nan;
  const auto p = point.empty() || names_parameter ? FaultPoint::begin : value_of(point, points);
  if (!r || !s || !p) return std::nullopt;
  Fault fault{.kind = *kind, .rank = *r, .step = *s, .point = *p};
  if (names_parameter) fault.parameter = point;
  const auto seconds = number<double>(what, 0.0);
  if ((*kind == FaultKind::sleep) != seconds.has_value() || (seconds && *seconds > 1e6)) return std::nullopt;
  if (*kind != FaultKind::sleep && !what.empty()) return std::nullopt;
  if (seconds) fault.seconds = std::chrono::duration<double>(*seconds);
  if (fault.point == FaultPoint::commit && fault.rank != 0) return std::nullopt;
  const bool in_save = fault.point == FaultPoint::writing || fault.point == FaultPoint::commit;
  if (fault.kind == FaultKind::flip && (in_save || fault.point == FaultPoint::save)) return std::nullopt;
  const bool of_disk = fault.kind == FaultKind::enospc || fault.kind == FaultKind::eio;
  if (of_disk && in_save) return std::nullopt;
  return fault;
}

/// The named one, or the first; -1: there is none of that name.
nn::ParamId parameter_of(const Fault& fault, const std::vector<nn::ParameterSpec>& parameters) {
  if (fault.parameter.empty()) return 0;
  const auto found = std::ranges::find(parameters, fault.parameter, &nn::ParameterSpec::name);
  return found == parameters.end() ? -1 : static_cast<nn::ParamId>(found - parameters.begin());
}

/// The highest bit of the mantissa, so that no update rounds the difference away.
/// Of a divided parameter buffer, the first that this rank holds.
void flip_first_parameter(engine::Engine& engine) {
  std::int64_t at = engine.layout().of(0).begin;
  if (!engine.replicated("master")) {
    const std::vector<engine::FlatRange> own = engine.own_ranges("master");
    if (own.empty()) return;
    at = own.front().begin;
  }
  float value = 0;
  engine.read_range("master", at, 1, &value);
  value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ (1U << 22));
  engine.write_range("master", at, 1, &value);
}

}  // namespace

Faults::Faults(std::string_view text) : text_(text) {
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view one = cut(rest, ',');
    const auto fault = parse(one);
    if (!fault)
      fail(ErrorKind::config,
           "LOCKSTEP_FAULT: '{}' is no fault; expected KIND@rankR:stepS[:POINT] with KIND kill, stop, sleep=SECONDS, "
           "flip, enospc or eio, steps from 1, and POINT begin, end, save, writing or commit (commit: rank 0 alone; "
           "flip: begin or end; enospc, eio: begin, end or save), or nan@rankR:stepS[:PARAMETER], several separated by "
           "commas",
           printable(one));
    faults_.push_back(*fault);
  }
}

Faults Faults::from_environment() {
  const char* text = std::getenv("LOCKSTEP_FAULT");
  return text == nullptr ? Faults() : Faults(text);
}

void Faults::require_known(const std::vector<nn::ParameterSpec>& parameters) const {
  for (const Fault& fault : faults_)
    if (parameter_of(fault, parameters) < 0)
      fail(ErrorKind::config, "LOCKSTEP_FAULT: the model has no parameter '{}'; it has names such as {} and {}",
           printable(fault.parameter), parameters.front().name, parameters.back().name);
}

void Faults::strike_now(FaultPoint point, std::int64_t step, engine::Engine& engine) {
  std::unique_lock lock(mutex_);
  for (auto fault = faults_.begin(); fault != faults_.end();) {
    if (fault->point != point || fault->step != step || fault->rank != engine.comm().rank()) {
      ++fault;
      continue;
    }
    const Fault due = *fault;
    fault = faults_.erase(fault);
    log::warning("LOCKSTEP_FAULT strikes at step {}", step);
    if (due.kind == FaultKind::kill) (void)std::raise(SIGKILL);
    if (due.kind == FaultKind::stop) (void)std::raise(SIGSTOP);
    if (due.kind == FaultKind::flip) flip_first_parameter(engine);
    if (due.kind == FaultKind::nan) engine.poison_gradient(parameter_of(due, engine.model().parameters()));
    if (due.kind == FaultKind::enospc) disk_error_ = ENOSPC;
    if (due.kind == FaultKind::eio) disk_error_ = EIO;
    if (due.kind == FaultKind::sleep) {
      // The others may strike meanwhile.
      lock.unlock();
      std::this_thread::sleep_for(due.seconds);
      lock.lock();
      fault = faults_.begin();
    }
  }
}

}  // namespace lockstep::run
