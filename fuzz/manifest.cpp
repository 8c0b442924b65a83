#include "run/manifest.hpp"

#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "fuzz/target.hpp"
#include "fuzz/targets.hpp"

namespace lockstep::fuzz {
namespace {

void read(const std::string& text) {
  run::Manifest manifest;
  if (!accepts("input.json", [&] { manifest = run::parse_manifest(text, "input.json"); })) return;
  for (const run::FileEntry& file : manifest.files)
    promise(file.name.find('/') == std::string::npos && file.name != "..", "a file outside of the checkpoint's folder");
  for (const run::TensorEntry& tensor : manifest.tensors)
    promise(tensor.elements() >= 1, "a tensor without a countable number of elements");
  // Names of other programs' tensors may hold bytes that JSON cannot; those are replaced when they are written.
  const std::string written = run::manifest_text(manifest);
  promise(run::manifest_text(run::parse_manifest(written, "again")) == written,
          "a manifest written anew reads otherwise");
}

}  // namespace

void manifest(std::string_view input) {
  read(std::string(input));
  // No input has the right hash by chance, and without it nothing behind it is looked at.
  nlohmann::json object = parse_json(input);
  if (!object.is_object()) return;
  object.erase("manifest_xxh3_128");
  const auto text = [&] { return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace); };
  object["manifest_xxh3_128"] = files::hash_of(text());
  read(text());
}

}  // namespace lockstep::fuzz
