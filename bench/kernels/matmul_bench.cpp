// GFLOP/s of the products of one transformer layer, forward, input gradient and weight gradient, in fp32 and in bf16
// with packed weights (a new version every call, as in training without accumulation; and an old one, as with it).
// All variants of a shape are interleaved in one run, because only their ratios are stable.
//
//   matmul_bench [threads] [tokens] [channels] [rounds]

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "core/device.hpp"
#include "kernels/table.hpp"

namespace lockstep {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Values that neither grow nor vanish in a product.
template <class T>
std::vector<T> filled(std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = T(0.125F * static_cast<float>(static_cast<int>(i % 13) - 6));
  return values;
}

struct Product {
  std::string name;
  std::int64_t m, n, k;
  bool transpose_a, transpose_b;
  bool weight;  ///< b is a weight; otherwise the product accumulates a weight gradient in fp32
};

std::vector<Product> products(std::int64_t tokens, std::int64_t channels) {
  struct Linear {
    const char* name;
    std::int64_t in, out;
  };
  const Linear layers[] = {{"qkv", channels, 3 * channels},
                           {"proj", channels, channels},
                           {"fc", channels, 4 * channels},
                           {"fcproj", 4 * channels, channels}};
  std::vector<Product> list;
  for (const auto& [name, in, out] : layers) {
    list.push_back({fmt::format("{} forward", name), tokens, out, in, false, false, true});
    list.push_back({fmt::format("{} dX", name), tokens, in, out, false, true, true});
    list.push_back({fmt::format("{} dW", name), in, out, tokens, true, false, false});
  }
  return list;
}

void run(const Exec& exec, const Product& p, int rounds) {
  const auto a = filled<float>(p.m * p.k), b = filled<float>(p.k * p.n), bias = filled<float>(p.n);
  const auto a16 = filled<bf16>(p.m * p.k), b16 = filled<bf16>(p.k * p.n), bias16 = filled<bf16>(p.n);
  std::vector<float> c(static_cast<std::size_t>(p.m * p.n));
  std::vector<bf16> c16(c.size());
  const bool forward = p.weight && !p.transpose_b;
  MatmulArgs single = {.a = a.data(), .b = b.data(), .c = c.data(), .m = p.m, .n = p.n, .k = p.k};
  single.bias = forward ? bias.data() : nullptr;
  single.lda = p.transpose_a ? p.m : p.k;
  single.ldb = p.transpose_b ? p.k : p.n;
  single.ldc = p.n;
  single.transpose_a = p.transpose_a;
  single.transpose_b = p.transpose_b;
  single.accumulate = !p.weight;
  MatmulArgs half = single;
  half.a = a16.data();
  half.b = b16.data();
  half.bias = forward ? bias16.data() : nullptr;
  half.dtype = DType::bf16;
  if (p.weight) {
    half.c = c16.data();
    half.c_dtype = DType::bf16;
  }
  MatmulArgs kept = half;
  kept.b_param = p.weight ? 0 : -1;
  std::uint64_t version = 1;

  const std::function<void()> variants[] = {[&] { kernels::matmul(exec, single); },
                                            [&] { kernels::matmul(exec, half); },
                                            [&] {
                                              kept.b_version = ++version;
                                              kernels::matmul(exec, kept);
                                            },
                                            [&] { kernels::matmul(exec, kept); }};
  std::vector<double> times[4];
  for (int round = 0; round <= rounds; ++round)
    for (std::size_t v = 0; v < 4; ++v) {
      const double start = seconds();
      variants[v]();
      if (round > 0) times[v].push_back(seconds() - start);
    }
  const double flops = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k) * 1e-9;
  fmt::print("{:<15} {:>5} x {:>5} x {:>5} {:>8.0f} {:>8.0f} {:>10.0f} {:>10.0f}\n", p.name, p.m, p.n, p.k,
             flops / median(times[0]), flops / median(times[1]), flops / median(times[2]), flops / median(times[3]));
}

}  // namespace
}  // namespace lockstep

int main(int count, char** values) {
  using namespace lockstep;
  const auto number = [&](int i, int otherwise) { return count > i ? std::atoi(values[i]) : otherwise; };
  const auto device = make_cpu_device();
  const kernels::Context context(kernels::cpu_table(), *device);
  const Exec exec = {&kernels::cpu_table(), device.get(), {}, number(1, 2), context.get()};
  fmt::print("{}, {} threads, GFLOP/s (median)\n", exec.table->name, exec.threads);
  fmt::print("{:<15} {:>21} {:>8} {:>8} {:>10} {:>10}\n", "product", "m x n x k", "fp32", "bf16", "packed now",
             "packed");
  for (const Product& product : products(number(2, 512), number(3, 384))) run(exec, product, number(4, 15));
}
