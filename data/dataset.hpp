#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lockstep::data {

/// One micro-batch in host memory, in the layout a model takes.
struct HostBatch {
  std::int64_t batch = 0;
  std::int64_t length = 1;
  /// Of the first sample in the endless training sequence: what its noise (dropout) is a function of.
  std::int64_t position = 0;
  std::vector<std::int32_t> tokens;   ///< [batch, length]; empty for data without tokens
  std::vector<float> features;        ///< [batch, features]; empty for text
  std::vector<std::int32_t> targets;  ///< [batch, length]; -1: not counted. Of a regression 0 is counted
  std::vector<float> values;          ///< [batch, outputs] of a regression: what is to be predicted
  double target_count = 0;
};

/// What a model must know of its data.
struct DataShape {
  int classes = 0;                          ///< symbols of the vocabulary, labels, or outputs of a regression
  int features = 0;                         ///< numbers a sample; 0: it has tokens
  int height = 0, width = 0, channels = 0;  ///< of images, [height, width, channels]; else 0
  bool regression = false;                  ///< numbers are to be predicted, not classes
};

/// Training and validation samples with random access: which samples a step uses depends on the seed and the global
/// sample position alone, never on the number of ranks, so resuming is setting one number.
class Dataset {
 public:
  virtual ~Dataset() = default;
  [[nodiscard]] virtual std::string describe() const = 0;
  /// XXH3-64 of the samples and how they are divided: ranks, resumes and `generate` compare it, because other data
  /// under the same name would go unnoticed.
  [[nodiscard]] virtual std::uint64_t fingerprint() const = 0;
  [[nodiscard]] virtual int classes() const = 0;                 ///< symbols of the vocabulary, or labels
  [[nodiscard]] virtual int features() const { return 0; }       ///< columns of HostBatch::features
  [[nodiscard]] virtual std::int64_t train_samples() const = 0;  ///< an epoch
  [[nodiscard]] virtual std::int64_t eval_samples() const = 0;
  /// Samples position, position+1, ... of the endless, per-epoch shuffled training sequence.
  virtual void train_batch(std::int64_t position, std::int64_t count, HostBatch& out) const = 0;
  /// Validation samples [first, first + count) in fixed order; past the end the batch is padded with targets -1.
  virtual void eval_batch(std::int64_t first, std::int64_t count, HostBatch& out) const = 0;

  /// Of a position of the training sequence, what people find the sample by in its file; empty where there is no such
  /// name.
  [[nodiscard]] virtual std::string name_of(std::int64_t /*position*/) const { return {}; }

  [[nodiscard]] virtual DataShape shape() const { return {.classes = classes(), .features = features()}; }

  // Text only.
  [[nodiscard]] virtual std::vector<std::int32_t> encode(const std::string& text) const;
  [[nodiscard]] virtual std::string decode(const std::vector<std::int32_t>& tokens) const;
};

struct TextOptions {
  std::string path;
  std::string tokenizer = "char";    ///< char: one symbol per distinct character of the file; byte: 256; gpt2: see Bpe
  std::string vocab = {};            ///< of gpt2: vocab.json
  std::string merges = {};           ///< of gpt2: merges.txt
  double validation_fraction = 0.1;  ///< the file's last part
  std::int64_t length = 256;         ///< positions a sample
  std::uint64_t seed = 1;
};
/// Samples are windows of `length` symbols with the following symbol as target. Training windows tile the first part
/// from an offset drawn per epoch; validation windows tile the last part exactly once, so the loss is a mean over all
/// of it. ErrorKind::data if the file is missing, empty, too short or, with `char`, no UTF-8; ErrorKind::config if the
/// path is no file: a directory, a device, a pipe.
[[nodiscard]] std::unique_ptr<Dataset> make_text(const TextOptions& options);

struct ClusterOptions {
  int classes = 4;
  int features = 8;
  std::int64_t samples = 4096;
  double noise = 0.5;
  double validation_fraction = 0.1;
  std::uint64_t seed = 1;
};
/// Generated points around `classes` random centres: a task that needs no file.
[[nodiscard]] std::unique_ptr<Dataset> make_clusters(const ClusterOptions& options);

struct ImageOptions {
  std::string path = {};  ///< a folder
  /// Of the training images, the last; 0: the test files are the validation data.
  double validation_fraction = 0;
  std::uint64_t seed = 1;
};
/// Grey images with labels from a folder of four IDX files under MNIST's names: train-images-idx3-ubyte,
/// train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, each of which may be compressed (.gz).
/// Features are pixels less the mean of the training pixels, divided by their standard deviation. ErrorKind::data if a
/// file is missing or damaged or does not fit the others.
[[nodiscard]] std::unique_ptr<Dataset> make_images(const ImageOptions& options);
/// Memory that their pixels take, from the files' headers. Errors as make_images.
[[nodiscard]] std::int64_t image_bytes(const ImageOptions& options);

struct CsvOptions {
  std::string path = {};
  std::string target = {};                 ///< name of the column that is to be predicted
  std::vector<std::string> features = {};  ///< names of the columns that it is predicted from; empty: all others
  bool regression = false;                 ///< the target is a number; else each distinct text of its column is a class
  bool standardize =
      true;  ///< features less their mean, divided by their standard deviation, both of the training rows
  char separator = ',';
  double validation_fraction = 0.1;  ///< the last rows
  std::uint64_t seed = 1;
};
/// Rows of numbers from a text with a header line. ErrorKind::data with file, line and column of what is wrong.
[[nodiscard]] std::unique_ptr<Dataset> make_csv(const CsvOptions& options);

}  // namespace lockstep::data
