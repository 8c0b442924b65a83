#include "run/agreement.hpp"

#include <xxhash.h>

#include <algorithm>
#include <map>
#include <span>

#include "core/text.hpp"
#include "run/state_sums.hpp"

namespace lockstep::run {
namespace {

constexpr const char* may_differ[] = {"run.threads", "data.path", "data.validation_path"};

/// Ranks that differ from rank 0 are told one by one up to this many.
constexpr std::size_t most_ranks_told = 4;

using Lines = std::map<std::string, std::string>;

Lines lines_of(const std::string& statement) {
  Lines lines;
  for (std::size_t at = 0; at < statement.size();) {
    const std::size_t end = std::min(statement.find('\n', at), statement.size());
    const std::string line = statement.substr(at, end - at);
    const std::size_t colon = line.find(": ");
    lines[line.substr(0, colon)] = colon == std::string::npos ? "" : line.substr(colon + 2);
    at = end + 1;
  }
  return lines;
}

std::string value_in(const Lines& lines, const std::string& key) {
  const auto found = lines.find(key);
  return found == lines.end() ? "nothing" : printable(found->second);
}

std::string differences(const std::string& first, const std::string& other, std::size_t rank) {
  const Lines a = lines_of(first), b = lines_of(other);
  Lines keys = a;
  keys.insert(b.begin(), b.end());
  std::string text;
  for (const auto& [key, ignored] : keys)
    if (value_in(a, key) != value_in(b, key))
      text += fmt::format("\n  {}: rank 0 has {}, rank {} has {}", key, value_in(a, key), rank, value_in(b, key));
  return text;
}

}  // namespace

std::string statement_of(const job::JobConfig& job, const std::vector<std::string>& options) {
  std::string text = fmt::format("lockstep: version {}, built by {}\n", LOCKSTEP_VERSION, __VERSION__);
  for (const std::string& line : options) text += line + "\n";
  Lines lines = lines_of(job::flat_text(job));
  for (const char* key : may_differ) lines.erase(key);
  for (const auto& [key, value] : lines) text += fmt::format("{}: {}\n", key, value);
  return text;
}

std::optional<Failure> compare_statements(comm::Communicator& control, const std::string& own) {
  // Sizes first: a text is only sent where it differs.
  std::vector<std::uint64_t> hashes(static_cast<std::size_t>(control.size()));
  hashes[static_cast<std::size_t>(control.rank())] = XXH3_64bits(own.data(), own.size());
  control.all_gather_values(std::span(hashes));
  std::vector<std::size_t> others;
  for (std::size_t r = 1; r < hashes.size(); ++r)
    if (hashes[r] != hashes[0]) others.push_back(r);
  if (others.empty()) return std::nullopt;

  std::string first = own;
  control.broadcast_text(first, 0);
  std::string text = "the ranks were not started with the same job:";
  for (std::size_t i = 0; i < std::min(others.size(), most_ranks_told); ++i) {
    std::string other = own;
    control.broadcast_text(other, static_cast<int>(others[i]));
    text += differences(first, other, others[i]);
  }
  if (others.size() > most_ranks_told)
    text += fmt::format("\n  and {} more ranks differ from rank 0", others.size() - most_ranks_told);
  return Failure{ErrorKind::desync,
                 text + "\n  Start every rank with the same program, the same job file and the same options."};
}

std::optional<Failure> compare_places(comm::Communicator& control, const std::string& text, Memory memory,
                                      const std::vector<std::string>& hosts) {
  std::vector<std::int32_t> memories(static_cast<std::size_t>(control.size()));
  memories[static_cast<std::size_t>(control.rank())] = static_cast<std::int32_t>(memory);
  control.all_gather_values(std::span(memories));
  const auto other = std::ranges::find_if(memories, [&](std::int32_t each) { return each != memories[0]; });
  if (other == memories.end()) return std::nullopt;
  const auto rank = static_cast<std::size_t>(other - memories.begin());
  std::string first = text, second = text;
  control.broadcast_text(first, 0);
  control.broadcast_text(second, static_cast<int>(rank));
  return Failure{
      ErrorKind::environment,
      fmt::format("rank 0 ({}) took {}, but rank {} ({}) took {}: all ranks must compute on the same kind of "
                  "device. Write run.device: cuda, which says what is missing where, or run.device: cpu",
                  hosts[0], first, rank, hosts[rank], second)};
}

void require_equal_parameters(comm::Communicator& comm, engine::Engine& engine) {
  // Of a divided master each value is on one rank only.
  if (comm.size() == 1 || !engine.replicated("master")) return;
  const std::vector<std::uint64_t> own = parameter_sums(engine, "master");
  std::vector<std::uint64_t> first = own;
  comm.broadcast({first.data(), first.size() * sizeof(std::uint64_t), DType::u8, Memory::host}, 0);
  std::vector<std::int64_t> differing(static_cast<std::size_t>(comm.size()), -1);
  const auto found = std::mismatch(own.begin(), own.end(), first.begin());
  if (found.first != own.end()) differing[static_cast<std::size_t>(comm.rank())] = found.first - own.begin();
  comm.all_gather_values(std::span(differing));
  for (std::size_t r = 0; r < differing.size(); ++r)
    if (differing[r] >= 0)
      fail(ErrorKind::desync,
           "rank {} begins with other parameters than rank 0; the first that differs is {}. All ranks must run the "
           "same binary on the same kind of CPU, and read the same checkpoint",
           r, engine.model().parameters()[static_cast<std::size_t>(differing[r])].name);
}

}  // namespace lockstep::run
