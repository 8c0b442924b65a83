#include "run/tensorboard.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::run {
namespace {

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  constexpr std::uint32_t polynomial = 0x82f63b78;  // Castagnoli's, reflected
  std::array<std::uint32_t, 256> table = {};
  for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? polynomial : 0);
    table[byte] = crc;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> crc_table = make_crc_table();

/// So that the checksum of bytes that hold a checksum is no accident.
std::uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8U; }

template <class Unsigned>
void put_little_endian(std::string& out, Unsigned value) {
  for (std::size_t i = 0; i < sizeof(Unsigned); ++i) out += static_cast<char>((value >> (8 * i)) & 0xffU);
}

// The wire format of protocol buffers: a key is (field number << 3) | kind.
enum class Wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7U) out += static_cast<char>((value & 0x7fU) | 0x80U);
  out += static_cast<char>(value);
}
void put_key(std::string& out, unsigned field, Wire wire) {
  put_varint(out, (field << 3U) | static_cast<unsigned>(wire));
}
void put_integer(std::string& out, unsigned field, std::int64_t value) {
  put_key(out, field, Wire::varint);
  put_varint(out, static_cast<std::uint64_t>(value));
}
void put_double(std::string& out, unsigned field, double value) {
  put_key(out, field, Wire::fixed64);
  put_little_endian(out, std::bit_cast<std::uint64_t>(value));
}
void put_float(std::string& out, unsigned field, float value) {
  put_key(out, field, Wire::fixed32);
  put_little_endian(out, std::bit_cast<std::uint32_t>(value));
}
void put_bytes(std::string& out, unsigned field, std::string_view bytes) {
  put_key(out, field, Wire::bytes);
  put_varint(out, bytes.size());
  out += bytes;
}

// Field numbers of Event, Summary.Value and SessionLog.
constexpr unsigned event_wall_time = 1, event_step = 2, event_file_version = 3, event_summary = 5,
                   event_session_log = 7;
constexpr unsigned summary_value = 1, value_tag = 1, value_simple = 2;
constexpr unsigned session_status = 1, session_started = 1;

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

/// events.out.tfevents.<seconds>.<host>.<process>.<which>: readers take the files of a folder in this order.
std::string file_name(double wall_time) {
  static int number = 0;
  std::array<char, 256> host = {};
  if (gethostname(host.data(), host.size() - 1) != 0) std::strcpy(host.data(), "host");
  return fmt::format("events.out.tfevents.{:010}.{}.{}.{}", static_cast<std::int64_t>(wall_time), host.data(), getpid(),
                     number++);
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xffffffffU;
  for (const char c : bytes) crc = (crc >> 8U) ^ crc_table[(crc ^ static_cast<unsigned char>(c)) & 0xffU];
  return ~crc;
}

std::string tf_record(std::string_view data) {
  std::string length, record;
  put_little_endian(length, std::uint64_t{data.size()});
  record = length;
  put_little_endian(record, masked_crc(length));
  record += data;
  put_little_endian(record, masked_crc(data));
  return record;
}

std::string version_event(double wall_time) {
  std::string event;
  put_double(event, event_wall_time, wall_time);
  put_bytes(event, event_file_version, "brain.Event:2");
  return event;
}

std::string session_start_event(double wall_time, std::int64_t x) {
  std::string status, event;
  put_integer(status, session_status, session_started);
  put_double(event, event_wall_time, wall_time);
  put_integer(event, event_step, x);
  put_bytes(event, event_session_log, status);
  return event;
}

std::string scalars_event(double wall_time, std::int64_t x, std::span<const ScalarEvent> events) {
  std::string summary, event;
  for (const ScalarEvent& scalar : events) {
    std::string value;
    put_bytes(value, value_tag, scalar.tag);
    put_float(value, value_simple, static_cast<float>(scalar.value));
    put_bytes(summary, summary_value, value);
  }
  put_double(event, event_wall_time, wall_time);
  put_integer(event, event_step, x);
  put_bytes(event, event_summary, summary);
  return event;
}

TensorboardFile::TensorboardFile(const std::string& folder, std::int64_t begin) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail(ErrorKind::environment, "tensorboard: {}: {}", printable(folder), error.message());
  const double time = now();
  path_ = folder + "/" + file_name(time);
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
  if (file_ < 0) fail(ErrorKind::environment, "tensorboard: {}: {}", printable(path_), std::strerror(errno));
  std::string records = tf_record(version_event(time));
  if (begin > 0) records += tf_record(session_start_event(time, begin));
  if (const int reason = append(records); reason != 0) {
    ::close(file_);
    fail(ErrorKind::environment, "tensorboard: {}: {}", printable(path_), std::strerror(reason));
  }
}

TensorboardFile::~TensorboardFile() { ::close(file_); }

int TensorboardFile::write(std::span<const ScalarEvent> events) {
  if (broken_ || events.empty()) return 0;
  return append(tf_record(scalars_event(now(), events.front().x, events)));
}

int TensorboardFile::append(const std::string& records) {
  ssize_t n = 0;
  do n = ::write(file_, records.data(), records.size());
  while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(records.size())) return 0;
  broken_ = true;
  return n < 0 ? errno : ENOSPC;
}

}  // namespace lockstep::run
