// The emulator itself: right kernels give the same bits under every thread order, planted faults are found.
#define LOCKSTEP_SIMT_EMU 1
#include "kernels/device/simt.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>
#include <vector>

#include "core/error.hpp"

namespace lockstep {
namespace {

constexpr std::uint64_t orders[] = {simt::forward_order, simt::reverse_order, 1, 2, 3};

enum class Fault { none, no_barrier_before_reuse, no_barrier_after_write, early_return, half_warp_shuffle, wrong_mask };

__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(0xffffffffU, value, offset);
  return value;
}

template <Fault fault>
__device__ float block_sum(float value, float* scratch) {
  value = warp_sum(value);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (fault != Fault::no_barrier_before_reuse) __syncthreads();
  if (lane == 0) scratch[warp] = value;
  if (fault != Fault::no_barrier_after_write) __syncthreads();
  return warp_sum(lane < warps ? scratch[lane] : 0.0F);
}

/// sums[block] <- sum of x, squares[block] <- sum of (x - sum)^2 over the block's row.
template <Fault fault>
__global__ void row_kernel(const float* x, float* sums, float* squares, int columns) {
  LOCKSTEP_SHARED(float, scratch, [32]);
  const float* row = x + std::size_t{blockIdx.x} * static_cast<std::size_t>(columns);
  float sum = 0, square = 0;
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x)) sum += row[i];
  const float total = block_sum<fault>(sum, scratch);
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x)) {
    const float d = row[i] - total;
    square += d * d;
  }
  const float total_square = block_sum<fault>(square, scratch);
  if (fault == Fault::early_return && threadIdx.x >= 32) return;
  if (fault == Fault::early_return) __syncthreads();
  if (fault == Fault::half_warp_shuffle && threadIdx.x % 32 < 16) sum += warp_sum(0.0F);
  if (fault == Fault::wrong_mask) sum = __shfl_xor_sync(0xffff0000U, sum, 1);
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = total;
    squares[blockIdx.x] = total_square;
  }
}

constexpr int rows = 3, columns = 333;

std::vector<float> row_values() {
  std::vector<float> x(std::size_t{rows} * columns);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i)) / 64;
  return x;
}

template <Fault fault>
std::vector<float> run_rows(std::uint64_t seed) {
  const simt::ScopedOrder order(seed);
  const std::vector<float> x = row_values();
  std::vector<float> result(std::size_t{2} * rows);
  const Exec now;
  launch(now, row_kernel<fault>, dim3(rows), dim3(128), 0, x.data(), result.data(), result.data() + rows, columns);
  return result;
}

TEST(Simt, ReductionMatchesDoubleAndDoesNotDependOnTheOrder) {
  const std::vector<float> x = row_values();
  const std::vector<float> first = run_rows<Fault::none>(orders[0]);
  for (int r = 0; r < rows; ++r) {
    double sum = 0, square = 0;
    for (int i = 0; i < columns; ++i) sum += static_cast<double>(x[static_cast<std::size_t>(r * columns + i)]);
    for (int i = 0; i < columns; ++i)
      square += std::pow(static_cast<double>(x[static_cast<std::size_t>(r * columns + i)]) - sum, 2);
    // A float tree over a row of values below 1, and its squares: some 2^-22 of their size.
    EXPECT_NEAR(static_cast<double>(first[static_cast<std::size_t>(r)]), sum, 1e-6);
    EXPECT_NEAR(static_cast<double>(first[static_cast<std::size_t>(rows + r)]), square, 1e-5 * square);
  }
  for (const std::uint64_t order : orders) EXPECT_EQ(run_rows<Fault::none>(order), first);
}

TEST(Simt, MissingBarrierBeforeReuseChangesTheResult) {
  const std::vector<float> right = run_rows<Fault::none>(simt::forward_order);
  int wrong = 0;
  for (const std::uint64_t order : orders) wrong += run_rows<Fault::no_barrier_before_reuse>(order) != right ? 1 : 0;
  EXPECT_GT(wrong, 0);
}

