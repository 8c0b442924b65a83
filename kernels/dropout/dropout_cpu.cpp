#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/threads.hpp"
#include "kernels/declare.hpp"
#include "kernels/dropout/dropout_rule.hpp"
#include "kernels/element.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

constexpr int lanes = static_cast<int>(dropout_lanes);

/// The 64 words of a block, in the order of its elements: Philox::at for 16 counters side by side.
void block_words(std::uint64_t seed, std::uint64_t first_counter, std::uint64_t upper,
                 std::uint32_t* __restrict words) {
  std::uint32_t c0[lanes], c1[lanes], c2[lanes], c3[lanes];
  for (int j = 0; j < lanes; ++j) {
    const std::uint64_t counter = first_counter + static_cast<std::uint64_t>(j);
    c0[j] = static_cast<std::uint32_t>(counter);
    c1[j] = static_cast<std::uint32_t>(counter >> 32);
    c2[j] = static_cast<std::uint32_t>(upper);
    c3[j] = static_cast<std::uint32_t>(upper >> 32);
  }
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
#pragma omp simd
    for (int j = 0; j < lanes; ++j) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0[j];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c2[j];
      c0[j] = static_cast<std::uint32_t>(p1 >> 32) ^ c1[j] ^ k0;
      c2[j] = static_cast<std::uint32_t>(p0 >> 32) ^ c3[j] ^ k1;
      c1[j] = static_cast<std::uint32_t>(p1);
      c3[j] = static_cast<std::uint32_t>(p0);
    }
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  for (int j = 0; j < lanes; ++j) {
    words[j] = c0[j];
    words[lanes + j] = c1[j];
    words[2 * lanes + j] = c2[j];
    words[3 * lanes + j] = c3[j];
  }
}

template <class T>
void drop(const Exec& exec, const DropoutArgs& args) {
  const std::uint64_t first = first_sample_of(args), upper = upper_counter_of(args);
  const std::int64_t blocks = dropout_blocks(args.cols);
  const T* const x = static_cast<const T*>(args.x);
  T* const y = static_cast<T*>(args.y);
  const std::uint32_t threshold = args.threshold;
  const float scale = args.scale;
  for_pieces(threads_for(exec.threads, args.rows * args.cols), args.rows * blocks, [&](std::int64_t piece) {
    const std::int64_t row = piece / blocks, block = piece % blocks;
    alignas(64) std::uint32_t words[dropout_block];
    block_words(args.seed, dropout_counter(first + static_cast<std::uint64_t>(row), args.cols, block, 0), upper, words);
    const std::int64_t begin = row * args.cols + block * dropout_block;
    const std::int64_t left = args.cols - block * dropout_block;
    const std::int64_t count = left < dropout_block ? left : dropout_block;
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i)
      y[begin + i] = T(dropped(static_cast<float>(x[begin + i]), words[i], threshold, scale));
  });
}

}  // namespace

void dropout(const Exec& exec, const DropoutArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) { drop<T>(exec, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
