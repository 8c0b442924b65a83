#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <fstream>
#include <map>

#include "core/error.hpp"
#include "data/dataset.hpp"
#include "data/idx.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::data {
namespace {

using ::testing::HasSubstr;

using Bytes = std::vector<std::uint8_t>;

Bytes idx(std::initializer_list<std::uint32_t> shape, const Bytes& values) {
  Bytes file = {0, 0, 8, static_cast<std::uint8_t>(shape.size())};
  for (const std::uint32_t size : shape)
    for (int shift = 24; shift >= 0; shift -= 8) file.push_back(static_cast<std::uint8_t>(size >> shift));
  file.insert(file.end(), values.begin(), values.end());
  return file;
}

void write_plain(const std::string& path, const Bytes& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

void write_compressed(const std::string& path, const Bytes& bytes) {
  const gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_EQ(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())), static_cast<int>(bytes.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
}

/// Images of 2 x 3 whose first pixel is their number.
Bytes numbered_images(std::uint32_t count) {
  Bytes values;
  for (std::uint32_t i = 0; i < count; ++i)
    for (std::uint32_t pixel = 0; pixel < 6; ++pixel)
      values.push_back(static_cast<std::uint8_t>(pixel == 0 ? i : 40 * pixel));
  return idx({count, 2, 3}, values);
}
Bytes cyclic_labels(std::uint32_t count) {
  Bytes values;
  for (std::uint32_t i = 0; i < count; ++i) values.push_back(static_cast<std::uint8_t>(i % 4));
  return idx({count}, values);
}

class ImagesTest : public ::testing::Test {
 protected:
  /// 20 images to train on and 7 to test with, half of the files compressed.
  void write_set() {
    write_compressed(in("train-images-idx3-ubyte.gz"), numbered_images(20));
    write_plain(in("train-labels-idx1-ubyte"), cyclic_labels(20));
    write_plain(in("t10k-images.idx3-ubyte"), numbered_images(7));
    write_compressed(in("t10k-labels-idx1-ubyte.gz"), cyclic_labels(7));
  }
  [[nodiscard]] std::string in(const std::string& name) const { return scratch_ / name; }
  [[nodiscard]] ImageOptions options(double fraction = 0) const {
    return {.path = scratch_.path().string(), .validation_fraction = fraction};
  }
  template <class Body>
  static std::string data_error(const Body& body) {
    return lockstep::testing::error_text(ErrorKind::data, body);
  }
  lockstep::testing::ScratchFolder scratch_;
};

TEST_F(ImagesTest, TestFilesAreTheValidationData) {
  write_set();
  const auto images = make_images(options());
  HostBatch batch;
  images->eval_batch(5, 4, batch);

  EXPECT_EQ(images->train_samples(), 20);
  EXPECT_EQ(images->eval_samples(), 7);
  EXPECT_EQ(images->classes(), 4);
  EXPECT_EQ(images->features(), 6);
  EXPECT_EQ(images->shape().height, 2);
  EXPECT_EQ(images->shape().width, 3);
  EXPECT_EQ(images->shape().channels, 1);
  EXPECT_THAT(batch.targets, ::testing::ElementsAre(1, 2, -1, -1));
  EXPECT_EQ(batch.target_count, 2.0);
  EXPECT_EQ(image_bytes(options()), 27 * 6);
  EXPECT_THAT(images->describe(),
              HasSubstr("27 images of 2 x 3 in 4 classes: 20 to train, 7 to validate (the test files)"));
}

TEST_F(ImagesTest, AFractionIsTheEndOfTheTrainingImages) {
  write_set();
  const auto images = make_images(options(0.25));

  EXPECT_EQ(images->train_samples(), 15);
  EXPECT_EQ(images->eval_samples(), 5);
  EXPECT_EQ(image_bytes(options(0.25)), 20 * 6);
  HostBatch first, second;
  images->eval_batch(0, 2, first);
  EXPECT_THAT(first.targets, ::testing::ElementsAre(15 % 4, 16 % 4));
  EXPECT_NE(images->fingerprint(), make_images(options())->fingerprint());
}

TEST_F(ImagesTest, TrainingPixelsHaveMeanZeroAndDeviationOne) {
  write_set();
  const auto images = make_images(options());
  HostBatch batch;
  images->train_batch(0, 20, batch);
  double sum = 0, squares = 0;
  for (const float x : batch.features) {
    sum += static_cast<double>(x);
    squares += static_cast<double>(x) * static_cast<double>(x);
  }
  EXPECT_NEAR(sum / 120, 0, 1e-6);
  EXPECT_NEAR(squares / 120, 1, 1e-6);
}

TEST_F(ImagesTest, AnEpochHoldsEveryImageOnceWithItsLabel) {
  write_set();
  const auto images = make_images(options());
  HostBatch batch;
  images->train_batch(20, 20, batch);  // the second epoch
  std::map<float, std::int32_t> label_of;
  for (std::size_t row = 0; row < 20; ++row) label_of[batch.features[6 * row]] = batch.targets[row];

  ASSERT_EQ(label_of.size(), 20U);
  std::int32_t number = 0;
  for (const auto& [pixel, label] : label_of) EXPECT_EQ(label, number++ % 4);
  EXPECT_EQ(batch.position, 20);
}

TEST_F(ImagesTest, WhatIsMissingIsNamed) {
  EXPECT_THAT(data_error([&] { (void)make_images({.path = in("nowhere")}); }), HasSubstr("nowhere is no folder"));
  EXPECT_THAT(data_error([&] { (void)make_images(options()); }),
              HasSubstr("has neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz"));
}

TEST_F(ImagesTest, FilesThatDoNotFitAreRefused) {
  write_set();
  write_plain(in("train-labels-idx1-ubyte"), cyclic_labels(19));
  EXPECT_THAT(data_error([&] { (void)make_images(options()); }), HasSubstr("has 19 labels for the 20 images"));

  write_plain(in("train-labels-idx1-ubyte"), cyclic_labels(20));
  write_plain(in("t10k-images.idx3-ubyte"), idx({7, 3, 3}, Bytes(63)));
  EXPECT_THAT(data_error([&] { (void)make_images(options()); }),
              HasSubstr("has images of 3 x 3, but those to train on have 2 x 3"));
  write_plain(in("t10k-images.idx3-ubyte"), idx({7, 6}, Bytes(42)));
  EXPECT_THAT(data_error([&] { (void)make_images(options()); }), HasSubstr("has 2 dimensions; images have 3"));
}

TEST_F(ImagesTest, DamagedFilesAreRefused) {
  const auto error_of = [&](const Bytes& bytes) {
    write_plain(in("x"), bytes);
    return data_error([&] { (void)read_idx(in("x")); });
  };
  EXPECT_THAT(error_of({0, 0, 8}), HasSubstr("ends after 3 of the 4 bytes of its header"));
  EXPECT_THAT(error_of({'P', 'N', 'G', 1}), HasSubstr("begins with 50 4e 47 01, which is no IDX file"));
  EXPECT_THAT(error_of({0, 0, 0x0d, 1, 0, 0, 0, 1, 0, 0, 0, 0}), HasSubstr("type 0x0d; only unsigned bytes"));
  EXPECT_THAT(error_of({0, 0, 8, 2, 0, 0, 0, 1, 0, 0}), HasSubstr("ends after 2 of the 4 bytes of its header"));
  EXPECT_THAT(error_of(idx({2, 0}, {})), HasSubstr("dimension 1 of its header is 0"));
  EXPECT_THAT(error_of(idx({0xffffffff, 0xffffffff}, {})), HasSubstr("dimension 1 of its header is 4294967295"));
  // More than 16 bytes hold even if compressed: refused before memory is taken for it.
  EXPECT_THAT(error_of(idx({1U << 20, 1U << 10}, {1, 2, 3, 4})),
              HasSubstr("announces 1073741824 elements, but its 16 bytes hold at most 16512"));
  EXPECT_THAT(error_of(idx({5}, {1, 2, 3, 4})), HasSubstr("ends after 4 of the 5 bytes of its elements"));
  EXPECT_THAT(error_of(idx({3}, {1, 2, 3, 4})), HasSubstr("goes on behind the elements"));

  write_compressed(in("y.gz"), idx({2000}, Bytes(2000, 7)));
  std::ifstream file(in("y.gz"), std::ios::binary);
  Bytes compressed((std::istreambuf_iterator<char>(file)), {});
  Bytes wrong_sum = compressed;
  wrong_sum[compressed.size() - 6] ^= 1;
  EXPECT_THAT(error_of(wrong_sum), HasSubstr("cannot be read"));
  compressed.resize(compressed.size() / 2);
  EXPECT_THAT(error_of(compressed), HasSubstr("cut short"));
}

}  // namespace
}  // namespace lockstep::data
