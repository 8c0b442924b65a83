#include "nn/tensor.hpp"

#include <gtest/gtest.h>

namespace lockstep::nn {
namespace {

TEST(Shape, KnowsItsElementsAndItsText) {
  const Shape shape{8, 256, 384};
  EXPECT_EQ(shape.elements(), 8 * 256 * 384);
  EXPECT_EQ(shape.last(), 384);
  EXPECT_EQ(shape.rows(), 8 * 256);
  EXPECT_EQ(shape.text(), "[8, 256, 384]");
  EXPECT_EQ(Shape{5}.text(), "[5]");
  EXPECT_NE((Shape{2, 3}), (Shape{2, 3, 1}));
}

TEST(Tensor, MemoryReturnsWithTheLastOwner) {
  Workspace workspace;
  Tensor a(workspace, {3, 100}, DType::bf16, 7);
  EXPECT_EQ(workspace.in_use(), 768U);
  EXPECT_FALSE(a.shared());
  Tensor b = a;
  EXPECT_TRUE(a.shared());
  EXPECT_EQ(TensorRef(b).id, 7);

  a = {};

  EXPECT_EQ(workspace.in_use(), 768U);
  EXPECT_FALSE(b.shared());
  b = {};
  EXPECT_EQ(workspace.in_use(), 0U);
}

TEST(Tensor, HasNoMemoryWhilePlanning) {
  Workspace workspace;
  const Tensor tensor(workspace, {4}, DType::f32, 0);
  EXPECT_EQ(tensor.data(), nullptr);
}

}  // namespace
}  // namespace lockstep::nn
