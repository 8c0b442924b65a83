#include "kernels/embedding/embedding.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "tests/support/activations.hpp"

namespace lockstep::testing {
namespace {

struct Case {
  std::int64_t batch, length, cols;
  std::int32_t vocabulary;
  DType dtype = DType::f32;
  bool positions = true;
  std::size_t offset = 0;
  std::int64_t padding = 3;  // rows of both tables that nothing can use

  [[nodiscard]] std::size_t tokens() const { return static_cast<std::size_t>(batch * length); }
};

Doubles forward(const Session& session, const Case& c) {
  const auto width = static_cast<std::size_t>(c.cols);
  const Array<std::int32_t> tokens(session, random_tokens(c.tokens(), 1, c.vocabulary));
  const Tensor wte(session, c.dtype, random_values(static_cast<std::size_t>(c.vocabulary) * width, 2), c.offset);
  const Tensor wpe(session, c.dtype, random_values(static_cast<std::size_t>(c.length) * width, 3), c.offset);
  const Tensor y(session, c.dtype, Doubles(c.tokens() * width), c.offset);
  kernels::embedding_forward(session.exec(), {.tokens = tokens.data(),
                                              .wte = wte.data(),
                                              .wpe = c.positions ? wpe.data() : nullptr,
                                              .y = y.data(),
                                              .batch = c.batch,
                                              .length = c.length,
                                              .cols = c.cols,
                                              .vocabulary = c.vocabulary,
                                              .dtype = c.dtype});
  return y.host();
}

/// What is in the gradients before, and whether the kernel adds to it.
struct Before {
  double dwte = 5.0, dwpe = -5.0;
  bool accumulate_dwte = true, accumulate_dwpe = true;
};

Results backward(const Session& session, const Case& c, const Doubles& dy_values, const Before& before = {}) {
  const auto width = static_cast<std::size_t>(c.cols);
  const std::int64_t wte_rows = c.vocabulary + c.padding, wpe_rows = c.length + c.padding;
  const Array<std::int32_t> tokens(session, random_tokens(c.tokens(), 1, c.vocabulary));
  const Tensor dy(session, c.dtype, dy_values, c.offset);
  const Tensor dwte(session, DType::f32, Doubles(static_cast<std::size_t>(wte_rows) * width, before.dwte));
  const Tensor dwpe(session, DType::f32, Doubles(static_cast<std::size_t>(wpe_rows) * width, before.dwpe));
  run_with_scratch(session, kernels::embedding_backward,
                   EmbeddingBackwardArgs{.tokens = tokens.data(),
                                         .dy = dy.data(),
                                         .dwte = dwte.floats(),
                                         .dwpe = c.positions ? dwpe.floats() : nullptr,
                                         .batch = c.batch,
                                         .length = c.length,
                                         .cols = c.cols,
                                         .vocabulary = c.vocabulary,
                                         .wte_rows = wte_rows,
                                         .wpe_rows = wpe_rows,
                                         .accumulate_dwte = before.accumulate_dwte ? 1 : 0,
                                         .accumulate_dwpe = before.accumulate_dwpe ? 1 : 0,
                                         .dtype = c.dtype});
  return {{{"dwte", dwte.host()}, {"dwpe", dwpe.host()}}, c.dtype};
}

template <class Body>
void for_each_case(const Session& session, const Body& body) {
  for (const DType dtype : activation_dtypes)
    for (const bool positions : {false, true}) {
      body(Case{1, 1, 1, 1, dtype, positions});
      body(Case{2, 31, 33, 7, dtype, positions});
      body(Case{3, 100, 32, 63, dtype, positions, 1});
      body(Case{2, 20, 264, 5, dtype, positions});
      // Three ranges of tokens, most of them unused, and a list longer than a block.
      if (!session.emulated()) body(Case{4, 257, 48, 1100, dtype, positions});
    }
  if (session.emulated()) body(Case{3, 100, 8, 1030, DType::bf16});
  body(Case{1, 300, 8, 1, DType::bf16});           // one token, over many pieces of a device's sum
  body(Case{2, 1100, 4, 3, DType::f32});           // more positions than a block of its sort
  body(Case{1, 64, 4, 256, DType::f32});           // a piece to the last position; a second digit for one key
  body(Case{1, 70, 1, 70000, DType::f16, false});  // three digits
  body(Case{1, 5, 1100, 4, DType::bf16, true});    // several tiles of columns
}

class EmbeddingTest : public KernelTest {};

TEST_P(EmbeddingTest, ForwardEqualsTheReferenceExactly) {
  for_each_case(session(),
                [&](const Case& c) { expect_same(forward(session(), c), forward(reference_session(), c), "y"); });
}

TEST_P(EmbeddingTest, GradientsOfIntegersAddUpExactly) {
  for_each_case(session(), [&](const Case& c) {
    Doubles dy(c.tokens() * static_cast<std::size_t>(c.cols));
    for (std::size_t i = 0; i < dy.size(); ++i) dy[i] = static_cast<double>(i * 11 % 17) - 8.0;
    const std::vector<std::int32_t> tokens = random_tokens(c.tokens(), 1, c.vocabulary);
    const auto width = static_cast<std::size_t>(c.cols), length = static_cast<std::size_t>(c.length);
    Doubles dwte(static_cast<std::size_t>(c.vocabulary + c.padding) * width, 5.0);
    Doubles dwpe(static_cast<std::size_t>(c.length + c.padding) * width, -5.0);
    for (std::size_t p = 0; p < tokens.size(); ++p)
      for (std::size_t k = 0; k < width; ++k) {
        dwte[static_cast<std::size_t>(tokens[p]) * width + k] += dy[p * width + k];
        if (c.positions) dwpe[p % length * width + k] += dy[p * width + k];
      }
    expect_same(backward(session(), c, dy), {{{"dwte", dwte}, {"dwpe", dwpe}}, c.dtype});
  });
}

TEST_P(EmbeddingTest, TheFirstContributionReplacesEveryRowAlsoThoseThatNothingUses) {
  const double poison = std::nan("");
  for_each_case(session(), [&](const Case& c) {
    const Doubles dy = random_values(c.tokens() * static_cast<std::size_t>(c.cols), 4);
    const Results added = backward(session(), c, dy, {.dwte = 0, .dwpe = 0});
    for (const double value : added.list[0].second) ASSERT_TRUE(std::isfinite(value));
    expect_same(backward(session(), c, dy, {poison, 0, false, true}), added);
    if (!c.positions) return;
    expect_same(backward(session(), c, dy, {poison, poison, false, false}), added);
    expect_same(backward(session(), c, dy, {0, poison, true, false}), added);
  });
}

TEST_P(EmbeddingTest, BitsDoNotDependOnThreads) {
  const Case c = session().emulated() ? Case{3, 50, 40, 5} : Case{4, 200, 200, 11};
  const Doubles dy = random_values(c.tokens() * static_cast<std::size_t>(c.cols), 4);
  session().set_threads(1);
  const Results one = backward(session(), c, dy);
  const Results want = backward(reference_session(), c, dy);
  for (std::size_t i = 0; i < 2; ++i)
    expect_close(one.list[i].second, want.list[i].second, DType::f32, 1e-5, 2e-5, one.list[i].first);
  for (const int threads : {2, 3, 7, 64}) {
    session().set_threads(threads);
    expect_same(backward(session(), c, dy), one);
  }
  under_thread_orders(
      session(), [&] { return backward(session(), c, dy); },
      [](const Results& got, const Results& first) { expect_same(got, first); });
}

TEST_P(EmbeddingTest, ATokenOutsideTheVocabularyIsADataError) {
  if (session().on_gpu()) GTEST_SKIP() << "the host cannot read the tokens: the GPU gives NaN instead";
  const std::int32_t token = 3;
  float value[4] = {};
  try {
    kernels::embedding_forward(
        exec(), {.tokens = &token, .wte = value, .y = value, .batch = 1, .length = 1, .cols = 1, .vocabulary = 3});
    FAIL() << "token 3 of a vocabulary of 3 passed";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::data);
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, EmbeddingTest, all_backends(), backend_name);

}  // namespace
}  // namespace lockstep::testing