TEST(Simt, MissingBarrierAfterWriteReadsPoison) {
  int poisoned = 0;
  for (const std::uint64_t order : orders)
    for (const float value : run_rows<Fault::no_barrier_after_write>(order)) poisoned += std::isnan(value) ? 1 : 0;
  EXPECT_GT(poisoned, 0);
}

std::string error_of(std::vector<float> (*run)(std::uint64_t)) {
  try {
    (void)run(simt::forward_order);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::internal);
    return error.what();
  }
  return "nothing";
}

TEST(Simt, ReportsABarrierAfterOthersReturned) {
  const std::string error = error_of(run_rows<Fault::early_return>);
  EXPECT_NE(error.find("threads 0-31: __syncthreads at line"), std::string::npos) << error;
  EXPECT_NE(error.find("threads 32-127: returned"), std::string::npos) << error;
}

TEST(Simt, ReportsAFullMaskFromHalfAWarp) {
  const std::string error = error_of(run_rows<Fault::half_warp_shuffle>);
  EXPECT_NE(error.find("warp operation with mask 0xffffffff at line"), std::string::npos) << error;
}

TEST(Simt, ReportsALaneOutsideItsOwnMask) {
  EXPECT_NE(error_of(run_rows<Fault::wrong_mask>).find("is not in its own mask 0xffff0000"), std::string::npos);
}

TEST(Simt, WorksAgainAfterAnError) {
  const std::vector<float> right = run_rows<Fault::none>(simt::forward_order);
  (void)error_of(run_rows<Fault::early_return>);
  EXPECT_EQ(run_rows<Fault::none>(simt::forward_order), right);
}

__global__ void shuffle_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int* row = out + threadIdx.x;
  row[0] = __shfl_sync(0xffffffffU, lane, 5);
  row[64] = __shfl_up_sync(0xffffffffU, lane, 3);
  row[128] = __shfl_down_sync(0xffffffffU, lane, 3);
  row[192] = __shfl_xor_sync(0xffffffffU, lane, 4, 16);
  row[256] = static_cast<int>(__ballot_sync(0xffffffffU, lane % 3 == 0 ? 1 : 0));
  row[320] = __any_sync(0xffffffffU, lane == 31 ? 1 : 0) * 2 + __all_sync(0xffffffffU, lane < 31 ? 1 : 0);
}

TEST(Simt, ShufflesAndVotesMeanWhatCudaSays) {
  std::vector<int> out(384);
  launch(Exec{}, shuffle_kernel, dim3(1), dim3(64), 0, out.data());
  unsigned every_third = 0;
  for (unsigned lane = 0; lane < 32; lane += 3) every_third |= 1U << lane;
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32;
    const auto at = [&](int row) { return out[static_cast<std::size_t>(row * 64 + t)]; };
    EXPECT_EQ(at(0), 5);
    EXPECT_EQ(at(1), lane < 3 ? lane : lane - 3);
    EXPECT_EQ(at(2), lane + 3 > 31 ? lane : lane + 3);
    EXPECT_EQ(at(3), lane ^ 4);
    EXPECT_EQ(static_cast<unsigned>(at(4)), every_third);
    EXPECT_EQ(at(5), 2);
  }
}

__global__ void dynamic_kernel(int* out) {
  LOCKSTEP_DYNAMIC_SHARED(int, values);
  const unsigned t = threadIdx.x + threadIdx.y * blockDim.x;
  if (values[t] == -1) values[t] = static_cast<int>(t);  // poison reads as -1
  __syncthreads();
  const unsigned last = blockDim.x * blockDim.y - 1;
  atomicAdd(out, values[last - t]);
}

TEST(Simt, DynamicSharedMemoryAndAtomics) {
  int sum = 0;
  launch(Exec{}, dynamic_kernel, dim3(2, 2), dim3(8, 5), 40 * sizeof(int), &sum);
  EXPECT_EQ(sum, 4 * (39 * 40 / 2));
}

__global__ void nothing_kernel(int* /*out*/) {}

__global__ void shared_kernel(int* out) {
  LOCKSTEP_SHARED(char, bytes, [1024]);
  bytes[threadIdx.x] = 1;
  if (threadIdx.x == 0) *out += bytes[0];
}

