#include "run/manifest.hpp"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/json.hpp"
#include "core/text.hpp"

namespace lockstep::run {
namespace {

using nlohmann::json;

constexpr const char* hash_key = "manifest_xxh3_128";
constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();

template <class... Args>
[[noreturn]] void damaged(const std::string& place, fmt::format_string<Args...> format, Args&&... args) {
  throw Damaged(printable(place) + ": " + fmt::format(format, std::forward<Args>(args)...));
}

/// One object of the manifest, read strictly: a field that is missing, of another type or out of its range is damage.
class Fields {
 public:
  Fields(const json& object, const std::string& place) : object_(object), place_(place) {
    if (!object.is_object()) damaged(place_, "a list or number stands where an object belongs");
  }

  [[nodiscard]] const json& at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) damaged(place_, "has no {}", key);
    return *found;
  }
  [[nodiscard]] bool has(const char* key) const { return object_.contains(key); }
  [[nodiscard]] std::int64_t integer(const char* key, std::int64_t min, std::int64_t max = most) const {
    return integer_in(at(key), key, min, max);
  }
  [[nodiscard]] std::int64_t integer_in(const json& value, const char* key, std::int64_t min, std::int64_t max) const {
    const bool fits = value.is_number_integer() &&
                      !(value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(most));
    if (!fits || value.get<std::int64_t>() < min || value.get<std::int64_t>() > max)
      damaged(place_, "{} is {}; expected a whole number from {} to {}", key, printable(value.dump()), min, max);
    return value.get<std::int64_t>();
  }
  [[nodiscard]] std::uint64_t natural(const char* key) const {
    if (!at(key).is_number_unsigned())
      damaged(place_, "{} is {}; expected a whole number from 0 on", key, printable(at(key).dump()));
    return at(key).get<std::uint64_t>();
  }
  [[nodiscard]] double number_in(const json& value, const char* key) const {
    if (!value.is_number() || !std::isfinite(value.get<double>()))
      damaged(place_, "{} is {}; expected a number", key, printable(value.dump()));
    return value.get<double>();
  }
  [[nodiscard]] double positive(const char* key) const {
    if (!at(key).is_number() || !(at(key).get<double>() > 0) || !std::isfinite(at(key).get<double>()))
      damaged(place_, "{} is {}; expected a number above 0", key, printable(at(key).dump()));
    return at(key).get<double>();
  }
  [[nodiscard]] std::string text(const char* key) const {
    if (!at(key).is_string()) damaged(place_, "{} is {}; expected a text", key, printable(at(key).dump()));
    return at(key).get<std::string>();
  }
  [[nodiscard]] const json& list(const char* key) const {
    if (!at(key).is_array()) damaged(place_, "{} is no list", key);
    return at(key);
  }

 private:
  const json& object_;
  const std::string& place_;
};

json to_json(const StepState& s) {
  return {{"applied", s.applied},       {"attempted", s.attempted}, {"scale", s.scale},
          {"hysteresis", s.hysteresis}, {"iteration", s.iteration}, {"last_overflow", s.last_overflow},
          {"first_bad", s.first_bad}};
}

StepState step_state_from(const Fields& from) {
  StepState s;
  s.attempted = from.integer("attempted", 0);
  s.applied = from.integer("applied", 0, s.attempted);
  s.scale = from.positive("scale");
  s.hysteresis = from.integer("hysteresis", -most);  // counts below 0 where the job set it to 0
  s.iteration = from.integer("iteration", 0);
  s.last_overflow = from.integer("last_overflow", -1);
  s.first_bad = from.integer("first_bad", -1);
  return s;
}

json to_json(const sched::MetricState& m) {
  return {{"best", m.best ? json(*m.best) : json()},
          {"bad", m.bad},
          {"cooldown", m.cooldown},
          {"seen", m.seen},
          {"lr", m.lr}};
}

sched::MetricState metric_state_from(const Fields& from, const std::string& place) {
  sched::MetricState m;
  if (const json& best = from.at("best"); !best.is_null()) m.best = from.number_in(best, "best");
  m.seen = from.integer("seen", 0);
  m.bad = from.integer("bad", 0, m.seen);
  m.cooldown = from.integer("cooldown", 0);
  for (const json& lr : from.list("lr")) m.lr.push_back(from.number_in(lr, "a learning rate"));
  if (m.lr.empty()) damaged(place, "has no learning rate in metric");
  return m;
}

RunState run_state_from(const Fields& from, const std::string& place) {
  constexpr int most_ranks = std::numeric_limits<int>::max();
  RunState state;
  state.step = step_state_from(Fields(from.at("step_state"), place));
  state.sample_position = from.integer("sample_position", 0);
  state.seed = from.natural("seed");
  state.train_batch = from.integer("train_batch_size", 1);
  state.micro_batch = from.integer("micro_batch", 1, state.train_batch);
  if (state.train_batch % state.micro_batch != 0)
    damaged(place, "train_batch_size {} is no multiple of micro_batch {}", state.train_batch, state.micro_batch);
  state.world = static_cast<int>(from.integer("world_size", 1, most_ranks));
  state.threads = static_cast<int>(from.integer("threads", 1, most_ranks));
  state.isa = from.text("isa");
  state.job = from.text("job");
  state.data = from.text("data");
  if (from.has("schedule_index")) state.schedule_index = from.integer("schedule_index", 0);
  if (from.has("next_loss")) state.next_loss = from.number_in(from.at("next_loss"), "next_loss");
  if (from.has("client_state")) state.client_state = from.text("client_state");
  if (from.has("metric")) state.metric = metric_state_from(Fields(from.at("metric"), place), place);
  return state;
}

