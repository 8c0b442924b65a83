#pragma once

// A reader of TensorBoard's event files that shares nothing with their writer: the checksum is computed bit by bit, and
// every field is taken apart as the wire format of protocol buffers says.

#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/scratch.hpp"

namespace lockstep::testing {

/// Everything in one file. Throws std::runtime_error at the first thing that is wrong.
class EventFile {
 public:
  explicit EventFile(const std::string& path) {
    const std::string bytes = text_of(path);
    std::string_view rest = bytes;
    while (!rest.empty()) event(record(rest));
    if (version.empty()) throw std::runtime_error(path + ": no version");
  }

  std::string version;
  std::vector<std::int64_t> session_starts;
  std::map<std::string, std::vector<std::pair<std::int64_t, float>>> scalars;  ///< by tag: step and value
  std::vector<double> wall_times;

 private:
  /// One field of a message.
  struct Field {
    std::uint64_t number = 0;
    std::uint64_t integer = 0;  ///< varint, or the bits of a fixed one
    std::string_view bytes = {};
  };

  static std::uint32_t masked_crc(std::string_view data) {
    std::uint32_t crc = ~std::uint32_t{0};
    for (const char c : data) {
      crc ^= static_cast<unsigned char>(c);
      for (int i = 0; i < 8; ++i) crc = (crc & 1U) != 0 ? (crc >> 1U) ^ 0x82f63b78U : crc >> 1U;
    }
    crc = ~crc;
    return ((crc >> 15U) | (crc << 17U)) + 0xa282ead8U;
  }
  static std::string_view take(std::string_view& from, std::size_t count) {
    if (from.size() < count) throw std::runtime_error("event file: it ends in the middle");
    const std::string_view part = from.substr(0, count);
    from.remove_prefix(count);
    return part;
  }
  template <class T>
  static T fixed(std::string_view bytes) {
    T value{};
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  static std::string_view record(std::string_view& rest) {
    const std::string_view length = take(rest, 8);
    if (fixed<std::uint32_t>(take(rest, 4)) != masked_crc(length)) throw std::runtime_error("event file: length's CRC");
    const std::string_view data = take(rest, fixed<std::uint64_t>(length));
    if (fixed<std::uint32_t>(take(rest, 4)) != masked_crc(data)) throw std::runtime_error("event file: data's CRC");
    return data;
  }
  static std::uint64_t varint(std::string_view& from) {
    std::uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(from, 1)[0]);
      value |= std::uint64_t{byte & 0x7fU} << shift;
      if ((byte & 0x80U) == 0) return value;
    }
  }
  static std::vector<Field> fields(std::string_view message) {
    std::vector<Field> all;
    while (!message.empty()) {
      const std::uint64_t key = varint(message);
      Field field{.number = key >> 3U};
      switch (key & 7U) {
        case 0:
          field.integer = varint(message);
          break;
        case 1:
          field.integer = fixed<std::uint64_t>(take(message, 8));
          break;
        case 2:
          field.bytes = take(message, varint(message));
          break;
        case 5:
          field.integer = fixed<std::uint32_t>(take(message, 4));
          break;
        default:
          throw std::runtime_error("event file: unknown kind of field");
      }
      all.push_back(field);
    }
    return all;
  }
  void event(std::string_view message) {
    std::int64_t step = 0;
    for (const Field& field : fields(message)) {
      if (field.number == 1) {
        double time = 0;
        std::memcpy(&time, &field.integer, sizeof(time));
        wall_times.push_back(time);
      }
      if (field.number == 2) step = static_cast<std::int64_t>(field.integer);
      if (field.number == 3) version = field.bytes;
      if (field.number == 5)
        for (const Field& value : fields(field.bytes)) scalar(value.bytes, step);
      if (field.number == 7)
        for (const Field& status : fields(field.bytes))
          if (status.number == 1 && status.integer == 1) session_starts.push_back(step);
    }
  }
  void scalar(std::string_view message, std::int64_t step) {
    std::string tag;
    float value = 0;
    for (const Field& field : fields(message)) {
      if (field.number == 1) tag = field.bytes;
      if (field.number == 2) {
        const auto bits = static_cast<std::uint32_t>(field.integer);
        std::memcpy(&value, &bits, sizeof(value));
      }
    }
    scalars[tag].emplace_back(step, value);
  }
};

}  // namespace lockstep::testing
