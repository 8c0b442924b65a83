// Time of one fused AdamW update, and of a loop with the same memory traffic (4 reads, 3 writes, in place) that does no
// arithmetic to speak of: the bound. Both in one interleaved run, because only their ratio is stable (docs/cpu.md).
//
//   adam_bench [threads] [elements] [rounds]

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/device.hpp"
#include "kernels/table.hpp"

namespace lockstep {
namespace {

struct Buffers {
  float *p, *m, *v, *g;
};

__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3"))) void touch(
    float* __restrict p, float* __restrict m, float* __restrict v, const float* __restrict g, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const float x = 1e-9F * g[i];
    p[i] = p[i] + x;
    m[i] = m[i] + x;
    v[i] = v[i] + x;
  }
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void report(const std::string& name, const std::vector<double>& times, std::size_t count, double bytes) {
  const double time = median(times), n = static_cast<double>(count);
  fmt::print("{:<34} {:9.3f} ms  {:6.3f} ns/param  {:6.1f} GB/s\n", name, time * 1e3, time / n * 1e9,
             bytes * n / time / 1e9);
}

void run(int threads, std::size_t count, int rounds) {
  const auto device = make_cpu_device();
  const Arena arena(*device, count * 4 * sizeof(float) + count * sizeof(bf16));
  auto* first = reinterpret_cast<float*>(arena.data());
  const Buffers b = {first, first + count, first + 2 * count, first + 3 * count};
  auto* copy = reinterpret_cast<bf16*>(first + 4 * count);
  for (std::size_t i = 0; i < count; ++i) {
    b.p[i] = 0.02F;
    b.g[i] = 1e-3F * static_cast<float>(static_cast<int>(i % 17) - 8);
  }
  std::vector<Tile> tiles;
  for (std::size_t i = 0; i < count; i += tile_elements)
    tiles.push_back(unsharded_tile(i, static_cast<std::uint32_t>(std::min<std::size_t>(tile_elements, count - i)), 0));
  const GroupStep group = {1e-4, 0.9, 0.95, 0, 0.1, 0.1, 0.05};
  const StepState state;
  const kernels::Context context(kernels::cpu_table(), *device);
  const Exec exec = {&kernels::cpu_table(), device.get(), {}, threads, context.get()};
  AdamArgs args;
  args.master = b.p;
  args.m = b.m;
  args.v = b.v;
  args.grad.source[0] = b.g;
  args.tiles = tiles.data();
  args.tile_count = static_cast<std::uint32_t>(tiles.size());
  args.groups = &group;
  args.state = &state;
  AdamArgs with_copy = args;
  with_copy.param16 = copy;

  const auto tile_count = static_cast<std::int64_t>(tiles.size());
  const auto bound = [&] {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (std::int64_t t = 0; t < tile_count; ++t) {
      const Tile& tile = tiles[static_cast<std::size_t>(t)];
      touch(b.p + tile.begin, b.m + tile.begin, b.v + tile.begin, b.g + tile.begin, tile.count);
    }
  };
  std::vector<double> times[3];
  for (int round = -1; round < rounds; ++round) {
    const double t0 = seconds();
    bound();
    const double t1 = seconds();
    kernels::adam(exec, args);
    const double t2 = seconds();
    kernels::adam(exec, with_copy);
    const double t3 = seconds();
    if (round < 0) continue;  // first touch, first threads
    times[0].push_back(t1 - t0);
    times[1].push_back(t2 - t1);
    times[2].push_back(t3 - t2);
  }
  fmt::print("{} elements, {} threads, {}, median of {}\n", count, threads, exec.table->name, rounds);
  report("bound: 4 reads 3 writes in place", times[0], count, 28);
  report("adamw fp32", times[1], count, 28);
  report("adamw fp32 with a bf16 copy", times[2], count, 30);
  fmt::print("adamw reaches {:.2f} of the bound\n", median(times[0]) / median(times[1]));
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const auto count = static_cast<std::size_t>(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 10'000'000ULL);
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 11;
  if (threads < 1 || count < 1 || rounds < 1) {
    fmt::print(stderr, "usage: adam_bench [threads >= 1] [elements >= 1] [rounds >= 1]\n");
    return 2;
  }
  lockstep::run(threads, count / 64 * 64, rounds);
  return 0;
}
