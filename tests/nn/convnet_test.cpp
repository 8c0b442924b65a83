#include "nn/convnet.hpp"

#include <gmock/gmock.h>

#include <cmath>

#include "core/error.hpp"
#include "tests/nn/optimizer.hpp"
#include "tests/nn/rig.hpp"

namespace lockstep::nn {
namespace {

using lockstep::testing::MemoryStore;
using lockstep::testing::Rig;
using lockstep::testing::run_pass;
using lockstep::testing::sine_values;
using lockstep::testing::table_named;
using lockstep::testing::TestAdam;
using lockstep::testing::TestBatch;
using ::testing::HasSubstr;

ConvnetOptions small() {
  return {.height = 6, .width = 5, .channels = 2, .filters = {3, 4}, .hidden = {5}, .classes = 3};
}

/// Images with a bright row or column whose place is the class.
void fill_images(const TestBatch& batch, int height, int width, int channels, std::int32_t classes) {
  for (std::size_t n = 0; n < batch.targets().size(); ++n) {
    const auto label = static_cast<std::int32_t>(n) % classes;
    batch.targets()[n] = label;
    for (int i = 0; i < height; ++i)
      for (int j = 0; j < width; ++j)
        for (int c = 0; c < channels; ++c) {
          const double noise = 0.3 * std::sin(static_cast<double>(n) * 1.7 + i * 0.9 + j * 2.3 + c);
          batch.features()[((n * static_cast<std::size_t>(height) + static_cast<std::size_t>(i)) *
                                static_cast<std::size_t>(width) +
                            static_cast<std::size_t>(j)) *
                               static_cast<std::size_t>(channels) +
                           static_cast<std::size_t>(c)] = static_cast<float>((i == label ? 1.0 : -0.2) + noise);
        }
  }
}

class ConvnetTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ConvnetTest, GradientsAgreeWithCentralDifferencesOfTheLoss) {
  const Rig rig(table_named(GetParam()));
  const std::unique_ptr<Model> model = make_convnet(small());
  const Plan planned = plan(*model, *rig.exec().table, {.batch = 6}, DType::f32);
  MemoryStore store(rig.device(), model->parameters(), DType::f32, sine_values(model->parameters()));
  const TestBatch batch(rig.device(), {.batch = 6}, 60);
  fill_images(batch, 6, 5, 2, 3);
  (void)run_pass(rig, *model, planned, store, batch.get());
  const std::vector<float> grads(store.flat_grads(), store.flat_grads() + store.flat_elements());

  int off = 0, all = 0;
  for (std::size_t p = 0; p < model->parameters().size(); ++p) {
    const auto id = static_cast<ParamId>(p);
    for (std::int64_t i = 0; i < model->parameters()[p].elements(); ++i) {
      float& variable = store.master(id)[i];
      const float at = variable, h = 1e-3F;
      double loss[2] = {};
      for (int side = 0; side < 2; ++side) {
        variable = side == 0 ? at - h : at + h;
        store.changed();
        loss[side] = run_pass(rig, *model, planned, store, batch.get());
      }
      variable = at;
      store.changed();
      ++all;
      // A float loss of 1 rounded to 6e-8 over 2 h: 3e-5. Where a rectifier or a maximum changes its mind within h the
      // difference is not the derivative.
      const double numeric = (loss[1] - loss[0]) / (2 * h);
      if (std::fabs(grads[store.offset(id) + static_cast<std::size_t>(i)] - numeric) > 1e-3 + 5e-3 * std::fabs(numeric))
        ++off;
    }
  }
  EXPECT_GT(all, 200);
  EXPECT_LE(off, all / 50) << "of " << all;
}

TEST_P(ConvnetTest, LearnsToTellImagesApart) {
  const Rig rig(table_named(GetParam()));
  const std::unique_ptr<Model> model = make_convnet(small());
  const Plan planned = plan(*model, *rig.exec().table, {.batch = 12}, DType::f32);
  MemoryStore store(rig.device(), model->parameters(), DType::f32, sine_values(model->parameters()));
  TestAdam adam(rig, store);
  const TestBatch batch(rig.device(), {.batch = 12}, 60);
  fill_images(batch, 6, 5, 2, 3);
  double loss = 0;
  for (int step = 0; step < 80; ++step) {
    loss = run_pass(rig, *model, planned, store, batch.get());
    adam.update({{.lr = 0.02, .beta1 = 0.9, .beta2 = 0.99}});
  }
  EXPECT_LT(loss, 0.05);
}

INSTANTIATE_TEST_SUITE_P(Tables, ConvnetTest, ::testing::Values("reference", "cpu"),
                         [](const auto& test) { return test.param; });

TEST(Convnet, DeclaresALayerAUnit) {
  const std::unique_ptr<Model> model = make_convnet({});
  ASSERT_EQ(model->parameters().size(), 8U);
  EXPECT_EQ(model->units(), 4);
  EXPECT_EQ(model->features(), 784);
  EXPECT_EQ(model->parameters()[0].name, "convolutions.0.weight");
  EXPECT_EQ(model->parameters()[2].shape, (std::vector<std::int64_t>{3, 3, 32, 64}));
  EXPECT_EQ(model->parameters()[4].name, "layers.0.weight");
  EXPECT_EQ(model->parameters()[4].shape, (std::vector<std::int64_t>{7 * 7 * 64, 128})) << "28 pooled twice";
  EXPECT_THAT(model->describe(),
              HasSubstr("28 x 28 x 1, 3 x 3 convolutions 32 - 64 each pooled by 2, layers 128 - 10"));
}

TEST(Convnet, RefusesWhatCannotBe) {
  const auto refused = [](ConvnetOptions options) {
    try {
      (void)make_convnet(options);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::config);
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  EXPECT_THAT(refused({.height = 4, .width = 4, .filters = {8, 8, 8}}), HasSubstr("convolution 3 would pool 1 x 1"));
  EXPECT_THAT(refused({.filters = {}}), HasSubstr("at least one number"));
  EXPECT_THAT(refused({.filters = {8, 0}}), HasSubstr("filters [8, 0]"));
  EXPECT_THAT(refused({.kernel = 4}), HasSubstr("kernel 4 must be odd"));
  EXPECT_THAT(refused({.pool = 0}), HasSubstr("pool 0"));
  EXPECT_THAT(refused({.hidden = {0}}), HasSubstr("hidden [0]"));
  EXPECT_THAT(refused({.height = 0}), HasSubstr("a convnet needs images"));
}

}  // namespace
}  // namespace lockstep::nn
