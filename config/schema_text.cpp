#include "config/schema_text.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "config/words.hpp"
#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::config {
namespace {

using Json = nlohmann::ordered_json;

/// One stop on the walk through the tree: a block, or one type of it.
struct Block {
  std::string path;
  std::string type;  ///< that this is, or that the block belongs to; empty if none
  std::string doc;
  const Keys& keys;
  const Types* types;  ///< null for a type, and for a block without types
  bool is_type = false;
};

using Visit = std::function<void(const Block&)>;

void walk(const Section& section, const std::string& path, const std::string& type, const Visit& visit) {
  const auto inner = [&](const Keys& keys, const std::string& owner) {
    for (const Section& sub : keys.sections)
      walk(sub, fmt::format("{}{}{}{}", path, path.empty() ? "" : ".", sub.name, sub.list ? "[]" : ""), owner, visit);
  };
  visit({path, type, section.doc, section.keys, section.types ? &*section.types : nullptr});
  inner(section.keys, type);
  if (!section.types) return;
  for (const Type& known : section.types->known) {
    visit({path, known.name, known.doc, known.keys, nullptr, true});
    inner(known.keys, known.name);
  }
}

std::string default_of(const Field& field) {
  if (field.required) return "required";
  return field.default_text.empty() ? "absent" : field.default_text;
}

std::string cell(std::string text) {
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.replace(at, 1, "\\|");
  return text;
}

std::string type_cell(const Field& field) { return cell(describe_type(field)); }

bool ends_with_path(const std::string& path, const std::string& key) {
  return path == key || (path.size() > key.size() && path.ends_with(key) && path[path.size() - key.size() - 1] == '.');
}

std::string explain_field(const std::string& path, const std::string& types, const Field& field) {
  std::string text = path + (types.empty() ? "" : fmt::format("  (type: {})", types)) + "\n";
  text += fmt::format("  {}\n", field.doc);
  text += fmt::format("  value:   {}\n", describe_type(field));
  text += fmt::format("  default: {}\n", default_of(field));
  for (const auto& [value, reason] : field.refused) text += fmt::format("  refused: {}: {}\n", value, reason);
  return text;
}

std::string explain_type(const std::string& path, const Types& types) {
  std::string text = fmt::format("{}\n  {}\n", path, types.doc);
  text += fmt::format("  value:   one of {}\n", join(types.names()));
  text += fmt::format("  default: {}\n", types.default_type.empty() ? "required" : types.default_type);
  for (const Type& type : types.known) text += fmt::format("  {}: {}\n", type.name, type.doc);
  for (const auto& [name, reason] : types.refused) text += fmt::format("  refused: {}: {}\n", name, reason);
  return text;
}

void add_paragraph(std::string& text, const std::string& paragraph) {
  if (!text.empty()) text += '\n';
  text += paragraph;
}

std::string explain_block(const Block& block) {
  std::string text = (block.path.empty() ? "the job file" : block.path) +
                     (block.type.empty() ? "" : fmt::format("  (type: {})", block.type)) + "\n";
  text += fmt::format("  {}\n", block.doc);
  if (block.types != nullptr) text += fmt::format("  type:    {}\n", join(block.types->names()));
  std::vector<std::string> keys;
  for (const Field& field : block.keys.fields) keys.push_back(field.name);
  for (const Section& sub : block.keys.sections) {
    if (sub.keys.fields.empty()) keys.push_back(sub.name);
    for (const Field& field : sub.keys.fields) keys.push_back(sub.name + "." + field.name);
  }
  if (!keys.empty()) text += fmt::format("  keys:    {}\n", join(keys));
  return text;
}

Json number_schema(const Field& field, const char* type) {
  Json schema{{"type", type}};
  const auto put = [&schema](const char* key, double value) {
    if (value == static_cast<double>(static_cast<std::int64_t>(value)))
      schema[key] = static_cast<std::int64_t>(value);
    else
      schema[key] = value;
  };
  if (field.min) put(field.min_open ? "exclusiveMinimum" : "minimum", *field.min);
  if (field.max) put(field.max_open ? "exclusiveMaximum" : "maximum", *field.max);
  return schema;
}

Json list_schema(const Field& field, Json entry) {
  Json schema{
      {"type", "array"}, {"items", std::move(entry)}, {"minItems", field.length.value_or(field.may_be_empty ? 0 : 1)}};
  if (field.length) schema["maxItems"] = *field.length;
  return schema;
}

Json value_schema(const Field& field) {
  switch (field.type) {
    case FieldType::boolean:
      return {{"type", "boolean"}};
    case FieldType::integer:
      return number_schema(field, "integer");
    case FieldType::number:
      return number_schema(field, "number");
    case FieldType::choice:
      return {{"enum", field.choices}};
    case FieldType::text:
    case FieldType::path:
      return {{"type", "string"}};
    case FieldType::number_list:
      return list_schema(field, number_schema(field, "number"));
    case FieldType::integer_list:
      return list_schema(field, number_schema(field, "integer"));
    case FieldType::text_list:
      return list_schema(field, {{"type", "string"}});
    case FieldType::number_or_list: {
      Json one = number_schema(field, "number");
      return {{"anyOf", Json::array({one, list_schema(field, one)})}};
    }
    case FieldType::block_list:
      return list_schema(field, {{"$ref", "#/definitions/" + field.blocks().name}});
  }
  return {};
}

Json field_schema(const Field& field) {
  Json schema = value_schema(field);
  if (!field.refused.empty() && field.type == FieldType::integer) {
    Json refused = Json::array();
    for (const auto& [value, reason] : field.refused) refused.push_back(std::stoll(value));
    schema["not"] = {{"enum", refused}};
  }
  if (field.or_auto || field.nullable) {
    Json any = Json::array({schema});
    if (field.or_auto) any.push_back({{"const", "auto"}});
    if (field.nullable) any.push_back({{"type", "null"}});
    schema = {{"anyOf", any}};
  }
  std::string text = field.doc;
  if (!field.unit.empty()) text += fmt::format(" Unit: {}.", field.unit);
  if (!field.required) text += fmt::format(" Default: {}.", default_of(field));
  schema["description"] = text;
  return schema;
}

Json section_schema(const Section& section);

void add_members(const Keys& keys, Json& properties, Json& required) {
  for (const Field& field : keys.fields) {
    properties[field.name] = field_schema(field);
    if (field.required) required.push_back(field.name);
  }
  for (const Section& sub : keys.sections) {
    Json schema = section_schema(sub);
    if (sub.list) schema = {{"type", "array"}, {"items", schema}};
    if (sub.presence == Presence::nullable) schema = {{"anyOf", Json::array({schema, {{"type", "null"}}})}};
    schema["description"] = sub.doc;
    properties[sub.name] = schema;
    const Fields& fields = sub.keys.fields;
    const bool needs_it = std::any_of(fields.begin(), fields.end(), [](const Field& f) { return f.required; });
    if (sub.presence == Presence::required || (needs_it && !sub.list)) required.push_back(sub.name);
  }
}

Json block_schema(const Section& section, const Type* type) {
  Json properties = Json::object();
  Json required = Json::array();
  if (type != nullptr) {
    properties["type"] = {{"const", type->name}, {"description", section.types->doc}};
    if (type->name != section.types->default_type) required.push_back("type");
  }
  add_members(section.keys, properties, required);
  if (type != nullptr) add_members(type->keys, properties, required);
  Json schema{{"type", "object"}, {"properties", properties}, {"additionalProperties", false}};
  if (!required.empty()) schema["required"] = required;
  if (type != nullptr) schema["description"] = type->doc;
  return schema;
}

Json section_schema(const Section& section) {
  if (!section.types) return block_schema(section, nullptr);
  Json choices = Json::array();
  for (const Type& type : section.types->known) choices.push_back(block_schema(section, &type));
  return {{"oneOf", choices}};
}

}  // namespace

