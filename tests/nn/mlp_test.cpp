#include "nn/mlp.hpp"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "core/error.hpp"
#include "tests/nn/optimizer.hpp"
#include "tests/nn/rig.hpp"

namespace lockstep::nn {
namespace {

using lockstep::testing::GatheringStore;
using lockstep::testing::MemoryStore;
using lockstep::testing::Rig;
using lockstep::testing::run_pass;
using lockstep::testing::sine_values;
using lockstep::testing::TestAdam;
using lockstep::testing::TestBatch;

/// Points on circles around four centres, the class the centre's number.
void fill_clusters(const TestBatch& batch) {
  for (std::size_t i = 0; i < batch.targets().size(); ++i) {
    const auto k = static_cast<std::int32_t>(i % 4);
    const double angle = 0.9 * static_cast<double>(i);
    batch.targets()[i] = k;
    batch.features()[2 * i] = static_cast<float>((k % 2 == 0 ? -1 : 1) + 0.4 * std::cos(angle));
    batch.features()[2 * i + 1] = static_cast<float>((k / 2 == 0 ? -1 : 1) + 0.4 * std::sin(angle));
  }
}

class MlpTest : public testing::TableTest {};
INSTANTIATE_TEST_SUITE_P(Tables, MlpTest, testing::all_tables(), [](const auto& test) { return test.param; });
/// Where values are gathered by the host, in the middle of a pass.
class MlpGathered : public testing::TableTest {};
INSTANTIATE_TEST_SUITE_P(Tables, MlpGathered, testing::immediate_tables(), [](const auto& test) { return test.param; });

TEST_P(MlpTest, GradientsAgreeWithCentralDifferencesOfTheLoss) {
  const Rig rig(table());
  const std::unique_ptr<Model> model = make_mlp({.features = 2, .hidden = {5, 3}, .classes = 4});
  const Plan planned = plan(*model, *rig.exec().table, {.batch = 9}, DType::f32);
  MemoryStore store(rig.device(), model->parameters(), DType::f32, sine_values(model->parameters()));
  const TestBatch batch(rig.device(), {.batch = 9}, 2);
  fill_clusters(batch);
  (void)run_pass(rig, *model, planned, store, batch.get());
  const std::vector<float> grads(store.flat_grads(), store.flat_grads() + store.flat_elements());

  for (std::size_t p = 0; p < model->parameters().size(); ++p) {
    const auto id = static_cast<ParamId>(p);
    for (std::int64_t i = 0; i < model->parameters()[p].elements(); ++i) {
      float& variable = store.master(id)[i];
      const float at = variable, h = 0.02F;
      double loss[2] = {};
      for (int side = 0; side < 2; ++side) {
        variable = side == 0 ? at - h : at + h;
        store.changed();
        loss[side] = run_pass(rig, *model, planned, store, batch.get());
      }
      variable = at;
      store.changed();
      // h^2 f'''/6 is about 1e-4, and a float loss of 1 rounded to 6e-8 over 2 h adds 3e-6.
      EXPECT_NEAR(grads[store.offset(id) + static_cast<std::size_t>(i)], (loss[1] - loss[0]) / (2 * h), 3e-4)
          << model->parameters()[p].name << " " << i;
    }
  }
}

TEST_P(MlpGathered, LearnsClustersWithTheSameBitsFromGatheredParameters) {
  // A rig for each store: what kernels keep about weights is one store's.
  const Rig rig(table()), gathered_rig(table());
  const std::unique_ptr<Model> model = make_mlp({.features = 2, .hidden = {16, 16}, .classes = 4});
  const Plan planned = plan(*model, *rig.exec().table, {.batch = 32}, DType::f32);
  const auto initial = sine_values(model->parameters());
  MemoryStore whole(rig.device(), model->parameters(), DType::f32, initial);
  GatheringStore gathered(gathered_rig.device(), model->parameters(), DType::f32, initial, planned.grad_uses);
  TestAdam adam_whole(rig, whole), adam_gathered(gathered_rig, gathered);
  const TestBatch batch(rig.device(), {.batch = 32}, 2);
  fill_clusters(batch);
  const GroupStep rates{{.lr = 0.02, .beta1 = 0.9, .beta2 = 0.99}};
  double loss = 0;
  for (int step = 0; step < 60; ++step) {
    loss = run_pass(rig, *model, planned, whole, batch.get());
    ASSERT_EQ(run_pass(gathered_rig, *model, planned, gathered, batch.get()), loss) << "step " << step;
    adam_whole.update(rates);
    adam_gathered.update(rates);
    gathered.scatter();
  }
  EXPECT_LT(loss, 0.05);
  EXPECT_EQ(std::memcmp(gathered.flat_masters(), whole.flat_masters(), whole.flat_elements() * sizeof(float)), 0);
}

TEST(Mlp, DeclaresALayerAUnit) {
  const std::unique_ptr<Model> model = make_mlp({.features = 2, .hidden = {64, 32}, .classes = 4});
  ASSERT_EQ(model->parameters().size(), 6U);
  EXPECT_EQ(model->units(), 3);
  EXPECT_EQ(model->parameters()[2].name, "layers.1.weight");
  EXPECT_EQ(model->parameters()[2].shape, (std::vector<std::int64_t>{64, 32}));
  EXPECT_EQ(model->parameters()[3].unit, 1);
  EXPECT_EQ(model->describe(), "mlp 2404 parameters: 2 - 64 - 32 - 4");
  EXPECT_EQ(make_mlp({.hidden = {}})->describe(), "mlp 12 parameters: 2 - 4");
}

TEST(Mlp, RefusesAWidthOfZero) {
  EXPECT_THROW((void)make_mlp({.hidden = {8, 0}}), Error);
  EXPECT_THROW((void)make_mlp({.classes = 0}), Error);
}

}  // namespace
}  // namespace lockstep::nn
