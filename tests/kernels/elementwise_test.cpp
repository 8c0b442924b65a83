#include "kernels/elementwise/elementwise.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "tests/support/kernel_backends.hpp"
#include "tests/support/numbers.hpp"

namespace lockstep::testing {
namespace {

/// Normal numbers with every kind of special one among the first forty.
template <class T>
std::vector<T> values_of(std::size_t count, std::uint32_t lane) {
  std::vector<T> values = normal_values<T>(count, lane);
  const float max = std::numeric_limits<float>::max(), inf = std::numeric_limits<float>::infinity();
  const float special[] = {0.0F,   -0.0F,       1e-40F,   -1e-40F,  6e-8F,
                           3e-8F,  65504.0F,    65519.9F, 65520.0F, 70000.0F,
                           max,    -max,        inf,      -inf,     std::numeric_limits<float>::quiet_NaN(),
                           1.001F, 1.00390625F, 6.1e-5F};
  for (std::size_t i = 0; i < std::size(special) && 2 * i < count; ++i) values[2 * i] = T(special[i]);
  return values;
}

template <class Body>
void with_each_type(const Body& body) {
  body(float{});
  body(bf16{});
  body(f16{});
}

class Elementwise : public KernelTest {
 protected:
  [[nodiscard]] std::vector<std::size_t> sizes() const {
    if (session().emulated()) return {0, 1, 31, 33, 257, 5003};
    return {0, 1, 31, 32, 33, 257, 100003};
  }

  template <class T, class Body>
  void check(const std::vector<T>& expected, const Body& body) {
    EXPECT_EQ(count_differing(body(), expected), 0U);
    under_thread_orders(session(), body, [](const auto& a, const auto& b) { EXPECT_EQ(count_differing(a, b), 0U); });
  }
};

TEST_P(Elementwise, CastRoundsEveryPair) {
  with_each_type([&]<class From>(From) {
    with_each_type([&]<class To>(To) {
      for (const std::size_t count : sizes()) {
        const std::vector<From> from = values_of<From>(count, 1);
        std::vector<To> expected;
        for (const From x : from) expected.push_back(To(static_cast<float>(x)));
        check(expected, [&] {
          const Array<From> in(session(), from);
          const Array<To> out(session(), count);
          kernels::cast(exec(), {in.data(), dtype_of<From>, out.data(), dtype_of<To>, count});
          return out.host();
        });
      }
    });
  });
}

TEST_P(Elementwise, AxpyRoundsOnce) {
  with_each_type([&]<class X>(X) {
    with_each_type([&]<class Y>(Y) {
      for (const std::size_t count : sizes()) {
        const std::vector<X> x = values_of<X>(count, 1);
        const std::vector<Y> y = values_of<Y>(count, 2);
        std::vector<Y> expected;
        for (std::size_t i = 0; i < count; ++i) {
          const float product = 0.3F * static_cast<float>(x[i]);
          expected.push_back(Y(static_cast<float>(y[i]) + product));
        }
        check(expected, [&] {
          const Array<X> in(session(), x);
          const Array<Y> out(session(), y);
          kernels::axpy(exec(), {static_cast<double>(0.3F), in.data(), dtype_of<X>, out.data(), dtype_of<Y>, count});
          return out.host();
        });
      }
    });
  });
}

TEST_P(Elementwise, ScaleRoundsOnce) {
  with_each_type([&]<class Y>(Y) {
    for (const std::size_t count : sizes()) {
      const std::vector<Y> y = values_of<Y>(count, 2);
      std::vector<Y> expected;
      for (const Y value : y) expected.push_back(Y(0.3F * static_cast<float>(value)));
      check(expected, [&] {
        const Array<Y> out(session(), y);
        kernels::scale(exec(), {static_cast<double>(0.3F), out.data(), dtype_of<Y>, count});
        return out.host();
      });
    }
  });
}

TEST_P(Elementwise, OrderedSumIsTheTreeOverItsSourcesInFloat) {
  with_each_type([&]<class X>(X) {
    with_each_type([&]<class To>(To) {
      for (int sources = 1; sources <= max_grad_sources; ++sources) {
        const std::size_t count = 1003;  // a strip of 512, another one and a part
        std::vector<std::vector<X>> x;
        for (int k = 0; k < sources; ++k) x.push_back(values_of<X>(count, static_cast<std::uint32_t>(k)));
        std::vector<To> expected;
        for (std::size_t i = 0; i < count; ++i) {
          expected.push_back(To(tree_of(0, x.size(), [&](std::size_t k) { return static_cast<float>(x[k][i]); })));
        }
        check(expected, [&] {
          std::vector<std::unique_ptr<Array<X>>> in;
          const Array<To> out(session(), count);
          OrderedSumArgs args;
          for (std::size_t k = 0; k < x.size(); ++k) {
            in.push_back(std::make_unique<Array<X>>(session(), x[k]));
            args.sources.source[k] = in.back()->data();
          }
          args.sources.count = sources;
          args.sources.dtype = dtype_of<X>;
          args.to = out.data();
          args.to_dtype = dtype_of<To>;
          args.count = count;
          kernels::ordered_sum(exec(), args);
          return out.host();
        });
      }
    });
  });
}

TEST_P(Elementwise, OrderedSumMayWriteToASource) {
  for (const std::size_t target : {0, 1, 2}) {
    const std::size_t count = 2003;
    std::vector<std::unique_ptr<Array<float>>> in;
    OrderedSumArgs args;
    for (std::uint32_t k = 0; k < 3; ++k) {
      in.push_back(std::make_unique<Array<float>>(session(), normal_values<float>(count, k)));
      args.sources.source[k] = in.back()->data();
    }
    args.sources.count = 3;
    args.to = in[target]->data();
    args.count = count;
    kernels::ordered_sum(exec(), args);
    std::vector<float> expected = normal_values<float>(count, 0);
    const std::vector<float> second = normal_values<float>(count, 1), third = normal_values<float>(count, 2);
    for (std::size_t i = 0; i < count; ++i) expected[i] = (expected[i] + second[i]) + third[i];
    EXPECT_EQ(count_differing(in[target]->host(), expected), 0U);
  }
}

TEST_P(Elementwise, RefusesIntegersAndNull) {
  int x = 0;
  EXPECT_THROW(kernels::cast(exec(), {&x, DType::i32, &x, DType::f32, 1}), Error);
  EXPECT_THROW(kernels::axpy(exec(), {1.0, nullptr, DType::f32, &x, DType::f32, 1}), Error);
  EXPECT_THROW(kernels::ordered_sum(exec(), {{}, &x, DType::f32, 1}), Error);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Elementwise, all_backends(), backend_name);

}  // namespace
}  // namespace lockstep::testing
