#include "data/bpe.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <xxhash.h>

#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <queue>
#include <unordered_map>

#include "core/error.hpp"
#include "core/json.hpp"
#include "core/text.hpp"
#include "core/utf8.hpp"
#include "data/regular_file.hpp"

namespace lockstep::data {
namespace {

/// The character that stands for a byte in a token's text: itself where it prints, else one from U+0100 on.
std::array<char32_t, 256> character_of_bytes() {
  std::array<char32_t, 256> character{};
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    character[byte] = prints ? byte : next++;
  }
  return character;
}

/// The byte that a character of a token's text stands for, or -1.
int byte_of(char32_t character) {
  static const std::vector<int> bytes = [] {
    std::vector<int> table(512, -1);
    const auto characters = character_of_bytes();
    for (std::size_t byte = 0; byte < 256; ++byte) table[characters[byte]] = static_cast<int>(byte);
    return table;
  }();
  return character < bytes.size() ? bytes[character] : -1;
}

/// The bytes that a token's text spells; nothing if it has a character that spells none.
std::optional<std::string> spelled(std::string_view text) {
  std::string bytes;
  bool good = true;
  const std::size_t end = each_character(text, [&](char32_t character) {
    const int byte = byte_of(character);
    good = good && byte >= 0;
    bytes.push_back(static_cast<char>(byte));
  });
  if (!good || end != text.size()) return std::nullopt;
  return bytes;
}

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

// \p{White_Space} is what others call \s: PCRE2's own \s has U+180E besides.
constexpr const char* pattern =
    R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+)";

// A text has the same words over and over; those that are longer come once.
constexpr std::size_t longest_remembered = 64;
constexpr std::size_t most_remembered = 1U << 20;

}  // namespace

/// The compiled pattern with its memory to match in.
class Bpe::Pieces {
 public:
  Pieces() {
    int error = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                              PCRE2_ANCHORED | PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr));
    if (code_ == nullptr)
      fail(ErrorKind::environment,
           "PCRE2 does not take the tokenizer's pattern (error {} at {}); it needs version 10.40", error, at);
    (void)pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where there is none it is interpreted
    match_.reset(pcre2_match_data_create(1, nullptr));
    require(match_ != nullptr, "Bpe: no memory for a match");
  }

  /// Calls visit(piece) for each piece of the text; together they are the text.
  template <class Visit>
  void each(std::string_view text, const Visit& visit) const {
    for (std::size_t at = 0; at < text.size();) {
      const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                    PCRE2_NO_UTF_CHECK, match_.get(), nullptr);
      // Every character begins one of the pattern's alternatives.
      if (found < 0) fail(ErrorKind::internal, "the tokenizer's pattern fails at byte {} (PCRE2 error {})", at, found);
      const std::size_t end = pcre2_get_ovector_pointer(match_.get())[1];
      require(end > at, "Bpe: an empty piece");
      visit(text.substr(at, end - at));
      at = end;
    }
  }

 private:
  struct Free {
    void operator()(pcre2_code* code) const noexcept { pcre2_code_free(code); }
    void operator()(pcre2_match_data* match) const noexcept { pcre2_match_data_free(match); }
  };
  std::unique_ptr<pcre2_code, Free> code_;
  std::unique_ptr<pcre2_match_data, Free> match_;
};

class Bpe::Words {
 public:
  std::unordered_map<std::string, std::int32_t> token_of;  ///< by its bytes
  std::unordered_map<std::uint64_t, Merge> merges;         ///< by pair
  mutable std::unordered_map<std::string, std::vector<std::int32_t>> seen;
};

Bpe::Bpe(const std::string& vocab, const std::string& merges) : words_(std::make_unique<Words>()) {
  read_vocabulary(vocab);
  read_merges(merges);
  pieces_ = std::make_unique<Pieces>();
}

Bpe::~Bpe() = default;

void Bpe::read_vocabulary(const std::string& path) {
  const std::string name = printable(path);
  const auto object = parse_json(read_text(path, "data.vocab"));
  if (!object.is_object()) fail(ErrorKind::data, "data.vocab: {} is no JSON object of tokens and their numbers", name);
  bytes_of_.resize(object.size());
  std::vector<bool> taken(object.size(), false);
  for (const auto& [text, number] : object.items()) {
    if (!number.is_number_integer() || number.get<std::int64_t>() < 0 ||
        number.get<std::int64_t>() >= static_cast<std::int64_t>(object.size()))
      fail(ErrorKind::data, "data.vocab: {}: token '{}' has the number {}; {} tokens are numbered 0 to {}", name,
           printable(text), printable(number.dump()), object.size(), object.size() - 1);
    const auto id = number.get<std::size_t>();
    if (taken[id]) fail(ErrorKind::data, "data.vocab: {}: two tokens have the number {}", name, id);
    taken[id] = true;
    // A special token's text need not spell bytes; it is what it shows.
    const std::optional<std::string> bytes = spelled(text);
    bytes_of_[id] = bytes.value_or(text);
    if (text == "<|endoftext|>") end_of_text_ = static_cast<std::int32_t>(id);
    if (bytes) words_->token_of.emplace(*bytes, static_cast<std::int32_t>(id));
  }
  const auto characters = character_of_bytes();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const auto found = words_->token_of.find(std::string(1, static_cast<char>(byte)));
    if (found == words_->token_of.end()) {
      std::string shown;
      append_utf8(shown, characters[byte]);
      fail(ErrorKind::data,
           "data.vocab: {} has no token for the byte 0x{:02x} ('{}'), so not every text can be encoded", name, byte,
           shown);
    }
    token_of_.push_back(found->second);
  }
  for (const std::string& bytes : bytes_of_)
    fingerprint_ = XXH3_64bits_withSeed(bytes.data(), bytes.size(), fingerprint_);
}

