#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <utility>

#include "core/error.hpp"
#include "core/text.hpp"
#include "data/idx.hpp"
#include "data/sample_set.hpp"

namespace lockstep::data {
namespace {

namespace fs = std::filesystem;

/// `stem` in the folder, as it is or with .gz behind it, or with the dot that some copies have before "idx".
std::string find_file(const std::string& folder, const std::string& stem) {
  std::error_code error;
  if (!fs::is_directory(folder, error))
    fail(ErrorKind::data,
         "data.path: {} is no folder; images need the folder with {} and the other files of MNIST's form",
         printable(folder), stem);
  std::string dotted = stem;
  dotted.replace(dotted.rfind("-idx"), 1, ".");
  for (const std::string& name : {stem + ".gz", stem, dotted, dotted + ".gz"})
    if (fs::exists(fs::path(folder) / name, error)) return (fs::path(folder) / name).string();
  fail(ErrorKind::data, "data.path: {} has neither {} nor {}.gz", printable(folder), stem, stem);
}

struct Part {
  std::string images, labels;
};
Part files_of(const std::string& folder, const std::string& part) {
  return {find_file(folder, part + "-images-idx3-ubyte"), find_file(folder, part + "-labels-idx1-ubyte")};
}

/// Pixels and labels, of training and then of test images.
struct Pixels {
  std::int64_t height = 0, width = 0;
  std::int64_t first_part = 0;  ///< images of the training file
  std::vector<std::uint8_t> values;
  std::vector<std::uint8_t> labels;
};

void append(const Part& files, Pixels& pixels) {
  const IdxArray images = read_idx(files.images), labels = read_idx(files.labels);
  if (images.shape.size() != 3)
    fail(ErrorKind::data, "{}: has {} dimensions; images have 3: their number, height and width",
         printable(files.images), images.shape.size());
  if (labels.shape.size() != 1 || labels.shape[0] != images.shape[0])
    fail(ErrorKind::data, "{}: has {} labels for the {} images of {}", printable(files.labels), labels.values.size(),
         images.shape[0], printable(files.images));
  if (pixels.values.empty()) {
    pixels.height = images.shape[1];
    pixels.width = images.shape[2];
  } else if (images.shape[1] != pixels.height || images.shape[2] != pixels.width) {
    fail(ErrorKind::data, "{}: has images of {} x {}, but those to train on have {} x {}", printable(files.images),
         images.shape[1], images.shape[2], pixels.height, pixels.width);
  }
  pixels.values.insert(pixels.values.end(), images.values.begin(), images.values.end());
  pixels.labels.insert(pixels.labels.end(), labels.values.begin(), labels.values.end());
}

Pixels read_pixels(const ImageOptions& options) {
  Pixels pixels;
  append(files_of(options.path, "train"), pixels);
  pixels.first_part = static_cast<std::int64_t>(pixels.labels.size());
  if (options.validation_fraction == 0) append(files_of(options.path, "t10k"), pixels);
  return pixels;
}

/// Pixels stay bytes; a batch has (pixel - mean) / deviation, looked up by the pixel's value.
class Images final : public SampleSet {
 public:
  Images(const ImageOptions& options, Pixels pixels, std::int64_t train)
      : SampleSet(static_cast<std::int64_t>(pixels.labels.size()), train, options.seed),
        path_(options.path),
        tested_(options.validation_fraction == 0),
        pixels_(std::move(pixels)) {
    classes_ = 1 + *std::max_element(pixels_.labels.begin(), pixels_.labels.end());
    // Sums of bytes are exact, so the mean depends on no order.
    std::uint64_t sum = 0, squares = 0;
    const std::int64_t count = train * size();
    for (std::int64_t i = 0; i < count; ++i) {
      const std::uint64_t pixel = pixels_.values[static_cast<std::size_t>(i)];
      sum += pixel;
      squares += pixel * pixel;
    }
    const double n = static_cast<double>(count), mean = static_cast<double>(sum) / n;
    const double variance = static_cast<double>(squares) / n - mean * mean;
    const double scale = variance > 0 ? 1 / std::sqrt(variance) : 1;
    for (std::size_t value = 0; value < 256; ++value)
      normalised_[value] = static_cast<float>((static_cast<double>(value) - mean) * scale);
  }

  std::string describe() const override {
    return fmt::format("{} ({} of {} x {} in {}: {} to train, {} to validate{})", printable(path_),
                       counted(samples(), "image"), pixels_.height, pixels_.width,
                       classes_ == 1 ? "1 class" : fmt::format("{} classes", classes_), train_samples(), eval_samples(),
                       tested_ ? " (the test files)" : "");
  }
  std::uint64_t fingerprint() const override {
    const XXH64_hash_t content = XXH3_64bits(pixels_.values.data(), pixels_.values.size());
    const XXH64_hash_t labels = XXH3_64bits_withSeed(pixels_.labels.data(), pixels_.labels.size(), content);
    const std::int64_t train = train_samples();
    return XXH3_64bits_withSeed(&train, sizeof train, labels);
  }
  int classes() const override { return classes_; }
  int features() const override { return static_cast<int>(size()); }
  DataShape shape() const override {
    return {.classes = classes_,
            .features = features(),
            .height = static_cast<int>(pixels_.height),
            .width = static_cast<int>(pixels_.width),
            .channels = 1};
  }

 private:
  [[nodiscard]] std::int64_t size() const { return pixels_.height * pixels_.width; }

  void write(std::int64_t sample, std::int64_t row, HostBatch& out) const override {
    const std::uint8_t* const from = pixels_.values.data() + sample * size();
    float* const to = out.features.data() + row * size();
    for (std::int64_t i = 0; i < size(); ++i) to[i] = normalised_[from[i]];
    out.targets[static_cast<std::size_t>(row)] = pixels_.labels[static_cast<std::size_t>(sample)];
  }

  std::string path_;
  bool tested_;
  Pixels pixels_;
  int classes_ = 0;
  std::array<float, 256> normalised_{};
};

}  // namespace

std::unique_ptr<Dataset> make_images(const ImageOptions& options) {
  Pixels pixels = read_pixels(options);
  const std::int64_t train = pixels.first_part - validation_part(pixels.first_part, options.validation_fraction);
  return std::make_unique<Images>(options, std::move(pixels), train);
}

std::int64_t image_bytes(const ImageOptions& options) {
  std::int64_t bytes = 0;
  for (const char* part : {"train", "t10k"}) {
    if (part == std::string_view("t10k") && options.validation_fraction != 0) continue;
    std::int64_t product = 1;
    for (const std::int64_t size : read_idx_shape(files_of(options.path, part).images)) product *= size;
    bytes += product;
  }
  return bytes;
}

}  // namespace lockstep::data
