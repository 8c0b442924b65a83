#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::run {

/// One number of one step, under a name and at an x that monitors share.
struct ScalarEvent {
  std::string tag;     ///< "Train/Samples/lr"
  double value = 0;    ///< may be infinite or NaN
  std::int64_t x = 0;  ///< samples seen so far
};

/// CRC-32C (Castagnoli polynomial, reflected), as in RFC 3720; "123456789" gives 0xe3069283.
[[nodiscard]] std::uint32_t crc32c(std::string_view bytes);

/// A record of a TFRecord file: length, masked CRC of the length, data, masked CRC of the data; all little-endian.
[[nodiscard]] std::string tf_record(std::string_view data);

/// TensorBoard's Event messages (protocol buffers, written by hand: four kinds are needed). `wall_time` in seconds
/// since 1970.
[[nodiscard]] std::string version_event(double wall_time);
/// Tells readers that a run begins again at `x`: what they have from there on is void.
[[nodiscard]] std::string session_start_event(double wall_time, std::int64_t x);
/// Values at one x, each rounded to fp32.
[[nodiscard]] std::string scalars_event(double wall_time, std::int64_t x, std::span<const ScalarEvent> events);

/// One events.out.tfevents file. Each step's events are one write, so that a reader finds whole records only, and
/// TensorBoard may look on while the run goes.
class TensorboardFile {
 public:
  /// Makes `folder` and a new file in it. With `begin` above 0, a run that goes on, what older files of the folder have
  /// from x = `begin` on is void. ErrorKind::environment if that fails.
  TensorboardFile(const std::string& folder, std::int64_t begin);
  TensorboardFile(const TensorboardFile&) = delete;
  TensorboardFile& operator=(const TensorboardFile&) = delete;
  ~TensorboardFile();

  /// Events of one x. Returns 0, or the errno of a failed write, after which nothing more is written: a reader stops at
  /// a broken record anyway.
  [[nodiscard]] int write(std::span<const ScalarEvent> events);
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  [[nodiscard]] int append(const std::string& records);

  std::string path_;
  int file_ = -1;
  bool broken_ = false;
};

}  // namespace lockstep::run
