#include "run/host_speed.hpp"

#include <algorithm>
#include <chrono>
#include <functional>

#include "run/bench/ceilings.hpp"

namespace lockstep::run {
namespace {

using Clock = std::chrono::steady_clock;

/// The shortest of a few calls, in seconds; the first call, which sets things up, is not among them.
double shortest(const std::function<void()>& work) {
  work();
  double best = 1e9, all = 0;
  for (int i = 0; i < 20 && (i < 2 || all < 0.01); ++i) {
    const auto begin = Clock::now();
    work();
    const double took = std::chrono::duration<double>(Clock::now() - begin).count();
    best = std::min(best, took);
    all += took;
  }
  return best;
}

}  // namespace

double product_speed(const engine::Place& place, DType dtype) {
  constexpr std::int64_t edge = 768;
  const kernels::Context context(*place.kernels, *place.device);
  const Exec exec{.table = place.kernels, .device = place.device, .threads = place.threads, .context = context.get()};
  constexpr std::size_t elements = edge * edge;
  const Arena a(*place.device, elements * sizeof(float)), b(*place.device, elements * sizeof(float)),
      c(*place.device, elements * sizeof(float));
  const MatmulArgs args{.a = a.data(),
                        .b = b.data(),
                        .c = c.data(),
                        .m = edge,
                        .n = edge,
                        .k = edge,
                        .lda = edge,
                        .ldb = edge,
                        .ldc = edge,
                        .dtype = dtype,
                        .c_dtype = dtype,
                        .b_param = 0,
                        .b_version = 1};
  return 2.0 * edge * edge * edge / shortest([&] { kernels::matmul(exec, args); });
}

double memory_speed(const engine::Place& place) {
  constexpr std::size_t elements = std::size_t{4} << 20;
  std::vector<Arena> arrays;
  for (int i = 0; i < 4; ++i) arrays.emplace_back(*place.device, elements * sizeof(float));
  const auto at = [&](std::size_t i) { return reinterpret_cast<float*>(arrays[i].data()); };
  const bench::Task update = bench::in_place_update({at(0), at(1), at(2), at(3), elements}, place.threads);
  return update.bytes / shortest(update.run);
}

}  // namespace lockstep::run
