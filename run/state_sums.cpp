#include "run/state_sums.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <memory>

#include "core/error.hpp"

namespace lockstep::run {
namespace {

constexpr std::int64_t piece = std::int64_t{1} << 18;  ///< elements read at once: 1 MiB

class Hash {
 public:
  Hash() : state_(XXH3_createState()) { require(state_ != nullptr, "state_sums: no memory for a hash"); }
  void begin() { XXH3_64bits_reset(state_.get()); }
  void add(engine::Engine& engine, const std::string& buffer, engine::FlatRange range) {
    for (std::int64_t at = range.begin; at < range.end; at += piece) {
      const std::int64_t count = std::min(piece, range.end - at);
      engine.read_range(buffer, at, count, values_.data());
      XXH3_64bits_update(state_.get(), values_.data(), static_cast<std::size_t>(count) * sizeof(float));
    }
  }
  [[nodiscard]] std::uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const noexcept { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
  std::vector<float> values_ = std::vector<float>(static_cast<std::size_t>(piece));
};

engine::FlatRange range_of(engine::Engine& engine, std::size_t parameter) {
  const std::int64_t begin = engine.layout().of(static_cast<nn::ParamId>(parameter)).begin;
  return {begin, begin + engine.model().parameters()[parameter].elements()};
}

/// Of the parts of a buffer that this rank holds.
std::vector<std::uint64_t> sums_of(engine::Engine& engine, const std::string& buffer, Hash& hash) {
  const bool whole = engine.replicated(buffer);
  const std::vector<engine::FlatRange> held = whole ? std::vector<engine::FlatRange>{} : engine.own_ranges(buffer);
  std::vector<std::uint64_t> sums;
  for (std::size_t p = 0; p < engine.model().parameters().size(); ++p) {
    const engine::FlatRange parameter = range_of(engine, p);
    hash.begin();
    if (whole) hash.add(engine, buffer, parameter);
    for (const engine::FlatRange& range : held)
      hash.add(engine, buffer, {std::max(range.begin, parameter.begin), std::min(range.end, parameter.end)});
    sums.push_back(hash.value());
  }
  return sums;
}

constexpr const char* counter_names[] = {
    "the number of updates applied", "the number of steps taken",      "the loss scale",
    "the loss scaler's hysteresis",  "the loss scaler's step counter", "the loss scaler's last overflow"};

}  // namespace

std::vector<StateSum> state_sums(engine::Engine& engine) {
  std::vector<StateSum> all;
  Hash hash;
  for (const std::string& buffer : engine.buffer_names())
    for (const std::uint64_t sum : sums_of(engine, buffer, hash)) all.push_back({sum, engine.replicated(buffer)});
  const StepState state = engine.read_state();
  for (const std::uint64_t value :
       {static_cast<std::uint64_t>(state.applied), static_cast<std::uint64_t>(state.attempted),
        std::bit_cast<std::uint64_t>(state.scale), static_cast<std::uint64_t>(state.hysteresis),
        static_cast<std::uint64_t>(state.iteration), static_cast<std::uint64_t>(state.last_overflow)})
    all.push_back({value, true});
  for (const double lr : engine.lr()) all.push_back({std::bit_cast<std::uint64_t>(lr), true});
  return all;
}

std::string name_of_sum(engine::Engine& engine, std::size_t index) {
  const auto& parameters = engine.model().parameters();
  const std::vector<std::string>& buffers = engine.buffer_names();
  if (index < buffers.size() * parameters.size()) {
    const std::string& buffer = buffers[index / parameters.size()];
    return fmt::format("{} ({})", parameters[index % parameters.size()].name,
                       buffer == "master" ? "the parameter itself" : buffer);
  }
  index -= buffers.size() * parameters.size();
  if (index < std::size(counter_names)) return counter_names[index];
  return fmt::format("the lr of parameter group {}", index - std::size(counter_names));
}

std::vector<std::uint64_t> parameter_sums(engine::Engine& engine, const std::string& buffer) {
  require(engine.replicated(buffer), "parameter_sums: of a buffer that is divided");
  Hash hash;
  return sums_of(engine, buffer, hash);
}

}  // namespace lockstep::run
