#include "config/scalar.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>

namespace lockstep::config {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Length of the run of digits from `at`.
std::size_t digits(const std::string& s, std::size_t at) {
  std::size_t n = 0;
  while (at + n < s.size() && is_digit(s[at + n])) ++n;
  return n;
}

/// [0-9]+ ("." [0-9]*)? | "." [0-9]+, then an optional exponent; nothing after it.
bool is_decimal(const std::string& s, std::size_t at) {
  const std::size_t whole = digits(s, at);
  at += whole;
  std::size_t fraction = 0;
  if (at < s.size() && s[at] == '.') {
    fraction = digits(s, at + 1);
    at += 1 + fraction;
  }
  if (whole + fraction == 0) return false;
  if (at < s.size() && (s[at] == 'e' || s[at] == 'E')) {
    ++at;
    if (at < s.size() && (s[at] == '+' || s[at] == '-')) ++at;
    const std::size_t exponent = digits(s, at);
    if (exponent == 0) return false;
    at += exponent;
  }
  return at == s.size();
}

Scalar integer(const std::string& text, std::size_t sign) {
  if (text.size() > sign + 1 && text[sign] == '0') return {text, "numbers are decimal and have no leading zeros"};
  const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  if (error != std::errc()) return {text, "the number does not fit into 64 bits"};
  return {value};
}

/// "1,5e-3", "1_000" and "64,".
std::string problem_of_separators(const std::string& text, std::size_t sign) {
  if (text.ends_with(',') && is_decimal(text.substr(0, text.size() - 1), sign)) return "remove the comma";
  const std::size_t comma = text.find(',');
  if (comma != std::string::npos && text.find('.') == std::string::npos && digits(text, comma + 1) != 3) {
    const std::string point = text.substr(0, comma) + "." + text.substr(comma + 1);
    if (is_decimal(point, sign)) return fmt::format("the decimal sign is a point: {}", point);
  }
  return "numbers are written without separators";
}

bool only(const std::string& s, std::size_t at, const char* characters) {
  return at < s.size() && s.find_first_not_of(characters, at) == std::string::npos;
}

bool plain_is_safe(const std::string& text) {
  if (text.empty()) return false;
  const auto letter = [](unsigned char c) { return std::isalpha(c) != 0 || c == '_' || c == '.' || c == '/'; };
  if (!letter(static_cast<unsigned char>(text[0]))) return false;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (!letter(u) && std::isdigit(u) == 0 && c != '-' && c != '+') return false;
  }
  const Scalar scalar = interpret(text);
  if (!scalar.problem.empty() || !std::holds_alternative<std::string>(scalar.value.value)) return false;
  for (const char* word : {"null", "Null", "NULL", "yes", "no", "on", "off", "y", "n", "True", "False"})
    if (text == word) return false;
  return true;
}

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    // U+0080 to U+009F are control characters too, which a terminal obeys.
    if (c == '\xC2' && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[++i]));
      continue;
    }
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
          out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
        else
          out += c;
    }
  }
  return out + "\"";
}

}  // namespace

Scalar interpret(const std::string& text) {
  if (text == "true") return {true};
  if (text == "false") return {false};
  const std::size_t sign = !text.empty() && (text[0] == '+' || text[0] == '-') ? 1 : 0;
  const std::string body = text.substr(sign);
  if (!body.empty() && digits(body, 0) == body.size()) return integer(text, sign);
  if (is_decimal(text, sign)) {
    if (body.size() > 1 && body[0] == '0' && is_digit(body[1]))
      return {text, "numbers are decimal and have no leading zeros"};
    const double value = std::strtod(text.c_str(), nullptr);
    if (!std::isfinite(value)) return {text, "the number is too large"};
    return {value};
  }
  for (const char* word : {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN", "inf", "nan", "NaN", "Infinity"})
    if (body == word) return {text, "numbers must be finite"};
  if (body.size() > 2 && body[0] == '0' && (body[1] == 'x' || body[1] == 'o' || body[1] == 'b') &&
      only(body, 2, "0123456789abcdefABCDEF"))
    return {text, "numbers are decimal, not hexadecimal, octal or binary"};
  if (!body.empty() && is_digit(body[0]) && only(body, 0, "0123456789_.,eE+-") &&
      body.find_first_of("_,") != std::string::npos)
    return {text, problem_of_separators(text, sign)};
  return {text};
}

std::string to_yaml(const ParamValue& value) {
  struct Writer {
    std::string operator()(std::monostate) const { return "null"; }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return fmt::format("{}", v); }
    std::string operator()(double v) const { return fmt::format("{}", v); }
    std::string operator()(const std::string& v) const { return plain_is_safe(v) ? v : quote(v); }
    std::string operator()(const ParamValue::List& v) const {
      std::vector<std::string> parts;
      for (const ParamValue& entry : v) parts.push_back(to_yaml(entry));
      return fmt::format("[{}]", fmt::join(parts, ", "));
    }
    std::string operator()(const ParamValue::Block& v) const {
      std::vector<std::string> parts;
      for (const auto& [name, entry] : v) parts.push_back(fmt::format("{}: {}", name, to_yaml(entry)));
      return fmt::format("{{{}}}", fmt::join(parts, ", "));
    }
  };
  return std::visit(Writer{}, value.value);
}

}  // namespace lockstep::config
