#include "run/errors.hpp"

#include <xxhash.h>

#include <algorithm>

#include "core/log.hpp"

namespace lockstep::run {
namespace {

/// What a rank says of itself.
struct Sign {
  std::int32_t failed = 0;
  ErrorKind kind = ErrorKind::internal;
  std::uint64_t text_hash = 0;
};

/// More different texts than this help nobody.
constexpr std::size_t most_texts = 8;

}  // namespace

std::optional<Failure> gather_failures(comm::Communicator& control, const std::optional<Failure>& own,
                                       const std::vector<std::string>& hosts) {
  std::vector<Sign> signs(static_cast<std::size_t>(control.size()));
  if (own)
    signs[static_cast<std::size_t>(control.rank())] = {1, own->kind, XXH3_64bits(own->text.data(), own->text.size())};
  control.all_gather_values(std::span(signs));

  // The first rank with each different text.
  std::vector<std::size_t> speakers;
  for (std::size_t r = 0; r < signs.size(); ++r) {
    const auto same = [&](std::size_t s) {
      return signs[s].kind == signs[r].kind && signs[s].text_hash == signs[r].text_hash;
    };
    if (signs[r].failed != 0 && std::ranges::none_of(speakers, same)) speakers.push_back(r);
  }
  if (speakers.empty()) return std::nullopt;
  const bool all_the_same =
      speakers.size() == 1 && std::ranges::all_of(signs, [](const Sign& sign) { return sign.failed != 0; });

  Failure told{signs[speakers[0]].kind, ""};
  for (std::size_t i = 0; i < std::min(speakers.size(), most_texts); ++i) {
    const std::size_t rank = speakers[i];
    std::string text = own ? own->text : "";
    control.broadcast_text(text, static_cast<int>(rank));
    if (!told.text.empty()) told.text += "\n";
    told.text += all_the_same ? text : fmt::format("rank {} ({}): {}", rank, hosts[rank], text);
  }
  if (speakers.size() > most_texts) told.text += fmt::format("\n({} more)", speakers.size() - most_texts);
  return told;
}

void print_failure(const Failure& failure) {
  if (failure.kind == ErrorKind::preempted)
    log::error("{}", failure.text);
  else
    log::error("{}: {}", to_string(failure.kind), failure.text);
}

}  // namespace lockstep::run
