// kind batch_rules: rows of given batch keys and what DeepSpeed derives from them, or that it refuses.

#include "core/error.hpp"
#include "job/batch.hpp"
#include "tests/golden/trace.hpp"

namespace lockstep::golden {
namespace {

using nlohmann::json;

std::optional<std::int64_t> given(const json& row, const char* key) {
  const json value = row.value(key, json());
  return value.is_null() ? std::nullopt : std::optional(value.get<std::int64_t>());
}

}  // namespace

Mismatches check_batch_rules(const json& trace) {
  Mismatches out;
  if (trace.at("rows").empty()) out.emplace_back("there are no rows");
  for (const json& row : trace.at("rows")) {
    const json& in = row.at("given");
    const json& expected = row.at("result");
    const bool refusal = expected.contains("error");
    try {
      const job::BatchSizes sizes = job::resolve_batch(given(in, "train"), given(in, "micro"), given(in, "gas"),
                                                       in.at("world").get<std::int64_t>(), "from the trace");
      const json actual = {{"train", sizes.train}, {"micro", sizes.micro}, {"gas", sizes.accumulation}};
      if (refusal)
        out.push_back(in.dump() + ": DeepSpeed refuses, we derive " + actual.dump());
      else if (actual != expected)
        out.push_back(in.dump() + ": expected " + expected.dump() + ", got " + actual.dump());
    } catch (const Error& error) {
      if (!refusal) out.push_back(in.dump() + ": refused: " + error.what());
    }
  }
  return out;
}

}  // namespace lockstep::golden
