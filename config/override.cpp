#include "config/override.hpp"

#include <fmt/format.h>

#include <optional>
#include <sstream>

#include "config/scalar.hpp"

namespace lockstep::config {
namespace {

/// Everything of an option stands at one position: the option.
void move_to(const Position& position, Node& node) {
  node.position = position;
  for (Node& item : node.items) move_to(position, item);
  for (Member& member : node.members) {
    member.key_position = position;
    move_to(position, member.value);
  }
}

/// The entry of a list that a word of the path names, or null.
Node* entry_of(Node& list, const std::string& word) {
  const Scalar index = interpret(word);
  const auto* number = std::get_if<std::int64_t>(&index.value.value);
  if (number == nullptr || *number < 0 || static_cast<std::size_t>(*number) >= list.items.size()) return nullptr;
  return &list.items[static_cast<std::size_t>(*number)];
}

}  // namespace

std::string override_section(const std::string& option) { return option.substr(0, option.find_first_of(".=")); }

void apply_override(Node& root, const std::string& option, Diagnostics& diagnostics) {
  const Position here{make_source("--set " + option, option, true)};
  const std::size_t equals = option.find('=');
  if (equals == std::string::npos || equals == 0)
    return diagnostics.error(here, "expected KEY=VALUE, for example --set run.steps=100");
  Diagnostics inner;
  Node value = parse_document("--set", option.substr(equals + 1), Syntax::yaml, inner);
  if (inner.error_count() > 0) {
    const auto [message, remedy] = inner.first_error();
    return diagnostics.error(here, fmt::format("the value '{}' cannot be read: {}", option.substr(equals + 1), message),
                             remedy);
  }
  move_to(here, value);

  Node* at = &root;
  std::string before;
  std::istringstream words(option.substr(0, equals));
  for (std::string word; std::getline(words, word, '.'); before = word) {
    if (at->kind == Node::Kind::scalar)
      return diagnostics.error(here, fmt::format("'{}' has a single value, it has no key '{}'", before, word));
    if (at->kind == Node::Kind::list) {
      Node* entry = entry_of(*at, word);
      if (entry == nullptr)
        return diagnostics.error(here,
                                 fmt::format("'{}' is not an index into a list of {} entries", word, at->items.size()));
      at = entry;
      continue;
    }
    if (at->kind == Node::Kind::null) *at = Node{Node::Kind::map, here};
    // The last key is given here too, not only its value: what is missing below it is missing here.
    if (words.eof() || at->find(word) == nullptr) at->set(word, here, Node{Node::Kind::null, here});
    at = at->find(word);
  }
  *at = std::move(value);
}

}  // namespace lockstep::config
