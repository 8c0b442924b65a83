#pragma once

// How an update rule walks the flat space on a CPU: tiles over threads, a tile in strips whose gradient is in cache, a
// strip in blocks between which the next lines of every stream are fetched. For *_cpu.cpp files; static for the reason
// in kernels/cpu/isa_namespace.hpp.

#include <immintrin.h>

#include "kernels/cpu/grad_strip.hpp"
#include "kernels/cpu/threads.hpp"
#include "kernels/exec.hpp"

namespace lockstep::kernels {

/// Stands for the element type of a 16-bit copy that is not there.
struct NoCopy {};

/// p16[i] <- p, where there is a copy.
template <class T16>
[[gnu::always_inline]] static inline void store_copy(T16* p16, std::size_t i, float p) {
  if constexpr (!__is_same(T16, NoCopy)) p16[i] = T16(p);
}

/// body(static_cast<T16*>(nullptr)) with the element type of the parameters' 16-bit copy, or NoCopy.
template <class Args, class Body>
[[gnu::always_inline]] static inline void with_copy_type(const Args& args, const Body& body) {
  if (args.param16 == nullptr) return body(static_cast<NoCopy*>(nullptr));
  if (args.param16_dtype == DType::bf16) return body(static_cast<bf16*>(nullptr));
  return body(static_cast<f16*>(nullptr));
}

inline constexpr std::size_t update_block = 64;  ///< elements between fetches: four cache lines of each float buffer

template <class T>
[[gnu::always_inline]] static inline void prefetch_block(const T* stream, std::size_t i) {
  if constexpr (!__is_same(T, NoCopy))
    for (std::size_t line = i; line < i + update_block; line += 64 / sizeof(T)) prefetch_line(stream + line);
}

/// update(i) for each element i < count of a strip; `streams` start at its element 0 and are fetched ahead.
template <class Update, class... Streams>
[[gnu::always_inline]] static inline void for_elements(std::size_t count, const Update& update,
                                                       const Streams*... streams) {
  std::size_t i = 0;
  for (; i + update_block <= count; i += update_block) {
    (prefetch_block(streams, i), ...);
#pragma omp simd
    for (std::size_t j = i; j < i + update_block; ++j) update(j);
  }
#pragma omp simd
  for (std::size_t j = i; j < count; ++j) update(j);
}

/// Tiles from which the 16-bit copy of the parameters goes past the caches: it is only written, and writing through a
/// cache reads each line first. Adam's pass with a bf16 copy takes 6 to 9 % less, and reading the copy afterwards no
/// longer (docs/performance.md); below 4 MiB of copy a cache would have kept it.
inline constexpr std::uint32_t streamed_tiles = 128;

/// to[0, count) <- from, past the caches where `to` lies on a cache line. A fence belongs behind the last one.
template <class T16>
static inline void stream_copy(T16* to, const T16* from, std::size_t count) {
#if defined(__AVX512F__)
  typedef __m512i Bytes;
#elif defined(__AVX2__)
  typedef __m256i Bytes;
#else
  typedef __m128i Bytes;
#endif
  constexpr std::size_t step = sizeof(Bytes) / sizeof(std::uint16_t);
  std::size_t i = 0;
  if (reinterpret_cast<std::uintptr_t>(to) % 64 == 0)
    for (; i + step <= count; i += step) {
      Bytes bytes;
      __builtin_memcpy(&bytes, from + i, sizeof bytes);
#if defined(__AVX512F__)
      _mm512_stream_si512(reinterpret_cast<Bytes*>(to + i), bytes);
#elif defined(__AVX2__)
      _mm256_stream_si256(reinterpret_cast<Bytes*>(to + i), bytes);
#else
      _mm_stream_si128(reinterpret_cast<Bytes*>(to + i), bytes);
#endif
    }
  for (; i < count; ++i) to[i] = from[i];
}

/// The elements of one strip: where they are in a rank's shards and in the master, their gradient, their 16-bit copy.
template <class T16>
struct Strip {
  std::size_t shard;
  std::size_t master;
  std::size_t count;
  const float* g;
  T16* p16;  ///< null if there is none
};

/// update(strip, scalars) for the strips of every tile; scalars_of(tile) is worked out once a tile.
template <class T16, class Args, class ScalarsOf, class Update>
static inline void for_strips(const Exec& exec, const Args& args, const ScalarsOf& scalars_of, const Update& update) {
  constexpr bool has_copy = !__is_same(T16, NoCopy);
  const bool streams = has_copy && args.tile_count >= streamed_tiles;
  for_pieces(exec.threads, static_cast<std::int64_t>(args.tile_count), [&](std::int64_t t) {
    alignas(64) float buffer[strip_elements];
    alignas(64) unsigned char copied[strip_elements * sizeof(std::uint16_t)];
    const Tile& tile = args.tiles[t];
    const auto scalars = scalars_of(tile);
    for (std::size_t done = 0; done < tile.count; done += strip_elements) {
      Strip<T16> strip;
      strip.shard = tile.shard_begin + done;
      strip.master = begin_in(tile, args.master_extent) + done;
      strip.count = tile.count - done < strip_elements ? tile.count - done : strip_elements;
      strip.g = gradient_strip(args.grad, begin_in(tile, args.grad.extent) + done, strip.count, buffer);
      T16* const p16 = args.param16 == nullptr
                           ? nullptr
                           : static_cast<T16*>(args.param16) + begin_in(tile, args.param16_extent) + done;
      strip.p16 = streams ? reinterpret_cast<T16*>(copied) : p16;
      update(strip, scalars);
      if constexpr (has_copy)
        if (streams) stream_copy(p16, strip.p16, strip.count);
    }
    if (streams) _mm_sfence();
  });
}

}  // namespace lockstep::kernels
