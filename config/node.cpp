#include <fmt/format.h>

#include "config/document.hpp"

namespace lockstep::config {

const Node* Node::find(std::string_view key) const {
  for (const Member& member : members)
    if (member.key == key) return &member.value;
  return nullptr;
}

Node* Node::find(std::string_view key) {
  for (Member& member : members)
    if (member.key == key) return &member.value;
  return nullptr;
}

void Node::set(const std::string& key, const Position& key_position, Node value) {
  for (Member& member : members) {
    if (member.key != key) continue;
    member.key_position = key_position;
    member.value = std::move(value);
    return;
  }
  members.push_back({key, key_position, std::move(value)});
}

std::string describe(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "nothing";
    case Node::Kind::list:
      return "a list";
    case Node::Kind::map:
      return "a block of keys";
    case Node::Kind::scalar:
      break;
  }
  constexpr std::size_t enough = 60;
  const std::string text = node.text.size() > enough ? node.text.substr(0, enough) + "..." : node.text;
  return node.quoted ? fmt::format("the text \"{}\"", text) : fmt::format("'{}'", text);
}

}  // namespace lockstep::config