void Bpe::read_merges(const std::string& path) {
  const std::string text = read_text(path, "data.merges"), name = printable(path);
  fingerprint_ = XXH3_64bits_withSeed(text.data(), text.size(), fingerprint_);
  std::int32_t rank = 0;
  std::size_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line(text.data() + at, end - at);
    at = end + 1;
    ++number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const std::size_t blank = line.find(' ');
    const auto token = [&](std::string_view part) {
      const std::optional<std::string> bytes = spelled(part);
      const auto found = bytes ? words_->token_of.find(*bytes) : words_->token_of.end();
      if (found == words_->token_of.end())
        fail(ErrorKind::data, "data.merges: {}:{}: '{}' is no token of data.vocab; the two files belong together", name,
             number, printable(part));
      return found->second;
    };
    if (blank == std::string_view::npos || blank == 0 || line.find(' ', blank + 1) != std::string_view::npos)
      fail(ErrorKind::data, "data.merges: {}:{}: '{}' is not two tokens with a blank between them", name, number,
           printable(line));
    const std::string_view left = line.substr(0, blank), right = line.substr(blank + 1);
    const std::int32_t whole = token(std::string(left) + std::string(right));
    if (!words_->merges.try_emplace(pair_of(token(left), token(right)), Merge{rank++, whole}).second)
      fail(ErrorKind::data, "data.merges: {}:{}: '{}' stands there twice", name, number, printable(line));
  }
}

/// The pair of lowest rank first, of equal ones the leftmost, over a list that shrinks.
void Bpe::merge(std::string_view piece, std::vector<std::int32_t>& tokens) const {
  struct Node {
    std::int32_t token;
    std::int32_t before, after;  ///< neighbours; -1: none
  };
  struct Candidate {
    std::int32_t rank, at;     ///< of the left one
    std::int32_t left, right;  ///< what it was made of: it may be gone
    std::int32_t token;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
  };
  const auto count = static_cast<std::int32_t>(piece.size());
  std::vector<Node> list;
  list.reserve(piece.size());
  for (std::int32_t i = 0; i < count; ++i)
    list.push_back(
        {token_of_[static_cast<unsigned char>(piece[static_cast<std::size_t>(i)])], i - 1, i + 1 < count ? i + 1 : -1});
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto node = [&](std::int32_t at) -> Node& { return list[static_cast<std::size_t>(at)]; };
  const auto offer = [&](std::int32_t at) {
    if (at < 0 || node(at).after < 0) return;
    const std::int32_t left = node(at).token, right = node(node(at).after).token;
    const auto found = words_->merges.find(pair_of(left, right));
    if (found != words_->merges.end()) queue.push({found->second.rank, at, left, right, found->second.token});
  };
  for (std::int32_t i = 0; i + 1 < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Node& left = node(best.at);
    if (left.token != best.left || left.after < 0 || node(left.after).token != best.right) continue;
    Node& right = node(left.after);
    left.token = best.token;
    left.after = right.after;
    if (right.after >= 0) node(right.after).before = best.at;
    right.token = -1;
    offer(left.before);
    offer(best.at);
  }
  for (std::int32_t at = count > 0 ? 0 : -1; at >= 0; at = node(at).after) tokens.push_back(node(at).token);
}

void Bpe::encode(std::string_view text, std::vector<std::int32_t>& tokens) const {
  pieces_->each(text, [&](std::string_view piece) {
    if (piece.size() > longest_remembered) return merge(piece, tokens);
    std::string key(piece);
    auto found = words_->seen.find(key);
    if (found == words_->seen.end()) {
      if (words_->seen.size() >= most_remembered) words_->seen.clear();
      std::vector<std::int32_t> own;
      merge(piece, own);
      found = words_->seen.emplace(std::move(key), std::move(own)).first;
    }
    tokens.insert(tokens.end(), found->second.begin(), found->second.end());
  });
}

std::string Bpe::decode(std::span<const std::int32_t> tokens) const {
  std::string text;
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= size())
      fail(ErrorKind::data, "token {} is not in the vocabulary, which has 0 to {}", token, size() - 1);
    text += bytes_of_[static_cast<std::size_t>(token)];
  }
  return text;
}

}  // namespace lockstep::data