/// A name that a manifest gives is joined to its folder's: it must not lead out of it.
bool is_plain(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

std::vector<FileEntry> files_from(const Fields& from, const std::string& place) {
  std::vector<FileEntry> entries;
  std::set<std::string> seen;
  for (const json& each : from.list("files")) {
    const Fields fields(each, place);
    FileEntry entry{.name = fields.text("name"),
                    .sum = {.bytes = fields.natural("bytes"), .xxh3_128 = fields.text("xxh3_128")}};
    if (!is_plain(entry.name)) damaged(place, "lists a file {}, which is no plain name", printable(entry.name));
    if (!seen.insert(entry.name).second) damaged(place, "lists {} twice", printable(entry.name));
    entries.push_back(std::move(entry));
  }
  return entries;
}

std::vector<TensorEntry> tensors_from(const Fields& from, const std::string& place) {
  std::vector<TensorEntry> tensors;
  std::set<std::pair<std::string, std::string>> seen;
  for (const json& each : from.list("tensors")) {
    const Fields fields(each, place);
    TensorEntry t{.name = fields.text("name"), .kind = fields.text("kind"), .shape = {}};
    const std::string label = printable(t.kind + " of " + t.name);
    for (const json& n : fields.list("shape")) t.shape.push_back(fields.integer_in(n, "a dimension", 1, most));
    std::int64_t bytes = sizeof(float);
    for (const std::int64_t n : t.shape)
      if (__builtin_mul_overflow(bytes, n, &bytes))
        damaged(place, "the shape of {} has more elements than can be counted", label);
    if (!seen.insert({t.kind, t.name}).second) damaged(place, "{} stands there twice", label);
    tensors.push_back(std::move(t));
  }
  return tensors;
}

/// What the hash is taken over. A path in the job may hold bytes that are no UTF-8; they count as replaced.
std::string canonical(const json& object, int indent = -1) {
  return object.dump(indent, ' ', false, json::error_handler_t::replace);
}

/// Parsed, its hash compared and taken off.
json checked_object(const std::string& text, const std::string& place) {
  json object = parse_json(text);
  if (!object.is_object()) damaged(place, "is no manifest: its text is damaged");
  const json version = object.value("format_version", json());
  const bool ours = version == manifest_version;
  const json hash = object.value(hash_key, json());
  if (hash.is_string()) {
    object.erase(hash_key);
    if (files::hash_of(canonical(object)) != hash.get<std::string>())
      damaged(place, "does not have the hash it carries: it is damaged{}",
              ours ? "" : ", or of another format version");
  } else if (ours) {
    damaged(place, "carries no hash");
  }
  if (!ours)
    fail(ErrorKind::checkpoint,
         "{}: has format version {}; this program reads version {}. Go on with the version of lockstep that wrote it, "
         "or "
         "start anew with --resume never, which keeps this run aside",
         printable(place), printable(version.dump()), manifest_version);
  return object;
}

}  // namespace

std::int64_t TensorEntry::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t n : shape) count *= n;
  return count;
}

std::string manifest_text(const Manifest& manifest) {
  const RunState& state = manifest.state;
  json tensors = json::array(), entries = json::array();
  for (const TensorEntry& t : manifest.tensors)
    tensors.push_back({{"name", t.name}, {"kind", t.kind}, {"shape", t.shape}});
  for (const FileEntry& file : manifest.files)
    entries.push_back({{"name", file.name}, {"bytes", file.sum.bytes}, {"xxh3_128", file.sum.xxh3_128}});
  json object = {{"format_version", manifest_version},
                 {"step_state", to_json(state.step)},
                 {"sample_position", state.sample_position},
                 {"seed", state.seed},
                 {"train_batch_size", state.train_batch},
                 {"micro_batch", state.micro_batch},
                 {"world_size", state.world},
                 {"threads", state.threads},
                 {"isa", state.isa},
                 {"job", state.job},
                 {"data", state.data},
                 {"files", entries},
                 {"tensors", tensors}};
  if (state.schedule_index != 0) object["schedule_index"] = state.schedule_index;
  if (state.next_loss) object["next_loss"] = *state.next_loss;
  if (!state.client_state.empty()) object["client_state"] = state.client_state;
  if (state.metric) object["metric"] = to_json(*state.metric);
  object[hash_key] = files::hash_of(canonical(object));
  return canonical(object, 1) + "\n";
}

Manifest parse_manifest(const std::string& text, const std::string& place) {
  const json object = checked_object(text, place);
  const Fields fields(object, place);
  Manifest manifest;
  manifest.state = run_state_from(fields, place);
  manifest.files = files_from(fields, place);
  manifest.tensors = tensors_from(fields, place);
  return manifest;
}

}  // namespace lockstep::run
