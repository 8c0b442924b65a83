#include "data/idx.hpp"

#include <fmt/ranges.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::data {
namespace {

constexpr std::int64_t most_bytes = std::int64_t{1} << 40;

/// A file that zlib reads through, whether it is compressed or not.
class Input {
 public:
  explicit Input(const std::string& path) : path_(printable(path)) {
    errno = 0;
    file_.reset(gzopen(path.c_str(), "rb"));
    if (file_ == nullptr)
      fail(ErrorKind::data, "{}: cannot be opened: {}", path_, errno == 0 ? "no memory" : std::strerror(errno));
    std::error_code error;
    bytes_ = static_cast<std::int64_t>(std::filesystem::file_size(path, error));
    if (error) fail(ErrorKind::data, "{}: is no file of a known length: {}", path_, error.message());
    gzbuffer(file_.get(), static_cast<unsigned>(std::clamp<std::int64_t>(bytes_, 1 << 12, 1 << 17)));
  }

  /// Refuses a header that announces more than any file of this length holds, before memory is taken for it.
  void require_room(std::int64_t elements) const {
    constexpr std::int64_t most_from_a_byte = 1032;  // of deflate, by zlib's technical notes
    if (elements / most_from_a_byte > bytes_)
      fail(ErrorKind::data, "{}: its header announces {} elements, but its {} bytes hold at most {} even if compressed",
           path_, elements, bytes_, bytes_ * most_from_a_byte);
  }

  /// Exactly `count` bytes; `what` they are is for the message.
  void read(std::uint8_t* to, std::int64_t count, const char* what) {
    std::int64_t done = 0;
    while (done < count) {
      const auto piece = static_cast<unsigned>(std::min<std::int64_t>(count - done, 1 << 30));
      const int got = gzread(file_.get(), to + done, piece);
      if (got < 0) broken();
      if (got == 0) break;
      done += got;
    }
    if (done == count) return;
    int code = Z_OK;
    const char* const words = gzerror(file_.get(), &code);
    if (code == Z_BUF_ERROR) fail(ErrorKind::data, "{}: the compressed file is cut short ({})", path_, words);
    fail(ErrorKind::data, "{}: ends after {} of the {} bytes of its {}", path_, done, count, what);
  }

  void require_end() {
    std::uint8_t more = 0;
    const int got = gzread(file_.get(), &more, 1);
    if (got < 0) broken();
    if (got > 0) fail(ErrorKind::data, "{}: goes on behind the elements that its header announces", path_);
    // A checksum that does not fit shows only here.
    int code = Z_OK;
    (void)gzerror(file_.get(), &code);
    if (code != Z_OK && code != Z_STREAM_END) broken();
  }

  [[nodiscard]] std::vector<std::int64_t> shape() {
    std::array<std::uint8_t, 4> head{};
    read(head.data(), 4, "header");
    if (head[0] != 0 || head[1] != 0 || head[3] == 0 || head[3] > 8)
      fail(ErrorKind::data,
           "{}: begins with {:02x}, which is no IDX file (that begins with two zero bytes, a type and "
           "1 to 8 dimensions)",
           path_, fmt::join(head, " "));
    if (head[2] != 0x08)
      fail(ErrorKind::data, "{}: holds elements of type 0x{:02x}; only unsigned bytes (0x08) are read", path_, head[2]);
    std::vector<std::int64_t> dimensions;
    std::int64_t product = 1;
    for (int d = 0; d < head[3]; ++d) {
      std::array<std::uint8_t, 4> bytes{};
      read(bytes.data(), 4, "header");
      std::int64_t size = 0;
      for (const std::uint8_t byte : bytes) size = size * 256 + byte;
      if (size == 0 || size > most_bytes / product)
        fail(ErrorKind::data, "{}: dimension {} of its header is {}, which no file of images or labels has", path_, d,
             size);
      product *= size;
      dimensions.push_back(size);
    }
    return dimensions;
  }

 private:
  [[noreturn]] void broken() {
    int code = Z_OK;
    const char* const words = gzerror(file_.get(), &code);
    fail(ErrorKind::data, "{}: cannot be read: {}", path_, code == Z_ERRNO ? std::strerror(errno) : words);
  }

  struct Close {
    void operator()(gzFile file) const noexcept { (void)gzclose_r(file); }
  };
  std::string path_;
  std::int64_t bytes_ = 0;  ///< of the file as it lies there
  std::unique_ptr<std::remove_pointer_t<gzFile>, Close> file_;
};

}  // namespace

std::vector<std::int64_t> read_idx_shape(const std::string& path) { return Input(path).shape(); }

IdxArray read_idx(const std::string& path) {
  Input input(path);
  IdxArray array{.shape = input.shape(), .values = {}};
  std::int64_t elements = 1;
  for (const std::int64_t size : array.shape) elements *= size;
  input.require_room(elements);
  // A header that lies about a large file must not take all memory before the file's end is met.
  constexpr std::int64_t piece = std::int64_t{1} << 26;
  for (std::int64_t done = 0; done < elements; done += piece) {
    const std::int64_t count = std::min(piece, elements - done);
    array.values.resize(static_cast<std::size_t>(done + count));
    input.read(array.values.data() + done, count, "elements");
  }
  input.require_end();
  return array;
}

}  // namespace lockstep::data