/// The text of the error with which a launch is refused; it names this file as the kernel's place.
std::string refusal(dim3 grid, dim3 block, std::size_t dynamic_shared, void (*kernel)(int*) = nothing_kernel) {
  int out = 0;
  try {
    launch(Exec{}, kernel, grid, block, dynamic_shared, &out);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::internal);
    EXPECT_NE(std::string(error.what()).find("simt_emu_test.cpp:"), std::string::npos) << error.what();
    return error.what();
  }
  return "not refused";
}

TEST(Simt, RefusesWhatDevicesRefuse) {
  const struct {
    dim3 grid, block;
    std::size_t dynamic_shared;
    const char* text;
  } cases[] = {
      {{0x80000000U}, {1}, 0, "a grid.x of 2147483648; devices allow 2147483647"},
      {{1, 65536}, {1}, 0, "a grid.y of 65536; devices allow 65535"},
      {{1, 1, 65536}, {1}, 0, "a grid.z of 65536; devices allow 65535"},
      {{1}, {1025}, 0, "a block.x of 1025; devices allow 1024"},
      {{1}, {1, 1025}, 0, "a block.y of 1025; devices allow 1024"},
      {{1}, {1, 1, 65}, 0, "a block.z of 65; devices allow 64"},
      {{1}, {32, 33}, 0, "a number of threads a block of 1056; devices allow 1024"},
      {{1}, {32}, 49153, "a dynamic shared memory (bytes) of 49153; devices allow 49152"},
      {{0}, {1}, 0, "an empty grid (0, 1, 1) or block (1, 1, 1)"},
      {{1}, {1, 0}, 0, "an empty grid (1, 1, 1) or block (1, 0, 1)"},
  };
  for (const auto& c : cases) EXPECT_THAT(refusal(c.grid, c.block, c.dynamic_shared), ::testing::HasSubstr(c.text));
}

TEST(Simt, RefusesStaticAndDynamicSharedMemoryThatTogetherAreTooMuch) {
  EXPECT_EQ(refusal({1}, {32}, 47 * 1024, shared_kernel), "not refused");
  EXPECT_THAT(refusal({1}, {32}, 47 * 1024 + 1, shared_kernel),
              ::testing::HasSubstr("static and dynamic shared memory (bytes) of 49153; devices allow 49152"));
}

TEST(Simt, LaunchesWhatDevicesLaunch) {
  EXPECT_EQ(refusal({1, 65535}, {1}, 0), "not refused");
  EXPECT_EQ(refusal({1}, {1024}, 49152), "not refused");
  EXPECT_EQ(refusal({1}, {1, 16, 64}, 0), "not refused");
}

TEST(Simt, HostThreadsEmulateSideBySide) {
  const std::vector<float> right = run_rows<Fault::none>(simt::forward_order);
  std::vector<std::vector<float>> results(4);
  {
    std::vector<std::jthread> threads;
    for (auto& result : results)
      threads.emplace_back([&result] {
        for (std::uint64_t seed = 1; seed < 4; ++seed) result = run_rows<Fault::none>(seed);
      });
  }
  for (const auto& result : results) EXPECT_EQ(result, right);
}

__global__ void add_kernel(float* x, float value) { x[threadIdx.x] += value; }

TEST(Simt, LaunchesOnAnEmulatedDeviceAreDelayed) {
  const auto device = make_emulated_device(1);
  const Arena arena(*device, 32 * sizeof(float));
  const Exec exec = {nullptr, device.get(), device->make_stream(), 1, nullptr};
  const auto* x = reinterpret_cast<const float*>(arena.data());
  launch(exec, add_kernel, dim3(1), dim3(32), 0, reinterpret_cast<float*>(arena.data()), 2.0F);
  EXPECT_EQ(x[7], 0.0F);
  device->synchronize(exec.stream);
  EXPECT_EQ(x[7], 2.0F);
  device->destroy(exec.stream);
}

}  // namespace
}  // namespace lockstep
