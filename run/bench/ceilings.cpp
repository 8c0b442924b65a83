#include "run/bench/ceilings.hpp"

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/isa.hpp"

namespace lockstep::run::bench {
namespace {

constexpr std::size_t chunk = 16384;  ///< elements: as an update's tiles

// Compiled for each instruction set by hand, since only kernels' files are by the build.

[[gnu::always_inline]] inline void update_loop(float* __restrict p, float* __restrict m, float* __restrict v,
                                               const float* __restrict g, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const float x = 1e-9F * g[i];
    p[i] = p[i] + x;
    m[i] = m[i] + x;
    v[i] = v[i] + x;
  }
}
[[gnu::target("avx512f,prefer-vector-width=512")]] void update_avx512(const UpdateArrays& a, std::size_t i,
                                                                      std::size_t count) {
  update_loop(a.p + i, a.m + i, a.v + i, a.g + i, count);
}
[[gnu::target("avx2")]] void update_avx2(const UpdateArrays& a, std::size_t i, std::size_t count) {
  update_loop(a.p + i, a.m + i, a.v + i, a.g + i, count);
}
void update_baseline(const UpdateArrays& a, std::size_t i, std::size_t count) {
  update_loop(a.p + i, a.m + i, a.v + i, a.g + i, count);
}

[[gnu::target("avx512f")]] void copy_avx512(float* to, const float* from, std::size_t count) {
  for (std::size_t i = 0; i < count; i += 16) _mm512_stream_ps(to + i, _mm512_loadu_ps(from + i));
}
[[gnu::target("avx")]] void copy_avx(float* to, const float* from, std::size_t count) {
  for (std::size_t i = 0; i < count; i += 8) _mm256_stream_ps(to + i, _mm256_loadu_ps(from + i));
}

/// `count` is a multiple of 16, `to` lies on a 64-byte boundary.
void stream_aligned(float* to, const float* from, std::size_t count) {
  switch (current_isa()) {
    case Isa::avx512:
      copy_avx512(to, from, count);
      break;
    case Isa::avx2:
      copy_avx(to, from, count);
      break;
    case Isa::baseline:
      std::memcpy(to, from, count * sizeof(float));
      break;
  }
  _mm_sfence();
}

void update_chunk(const UpdateArrays& arrays, std::size_t i, std::size_t count) {
  switch (current_isa()) {
    case Isa::avx512:
      return update_avx512(arrays, i, count);
    case Isa::avx2:
      return update_avx2(arrays, i, count);
    case Isa::baseline:
      return update_baseline(arrays, i, count);
  }
}

}  // namespace

Task in_place_update(const UpdateArrays& arrays, int threads) {
  Task task{.name = "4 reads and 3 writes in place",
            .shape = std::to_string(arrays.count),
            .bytes = 28.0 * static_cast<double>(arrays.count),
            .run = {}};
  task.run = [arrays, threads] {
    const auto chunks = static_cast<std::int64_t>((arrays.count + chunk - 1) / chunk);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (std::int64_t c = 0; c < chunks; ++c) {
      const std::size_t first = static_cast<std::size_t>(c) * chunk;
      update_chunk(arrays, first, std::min(chunk, arrays.count - first));
    }
  };
  return task;
}

void stream_copy(float* to, const float* from, std::size_t count, int threads) {
  const std::size_t even = reinterpret_cast<std::uintptr_t>(to) % 64 == 0 ? count / 16 * 16 : 0;
  const auto chunks = static_cast<std::int64_t>((even + chunk - 1) / chunk);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t c = 0; c < chunks; ++c) {
    const std::size_t first = static_cast<std::size_t>(c) * chunk;
    stream_aligned(to + first, from + first, std::min(chunk, even - first));
  }
  std::copy(from + even, from + count, to + even);
}

Task copy_of(const std::string& name, const Exec& exec, void* to, const void* from, std::size_t bytes) {
  Task task{
      .name = name, .shape = std::to_string(bytes) + " bytes", .bytes = 2.0 * static_cast<double>(bytes), .run = {}};
  if (exec.device->immediate()) {
    task.run = [=] {
      // Small ones stay in a cache, which a copy past it would miss.
      if (bytes < (std::size_t{4} << 20))
        std::memcpy(to, from, bytes);
      else
        stream_copy(static_cast<float*>(to), static_cast<const float*>(from), bytes / sizeof(float), exec.threads);
    };
  } else {
    task.run = [=] { exec.device->copy(to, from, bytes, exec.stream); };
  }
  return task;
}

}  // namespace lockstep::run::bench
