// Time and GFLOP/s of causal attention, forward and backward, in fp32 and bf16. FLOPs are those of the unmasked part:
// 4 and 10 times batch x heads x head size x length (length + 1) / 2.
//
//   attention_bench [threads] [batch] [length] [heads] [head size] [rounds]

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
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

struct Shape {
  std::int64_t batch, length, heads, head_size;
};

template <class T>
void run(const Exec& exec, const Shape& s, int rounds) {
  const auto plain = static_cast<std::size_t>(s.batch * s.length * s.heads * s.head_size);
  const auto rows = static_cast<std::size_t>(s.batch * s.length * s.heads);
  std::vector<T> qkv(3 * plain), y(plain), dy(plain), dqkv(3 * plain);
  std::vector<float> lse(rows);
  for (std::size_t i = 0; i < qkv.size(); ++i)
    qkv[i] = T(0.125F * static_cast<float>(static_cast<int>(i * 7 % 31) - 15));
  for (std::size_t i = 0; i < plain; ++i) dy[i] = qkv[i];
  const AttentionForwardArgs forward = {.qkv = qkv.data(),
                                        .y = y.data(),
                                        .lse = lse.data(),
                                        .batch = s.batch,
                                        .length = s.length,
                                        .heads = s.heads,
                                        .head_size = s.head_size,
                                        .dtype = dtype_of<T>};
  AttentionBackwardArgs backward = {.dy = dy.data(),
                                    .qkv = qkv.data(),
                                    .y = y.data(),
                                    .lse = lse.data(),
                                    .dqkv = dqkv.data(),
                                    .batch = s.batch,
                                    .length = s.length,
                                    .heads = s.heads,
                                    .head_size = s.head_size,
                                    .dtype = dtype_of<T>};
  std::vector<std::byte> scratch(kernels::scratch_bytes(exec, backward));
  backward.scratch = scratch.data();
  std::vector<double> forward_times, backward_times;
  for (int round = 0; round <= rounds; ++round) {
    const double start = seconds();
    kernels::attention_forward(exec, forward);
    const double middle = seconds();
    kernels::attention_backward(exec, backward);
    if (round == 0) continue;
    forward_times.push_back(middle - start);
    backward_times.push_back(seconds() - middle);
  }
  const double pairs = 0.5e-9 * static_cast<double>(rows) * static_cast<double>(s.length + 1);
  const double flops = 4.0 * pairs * static_cast<double>(s.head_size);
  const double f = median(forward_times), b = median(backward_times);
  fmt::print("{:<5} forward {:8.3f} ms {:6.0f} GFLOP/s   backward {:8.3f} ms {:6.0f} GFLOP/s\n", to_string(dtype_of<T>),
             f * 1e3, flops / f, b * 1e3, 2.5 * flops / b);
}

}  // namespace
}  // namespace lockstep

int main(int count, char** values) {
  using namespace lockstep;
  const auto number = [&](int i, int otherwise) { return count > i ? std::atoi(values[i]) : otherwise; };
  const auto device = make_cpu_device();
  const kernels::Context context(kernels::cpu_table(), *device);
  const Exec exec = {&kernels::cpu_table(), device.get(), {}, number(1, 2), context.get()};
  const Shape shape = {number(2, 8), number(3, 256), number(4, 6), number(5, 64)};
  fmt::print("{}, {} threads, batch {} length {} heads {} head size {}\n", exec.table->name, exec.threads, shape.batch,
             shape.length, shape.heads, shape.head_size);
  run<float>(exec, shape, number(6, 15));
  run<bf16>(exec, shape, number(6, 15));
}
