#include "job/deepspeed.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "config/field_value.hpp"
#include "config/words.hpp"
#include "job/foreign_keys.hpp"
#include "job/schema.hpp"

namespace lockstep::job {

using namespace config;

namespace {

/// Whether a feature is off: false, null, 0, none, mean, an empty block, or a block with enabled: false or
/// device: none. Sizes of 1 and -1 are how DeepSpeed says "not divided".
bool is_off(const Node& node) {
  if (node.kind == Node::Kind::null) return true;
  if (node.kind == Node::Kind::scalar) {
    for (const char* word : {"false", "0", "1", "-1", "none", "mean", "null"})
      if (node.text == word) return true;
    return false;
  }
  if (node.kind != Node::Kind::map) return node.items.empty();
  if (node.members.empty()) return true;
  const Node* enabled = node.find("enabled");
  if (enabled != nullptr) return enabled->is_word("false");
  const Node* device = node.find("device");
  return device != nullptr && (device->text == "none" || device->kind == Node::Kind::null);
}

bool has_form(const Node& node, const ForeignKey& key, const std::string& path, Diagnostics& diagnostics) {
  if (node.kind == Node::Kind::null || key.form == Form::any) return true;
  Field field{.name = path, .nullable = true};
  switch (key.form) {
    case Form::boolean:
      field.type = FieldType::boolean;
      break;
    case Form::integer:
      field.type = FieldType::integer;
      break;
    case Form::number:
      field.type = FieldType::number;
      break;
    case Form::text:
      field.type = FieldType::text;
      break;
    case Form::block:
    case Form::any:
      if (node.kind == Node::Kind::map || node.is_word("false")) return true;
      diagnostics.error(node.position, fmt::format("{}: expected a block of keys", path));
      return false;
  }
  return read_value(node, field, path, diagnostics).has_value();
}

void check_keys(const Node& node, const ForeignKey& key, const std::string& path, Diagnostics& diagnostics) {
  if (key.keys.empty()) return;
  for (const Member& member : node.members) {
    if (std::find(key.keys.begin(), key.keys.end(), member.key) != key.keys.end()) continue;
    const std::string near = nearest(member.key, key.keys);
    diagnostics.error(member.key_position, fmt::format("unknown key '{}' in {}", member.key, path),
                      near.empty() ? "" : fmt::format("did you mean '{}'?", near), join(key.keys));
  }
}

bool is_refused(const Node& node, const ForeignKey& key) {
  if (key.refuse == Refuse::when_on) return !is_off(node);
  return key.refuse == Refuse::when_off && node.is_word("false");
}

/// data_types asks for number formats; those that the engine has anyway pass.
void check_data_types(const Node& node, const std::string& path, Diagnostics& diagnostics) {
  if (path != "data_types") return;
  for (const Member& member : node.members)
    if (!is_off(member.value) && !(member.key == "grad_accum_dtype" && member.value.text == "fp32"))
      diagnostics.error(member.value.position,
                        fmt::format("data_types.{}: {} is not supported: gradients accumulate in fp32, and fp16 and "
                                    "bf16 decide the rest",
                                    member.key, member.value.text));
}

bool may_be_auto(const std::string& key) { return key == "total_num_steps" || key == "total_steps"; }

/// A step's samples are known, and so auto can only mean: as many at a time as fit.
bool is_auto_micro_batch(const Node& root, const std::string& name) {
  const Node* const train = root.find("train_batch_size");
  return name == "train_micro_batch_size_per_gpu" && train != nullptr && train->kind == Node::Kind::scalar &&
         train->text != "auto";
}

/// Goes through all blocks of the file, so that `visit(block, path of the block)` can remove members.
void each_block(Node& node, const std::string& path, const std::function<void(Node&, const std::string&)>& visit) {
  if (node.kind != Node::Kind::map) return;
  visit(node, path);
  for (Member& member : node.members)
    each_block(member.value, path.empty() ? member.key : path + "." + member.key, visit);
}

void rename(Node& root, const char* old_name, const char* new_name, Diagnostics& diagnostics) {
  for (Member& member : root.members) {
    if (member.key != old_name) continue;
    if (root.find(new_name) != nullptr)
      diagnostics.error(member.key_position,
                        fmt::format("'{}' is the old name of '{}', which is given too", old_name, new_name),
                        "keep one of the two");
    else
      member.key = new_name;
    return;
  }
}

std::string child(const std::string& path, const std::string& key) { return path.empty() ? key : path + "." + key; }

/// Reports a key that neither this engine nor DeepSpeed knows, in the blocks whose keys are listed here; those of
/// optimizer and scheduler depend on their type and are looked at later.
bool is_unknown(const Member& member, const std::string& path, const std::vector<std::string>& engine_keys,
                Diagnostics& diagnostics) {
  if (!path.empty() && path != "fp16" && path != "bf16" && path != "zero_optimization") return false;
  const Section* block = path.empty() ? &job_section() : job_section().keys.find_section(path);
  std::vector<std::string> acting;
  if (path.empty())
    acting = engine_keys;
  else
    for (const Field& field : block->keys.fields) acting.push_back(field.name);
  if (std::find(acting.begin(), acting.end(), member.key) != acting.end()) return false;
  std::vector<std::string> known = acting;
  const std::string prefix = path.empty() ? "" : path + ".";
  for (const ForeignKey& key : foreign_keys())
    if (std::string_view(key.path).starts_with(prefix)) known.emplace_back(key.path + prefix.size());
  std::string remedy;
  if (const auto advice = block->advice.find(member.key); advice != block->advice.end())
    remedy = advice->second;
  else if (const std::string near = nearest(member.key, known); !near.empty())
    remedy = fmt::format("did you mean '{}'?", near);
  diagnostics.error(member.key_position,
                    fmt::format("unknown key '{}' in {}", member.key, path.empty() ? "the DeepSpeed file" : path),
                    remedy, join(acting));
  return true;
}

/// A monitor that is turned off: its other keys say nothing.
bool is_idle_monitor(const Member& member, const std::string& path) {
  const Node* enabled = member.value.find("enabled");
  return path.empty() && (member.key == "tensorboard" || member.key == "csv_monitor") &&
         (enabled == nullptr || enabled->is_word("false"));
}

void list_keys(const Node& node, const std::string& path, DeepSpeedReport& report) {
  for (const Member& member : node.members) {
    const std::string name = child(path, member.key);
    if (is_idle_monitor(member, path))
      report.without_effect.push_back({name, member.key_position, "it is off"});
    else if (member.value.kind == Node::Kind::map)
      list_keys(member.value, name, report);
    else if (member.value.kind != Node::Kind::null)
      report.acted_on.push_back({name, member.value.position});
  }
}

}  // namespace

void expand_zero_flag(Node& root) {
  Node* zero = root.find("zero_optimization");
  if (zero == nullptr || !(zero->is_word("true") || zero->is_word("false"))) return;
  Node stage{Node::Kind::scalar, zero->position, zero->text == "true" ? "1" : "0"};
  Node block{Node::Kind::map, zero->position};
  block.set("stage", zero->position, std::move(stage));
  *zero = std::move(block);
}

void filter_deepspeed(Node& root, const std::vector<std::string>& engine_keys, DeepSpeedReport& report,
                      Diagnostics& diagnostics) {
  if (root.kind != Node::Kind::map) {
    if (diagnostics.error_count() == 0)
      diagnostics.error(root.position, "a DeepSpeed configuration is one block of keys in braces");
    return;
  }
  rename(root, "bfloat16", "bf16", diagnostics);
  expand_zero_flag(root);
  each_block(root, "", [&](Node& block, const std::string& path) {
    std::erase_if(block.members, [&](const Member& member) {
      const std::string name = child(path, member.key);
      const Node& value = member.value;
      if (path.empty() && member.key.starts_with('_')) {
        report.without_effect.push_back({name, value.position, "keys that begin with '_' are remarks"});
        return true;
      }
      if (value.kind == Node::Kind::scalar && value.text == "auto") {
        report.autos.push_back({name, value.position});
        return !may_be_auto(member.key) && !is_auto_micro_batch(root, name);
      }
      const ForeignKey* key = find_foreign(name);
      if (key == nullptr) return is_unknown(member, path, engine_keys, diagnostics);
      if (!has_form(value, *key, name, diagnostics)) return true;
      if (is_refused(value, *key)) {
        diagnostics.error(value.kind == Node::Kind::scalar ? value.position : member.key_position,
                          fmt::format("{} is not supported: {}", name, key->reason),
                          key->refuse == Refuse::when_on ? "remove it or turn it off" : "remove it");
        return true;
      }
      check_keys(value, *key, name, diagnostics);
      check_data_types(value, name, diagnostics);
      const bool off = key->refuse == Refuse::when_on || (key->form == Form::block && is_off(value));
      report.without_effect.push_back({name, value.position, off ? "it is off" : key->reason});
      return true;
    });
  });
  list_keys(root, "", report);
}

void refuse_deepspeed_keys(Node& root, Diagnostics& diagnostics) {
  expand_zero_flag(root);
  each_block(root, "", [&](Node& block, const std::string& path) {
    std::erase_if(block.members, [&](const Member& member) {
      const ForeignKey* key = find_foreign(child(path, member.key));
      if (key == nullptr) return false;
      const std::string name = child(path, member.key);
      if (is_refused(member.value, *key))
        diagnostics.error(member.key_position, fmt::format("{} is not supported: {}", name, key->reason), "remove it");
      else
        diagnostics.error(member.key_position,
                          fmt::format("{} is a DeepSpeed key without effect here: {}", name, key->reason),
                          "remove it, or name the whole DeepSpeed file with the key 'deepspeed'");
      return true;
    });
  });
}

}  // namespace lockstep::job