std::string explain_key(const Section& root, const std::string& key) {
  struct Hit {
    std::string path;
    const Field* field;
    std::string types;
  };
  std::vector<Hit> hits;
  std::string text;
  std::vector<std::string> known = {"type"};
  walk(root, "", "", [&](const Block& block) {
    const std::string name = block.is_type ? block.type : block.path.empty() ? root.name : block.path;
    if (ends_with_path(name, key)) add_paragraph(text, explain_block(block));
    known.push_back(name.substr(name.rfind('.') + 1));
    if (block.types != nullptr && ends_with_path(block.path + ".type", key))
      add_paragraph(text, explain_type(block.path + ".type", *block.types));
    for (const Field& field : block.keys.fields) {
      const std::string path = block.path.empty() ? field.name : block.path + "." + field.name;
      known.push_back(field.name);
      if (!ends_with_path(path, key)) continue;
      // The same parameter of several types is told once.
      const auto same = std::find_if(hits.begin(), hits.end(), [&](const Hit& hit) {
        return hit.path == path && hit.field->doc == field.doc && hit.field->default_text == field.default_text &&
               hit.field->required == field.required;
      });
      if (same != hits.end())
        same->types += ", " + block.type;
      else
        hits.push_back({path, &field, block.type});
    }
  });
  for (const Hit& hit : hits) add_paragraph(text, explain_field(hit.path, hit.types, *hit.field));
  if (!text.empty()) return text;
  const std::size_t dot = key.rfind('.');
  const std::string near = nearest(dot == std::string::npos ? key : key.substr(dot + 1), known);
  fail(ErrorKind::config, "explain: there is no key '{}'{}", printable(key),
       near.empty() ? "; `lockstep config --reference` lists all of them" : fmt::format("; did you mean '{}'?", near));
}

