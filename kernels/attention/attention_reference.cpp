#include <cmath>
#include <vector>

#include "core/error.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::reference {
namespace {

double widen(double x) { return x; }
template <class T>
double widen(T x) {
  return static_cast<double>(static_cast<float>(x));
}

template <class T>
T narrow(double x) {
  if constexpr (std::is_same_v<T, double>)
    return x;
  else
    return static_cast<T>(static_cast<float>(x));
}

/// Rows of one head of one sequence: row t begins at data + t * stride.
template <class T>
struct Rows {
  T* data;
  std::int64_t stride;
  T* operator[](std::int64_t t) const { return data + t * stride; }
};

/// part: 0 query, 1 key, 2 value.
template <class T, class Args>
Rows<T> packed(T* qkv, const Args& args, std::int64_t b, std::int64_t h, std::int64_t part) {
  const std::int64_t width = args.heads * args.head_size;
  return {qkv + b * args.length * 3 * width + part * width + h * args.head_size, 3 * width};
}

template <class T, class Args>
Rows<T> plain(T* y, const Args& args, std::int64_t b, std::int64_t h) {
  const std::int64_t width = args.heads * args.head_size;
  return {y + b * args.length * width + h * args.head_size, width};
}

template <class T>
double dot(const T* a, const T* b, std::int64_t n) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < n; ++i) sum += widen(a[i]) * widen(b[i]);
  return sum;
}

template <class T>
void forward(const AttentionForwardArgs& args) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(args.head_size));
  std::vector<double> p(static_cast<std::size_t>(args.length));
  for (std::int64_t b = 0; b < args.batch; ++b)
    for (std::int64_t h = 0; h < args.heads; ++h) {
      const auto q = packed(static_cast<const T*>(args.qkv), args, b, h, 0);
      const auto k = packed(static_cast<const T*>(args.qkv), args, b, h, 1);
      const auto v = packed(static_cast<const T*>(args.qkv), args, b, h, 2);
      const auto y = plain(static_cast<T*>(args.y), args, b, h);
      for (std::int64_t i = 0; i < args.length; ++i) {
        double top = -INFINITY;
        for (std::int64_t j = 0; j <= i; ++j) {
          const double score = scale * dot(q[i], k[j], args.head_size);
          p[static_cast<std::size_t>(j)] = score;
          if (!(score <= top)) top = score;  // a NaN stays
        }
        double sum = 0.0;
        for (std::int64_t j = 0; j <= i; ++j) {
          double& weight = p[static_cast<std::size_t>(j)];
          weight = std::exp(weight - top);
          sum += weight;
        }
        for (std::int64_t d = 0; d < args.head_size; ++d) {
          double value = 0.0;
          for (std::int64_t j = 0; j <= i; ++j) value += p[static_cast<std::size_t>(j)] * widen(v[j][d]);
          y[i][d] = narrow<T>(value / sum);
        }
        args.lse[(b * args.heads + h) * args.length + i] = static_cast<float>(top + std::log(sum));
      }
    }
}

template <class T>
void backward(const AttentionBackwardArgs& args) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(args.head_size));
  const auto size = static_cast<std::size_t>(args.length * args.head_size);
  for (std::int64_t b = 0; b < args.batch; ++b)
    for (std::int64_t h = 0; h < args.heads; ++h) {
      const auto q = packed(static_cast<const T*>(args.qkv), args, b, h, 0);
      const auto k = packed(static_cast<const T*>(args.qkv), args, b, h, 1);
      const auto v = packed(static_cast<const T*>(args.qkv), args, b, h, 2);
      const auto y = plain(static_cast<const T*>(args.y), args, b, h);
      const auto dy = plain(static_cast<const T*>(args.dy), args, b, h);
      const float* lse = args.lse + (b * args.heads + h) * args.length;
      std::vector<double> dq(size), dk(size), dv(size);
      for (std::int64_t i = 0; i < args.length; ++i) {
        const double mean = dot(dy[i], y[i], args.head_size);
        for (std::int64_t j = 0; j <= i; ++j) {
          const double p = std::exp(scale * dot(q[i], k[j], args.head_size) - static_cast<double>(lse[i]));
          const double ds = p * (dot(dy[i], v[j], args.head_size) - mean) * scale;
          for (std::int64_t d = 0; d < args.head_size; ++d) {
            dq[static_cast<std::size_t>(i * args.head_size + d)] += ds * widen(k[j][d]);
            dk[static_cast<std::size_t>(j * args.head_size + d)] += ds * widen(q[i][d]);
            dv[static_cast<std::size_t>(j * args.head_size + d)] += p * widen(dy[i][d]);
          }
        }
      }
      const std::vector<double>* parts[3] = {&dq, &dk, &dv};
      for (std::int64_t part = 0; part < 3; ++part) {
        const auto out = packed(static_cast<T*>(args.dqkv), args, b, h, part);
        for (std::int64_t t = 0; t < args.length; ++t)
          for (std::int64_t d = 0; d < args.head_size; ++d)
            out[t][d] = narrow<T>((*parts[part])[static_cast<std::size_t>(t * args.head_size + d)]);
      }
    }
}

}  // namespace

// f64 is for finite-difference tests of this definition; the public functions take it away.
void attention_forward(const Exec&, const AttentionForwardArgs& args) {
  if (args.dtype == DType::f32) return forward<float>(args);
  if (args.dtype == DType::bf16) return forward<bf16>(args);
  if (args.dtype == DType::f16) return forward<f16>(args);
  if (args.dtype == DType::f64) return forward<double>(args);
  fail(ErrorKind::internal, "attention_forward: no reference for {}", to_string(args.dtype));
}

void attention_backward(const Exec&, const AttentionBackwardArgs& args) {
  if (args.dtype == DType::f32) return backward<float>(args);
  if (args.dtype == DType::bf16) return backward<bf16>(args);
  if (args.dtype == DType::f16) return backward<f16>(args);
  if (args.dtype == DType::f64) return backward<double>(args);
  fail(ErrorKind::internal, "attention_backward: no reference for {}", to_string(args.dtype));
}

}  // namespace lockstep::kernels::reference
