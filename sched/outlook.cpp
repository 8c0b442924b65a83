#include "sched/outlook.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace lockstep::sched {
namespace {

constexpr std::int64_t one_by_one = 10'000;
constexpr std::int64_t grid_points = 10'000;

/// One sort of trouble: whether a group's values have it, and what is said then.
struct Trouble {
  bool (*has)(const StepValues& values, bool betas);
  std::string (*sentence)(const StepValues& values, bool betas, std::int64_t update, const std::string& whose);
};

double averaging_factor(const StepValues& values, bool betas) { return betas ? values.beta1 : values.momentum; }

const Trouble troubles[] = {
    {[](const StepValues& v, bool) { return !std::isfinite(v.lr); },
     [](const StepValues& v, bool, std::int64_t update, const std::string& whose) {
       return fmt::format("the learning rate{} is {} at update {}: training cannot go on from there", whose, v.lr,
                          update);
     }},
    {[](const StepValues& v, bool) { return std::isfinite(v.lr) && v.lr < 0; },
     [](const StepValues& v, bool, std::int64_t update, const std::string& whose) {
       return fmt::format("the learning rate{} is negative at update {} ({}): it makes the loss grow", whose, update,
                          v.lr);
     }},
    {[](const StepValues& v, bool betas) {
       return !(averaging_factor(v, betas) >= 0 && averaging_factor(v, betas) < 1);
     },
     [](const StepValues& v, bool betas, std::int64_t update, const std::string& whose) {
       return fmt::format("{}{} is {} at update {}, outside [0, 1)", betas ? "beta1" : "momentum", whose,
                          averaging_factor(v, betas), update);
     }},
};

class Search {
 public:
  Search(const Schedule& schedule, const Trouble& trouble)
      : schedule_(schedule), trouble_(trouble), values_(schedule.groups()) {}

  /// The sentence about the first of `updates` updates that has the trouble; empty if none has it.
  std::string sentence(std::int64_t updates) {
    const std::optional<std::int64_t> update = first(updates);
    if (!update) return {};
    (void)has(*update);
    std::size_t group = 0;
    while (!has_group(group)) ++group;
    bool all = true;
    for (std::size_t g = 0; g < values_.size(); ++g) all = all && has_group(g);
    return trouble_.sentence(values_[group], schedule_.initial()[group].has_betas, *update,
                             all ? "" : fmt::format(" of parameter group {}", group));
  }

 private:
  [[nodiscard]] bool has_group(std::size_t group) const {
    return trouble_.has(values_[group], schedule_.initial()[group].has_betas);
  }
  bool has(std::int64_t update) {
    schedule_.values_at(update, values_);
    for (std::size_t g = 0; g < values_.size(); ++g)
      if (has_group(g)) return true;
    return false;
  }

  std::optional<std::int64_t> first(std::int64_t updates) {
    const std::int64_t dense = std::min(updates, one_by_one);
    for (std::int64_t k = 0; k < dense; ++k)
      if (has(k)) return k;
    const std::int64_t stride = (updates - dense + grid_points - 1) / grid_points;
    for (std::int64_t good = dense - 1; stride > 0 && good < updates - 1;) {
      const std::int64_t next = std::min(good + stride, updates - 1);
      if (has(next)) return between(good, next);
      good = next;
    }
    return std::nullopt;
  }

  /// Halves the way from an update without the trouble to one with it.
  std::int64_t between(std::int64_t good, std::int64_t bad) {
    while (bad - good > 1) {
      const std::int64_t middle = good + (bad - good) / 2;
      (has(middle) ? bad : good) = middle;
    }
    return bad;
  }

  const Schedule& schedule_;
  const Trouble& trouble_;
  std::vector<StepValues> values_;
};

}  // namespace

std::vector<std::string> outlook(const Schedule& schedule, std::int64_t updates) {
  std::vector<std::string> sentences;
  for (const Trouble& trouble : troubles)
    if (std::string sentence = Search(schedule, trouble).sentence(updates); !sentence.empty())
      sentences.push_back(std::move(sentence));
  return sentences;
}

}  // namespace lockstep::sched