std::string reference_markdown(const Section& root) {
  std::string text = fmt::format("# Job file reference\n\n{}\n\n", root.doc);
  text += "This page is printed by `lockstep config --reference` from the table that the reader itself uses.\n";
  walk(root, "", "", [&text](const Block& block) {
    const std::string title = block.path.empty() ? "Top level" : fmt::format("`{}`", block.path);
    text += fmt::format("\n{} {}{}\n", block.type.empty() ? "##" : "###", title,
                        block.type.empty() ? "" : fmt::format(" with `type: {}`", block.type));
    // The top level's text stands at the head of the page already.
    if (!block.doc.empty() && !block.path.empty()) text += fmt::format("\n{}\n", block.doc);
    if (block.types != nullptr)
      text += fmt::format(
          "\n`type`: {} One of `{}`{}.\n", block.types->doc, fmt::join(block.types->names(), "`, `"),
          block.types->default_type.empty() ? "" : fmt::format("; default `{}`", block.types->default_type));
    if (block.keys.fields.empty()) return;
    text += "\n| key | value | default | meaning |\n|---|---|---|---|\n";
    for (const Field& field : block.keys.fields) {
      std::string meaning = field.doc;
      for (const auto& [value, reason] : field.refused) meaning += fmt::format(" Refused: `{}` ({}).", value, reason);
      text += fmt::format("| `{}` | {} | {} | {} |\n", field.name, type_cell(field), cell(default_of(field)),
                          cell(meaning));
    }
  });
  return text;
}

std::string json_schema(const Section& root) {
  Json schema{{"$schema", "http://json-schema.org/draft-07/schema#"}, {"title", "Lockstep job file"}};
  schema["description"] = root.doc;
  schema.update(section_schema(root));
  walk(root, "", "", [&schema](const Block& block) {
    for (const Field& field : block.keys.fields)
      if (field.type == FieldType::block_list)
        schema["definitions"][field.blocks().name] = section_schema(field.blocks());
  });
  return schema.dump(2) + "\n";
}

}  // namespace lockstep::config
