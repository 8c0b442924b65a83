#include "run/memory_advice.hpp"

#include <algorithm>
#include <functional>
#include <optional>
#include <vector>

#include "core/error.hpp"
#include "core/text.hpp"
#include "run/setup.hpp"

namespace lockstep::run {

std::vector<std::int64_t> divisors_below(std::int64_t n, std::int64_t limit) {
  std::vector<std::int64_t> divisors;
  for (std::int64_t d = 1; d * d <= n; ++d) {
    if (n % d != 0) continue;
    divisors.push_back(d);
    if (d * d != n) divisors.push_back(n / d);
  }
  std::erase_if(divisors, [&](std::int64_t d) { return d >= limit; });
  std::ranges::sort(divisors, std::greater<>());
  return divisors;
}

namespace {

/// Another way to run the same job.
struct Variant {
  std::int64_t ranks;
  bool bf16;
  bool exact;
  std::int64_t micro;      ///< 0: as the job says
  std::int64_t stage = 0;  ///< of ZeRO; 0: as the job says
};

class Advice {
 public:
  Advice(const FreeMemory& free, const MemoryQuestion& question)
      : free_(free), question_(question), as_it_is_{question.batch.world, false, false, 0} {}

  std::string text() {
    alone();
    if (lines_.empty()) together();
    if (!lines_.empty()) return "  What fits:\n" + lines_;
    return fmt::format("  Nothing fits: even with {} it needs {}. Use a smaller model or a machine with more memory",
                       smallest_, amount(least_, ranks_of_least_));
  }

 private:
  void alone() {
    (void)try_micro(as_it_is_);
    if (full_precision()) (void)try_one(with([](Variant& v) { v.bf16 = true; }));
    if (question_.batch.world > 1)
      for (std::int64_t stage = job().zero_optimization.stage + 1; stage <= 3; ++stage)
        if (try_one(with([&](Variant& v) { v.stage = stage; }))) break;
    for (std::int64_t n = question_.batch.world - 1; n >= 1; --n)
      if (try_one(with([&](Variant& v) { v.ranks = n; }))) break;
    if (invariant()) (void)try_one(with([](Variant& v) { v.exact = true; }));
  }

  /// The fewest changes first.
  void together() {
    for (const bool fewer : {false, true})
      for (const bool exact : {false, true})
        for (const bool bf16 : {false, true}) {
          if ((exact && !invariant()) || (bf16 && !full_precision()) || (fewer && question_.batch.world == 1)) continue;
          const Variant variant{fewer ? 1 : question_.batch.world, bf16, exact, 0};
          if (try_one(variant) || try_micro(variant)) return;
        }
  }

  static std::string amount(std::size_t bytes, std::int64_t ranks) {
    return human_bytes(static_cast<double>(bytes)) + (ranks == 1 ? "" : " a rank");
  }
  template <class Change>
  [[nodiscard]] Variant with(const Change& change) const {
    Variant variant = as_it_is_;
    change(variant);
    return variant;
  }
  [[nodiscard]] const job::JobConfig& job() const { return question_.job.config; }
  [[nodiscard]] bool full_precision() const { return compute_dtype(job()) == DType::f32; }
  [[nodiscard]] bool invariant() const { return job().run.determinism == "invariant"; }

  bool try_micro(Variant variant) {
    if (question_.fixed_batch) return false;
    const std::int64_t train = question_.batch.train;
    const bool leaves = invariant() && !variant.exact;
    if (!leaves && train % variant.ranks != 0) return false;
    const auto sizes = divisors_below(leaves ? train : train / variant.ranks, question_.batch.micro);
    // The smaller, the less memory: the first that fits is found by halving.
    const auto found = std::ranges::partition_point(sizes, [&](std::int64_t micro) {
      variant.micro = micro;
      return !fits(variant);
    });
    if (found == sizes.end()) return false;
    variant.micro = *found;
    return try_one(variant);
  }

  /// If it fits it is listed.
  bool try_one(const Variant& variant) {
    const std::optional<std::size_t> needed = fits(variant);
    if (!needed) return false;
    if (!lines_.empty()) lines_ += "\n";
    lines_ += fmt::format("    {}: {}", words(variant), amount(*needed, variant.ranks));
    return true;
  }

  /// What it needs, if that is there.
  std::optional<std::size_t> fits(const Variant& variant) {
    try {
      const MemoryNeed need = need_of(variant);
      const std::size_t needed = need.total();
      const std::int64_t world = question_.batch.world;
      const auto sharing = static_cast<int>((variant.ranks * question_.sharing() + world - 1) / world);
      const int sharing_process = question_.sharing_process() > 1 ? static_cast<int>(variant.ranks) : 1;
      if (smallest_.empty() || needed < least_) {
        least_ = needed;
        smallest_ = words(variant);
        ranks_of_least_ = variant.ranks;
      }
      const std::uint64_t limit =
          job_limit(job(), need, std::max(sharing, sharing_process), sharing_process, question_.on_device());
      if (needed > std::min(free_.of_rank(sharing, sharing_process), limit)) return std::nullopt;
      return needed;
    } catch (const Error&) {
      return std::nullopt;  // the batch cannot be shared out like that
    }
  }

  [[nodiscard]] MemoryNeed need_of(const Variant& variant) const {
    job::LoadedJob changed = question_.job;
    if (variant.bf16) changed.config.bf16.enabled = true;
    if (variant.stage > 0) changed.config.zero_optimization.stage = variant.stage;
    if (variant.exact) changed.config.run.determinism = "exact";
    if (variant.micro > 0 || question_.fixed_batch) {
      changed.config.train_batch_size = question_.batch.train;
      changed.config.train_micro_batch_size_per_gpu = variant.micro > 0 ? variant.micro : question_.batch.micro;
      changed.config.gradient_accumulation_steps = std::nullopt;
    }
    const job::BatchSizes batch = batch_sizes(changed.config, variant.ranks, "advice");
    return memory_need(
        question_.model, question_.kernels, question_.device.immediate(), 0, static_cast<int>(variant.ranks),
        engine_options(changed, question_.model, batch, 0, question_.device.immediate(), question_.one_memory()));
  }

  [[nodiscard]] std::string words(const Variant& variant) const {
    std::vector<std::string> words;
    if (variant.micro > 0) {
      words.push_back(fmt::format("train_micro_batch_size_per_gpu: {}", variant.micro));
      if (job().gradient_accumulation_steps)
        words.push_back(
            fmt::format("gradient_accumulation_steps: {}", question_.batch.train / variant.micro / variant.ranks));
    }
    if (variant.bf16) words.emplace_back("bf16.enabled: true");
    if (variant.stage > 0) words.push_back(fmt::format("zero_optimization.stage: {}", variant.stage));
    if (variant.exact) words.emplace_back("run.determinism: exact");
    if (variant.ranks != question_.batch.world)
      words.push_back(question_.process_ranks > 1 ? fmt::format("comm.ranks: {}", variant.ranks)
                                                  : fmt::format("mpirun -n {}", variant.ranks));
    return words.empty() ? "the job as it is" : fmt::format("{}", fmt::join(words, " and "));
  }

  const FreeMemory& free_;
  const MemoryQuestion& question_;
  Variant as_it_is_;
  std::string lines_;
  std::string smallest_;
  std::size_t least_ = 0;
  std::int64_t ranks_of_least_ = 1;
};

}  // namespace

std::string memory_advice(const FreeMemory& free, const MemoryQuestion& question) {
  return Advice(free, question).text();
}

}  // namespace lockstep::run
