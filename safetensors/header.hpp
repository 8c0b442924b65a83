#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::safetensors {

// A safetensors file, as Hugging Face's models come:
//
//     file   = length header data        length: 8 bytes, little-endian: of the header
//     header = a JSON object: "__metadata__" -> {text: text}, and name -> {"dtype", "shape", "data_offsets": [begin,
//     end]} data   = the tensors' bytes, row-major, little-endian
//
// A file from somewhere else is read only if all of it is accounted for (rules of the format's README, and of its
// authors' list of attacks): no key twice, every tensor exactly as long as its shape, tensors one behind the other from
// the first byte of data to the file's last. So no two readers can see different things in one file.

/// The limits of what is read.
inline constexpr std::uint64_t longest_header = 100'000'000;  // the format's own
inline constexpr std::size_t most_tensors = 1'000'000;
inline constexpr std::size_t most_dimensions = 8;
inline constexpr std::size_t longest_name = 512;  // bytes

/// Types of elements by their names in the format. F4 and the F6 take less than a byte.
enum class Type : std::uint8_t {
  boolean,  // BOOL
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};

[[nodiscard]] unsigned bits_of(Type type) noexcept;
/// "BF16".
[[nodiscard]] std::string_view to_string(Type type) noexcept;

struct Tensor {
  std::string name;
  Type type = Type::f32;
  std::vector<std::uint64_t> shape = {};  ///< empty: one element
  std::uint64_t begin = 0;                ///< in data, bytes
  std::uint64_t end = 0;
  [[nodiscard]] std::uint64_t bytes() const { return end - begin; }
  bool operator==(const Tensor&) const = default;
};

struct Header {
  std::vector<Tensor> tensors;  ///< in the order of their bytes, which they tile
  std::map<std::string, std::string> metadata;
  std::uint64_t data_begin = 0;  ///< in the file, bytes
  /// Null if there is none.
  [[nodiscard]] const Tensor* find(std::string_view name) const;
};

/// The length in the first 8 bytes of a file of `file_bytes` bytes. ErrorKind::checkpoint, as below, if no header of
/// that length can lie there.
[[nodiscard]] std::uint64_t header_length(const unsigned char (&first)[8], std::uint64_t file_bytes,
                                          const std::string& place);

/// Reads the text of a header; `data_bytes` follow it in the file. ErrorKind::checkpoint with `place`, the tensor and
/// the rule for whatever is not as described above. Takes memory in proportion to the text, whatever numbers stand in
/// it.
[[nodiscard]] Header parse_header(std::string_view text, std::uint64_t data_bytes, const std::string& place);

/// Lays `tensors` out (their begin and end are set here): wider types first, then by name. The first bytes of the file:
/// length and header, which is padded with spaces so that data begins at a multiple of 8. Names that occur twice, are
/// too long or no UTF-8 and shapes that cannot be counted are ErrorKind::internal.
[[nodiscard]] std::string lay_out(std::vector<Tensor>& tensors, const std::map<std::string, std::string>& metadata);

}  // namespace lockstep::safetensors
