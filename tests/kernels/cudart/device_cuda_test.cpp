// kernels/cuda/device_cuda.cpp without a GPU: how it waits, gives up and runs out of memory, over a double of the CUDA
// runtime.
#include "kernels/cuda/device_cuda.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "core/error.hpp"
#include "core/out_of_memory.hpp"
#include "tests/kernels/cudart/double.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep::testing {
namespace {

class DeviceCuda : public ::testing::Test {
 protected:
  DeviceCuda() {
    cudart_double() = {};
    device_.reset(new_cuda_device(0));
    stream_ = device_->make_stream();
  }
  std::unique_ptr<DeviceApi> device_;
  StreamRef stream_;
};

TEST_F(DeviceCuda, GivesEverythingBack) {
  {
    const Arena memory(*device_, 1000);
    const Pinned<int> pinned(*device_, 10);
    const StreamRef urgent = device_->make_urgent_stream();
    const EventRef event = device_->make_event(), timed = device_->make_timed_event();
    EXPECT_EQ(memory.data()[999], std::byte{0});
    EXPECT_EQ(pinned[9], 0);
    device_->destroy(urgent);
    device_->destroy(event);
    device_->destroy(timed);
  }
  device_->destroy(stream_);
  EXPECT_EQ(device_->name(), "cuda:0 (Double)");
  device_.reset();
  EXPECT_EQ(cudart_double().live, 0);
  EXPECT_EQ(cudart_double().priorities, (std::vector<int>{0, 0, -5})) << "to clear memory, of the test, urgent";
}

TEST_F(DeviceCuda, LooksAgainUntilTheWorkIsDone) {
  const EventRef event = device_->make_event();
  cudart_double().looks_until_done = 5;
  EXPECT_FALSE(device_->done(event));
  device_->synchronize(event);
  EXPECT_EQ(cudart_double().looks, 6);
  EXPECT_EQ(cudart_double().pending_error, 0) << "\"not ready\" is no error for the next launch to find";
  EXPECT_TRUE(device_->try_synchronize(stream_));
}

TEST_F(DeviceCuda, AfterAWaitThatWasGivenUpNothingIsFreed) {
  {
    const Arena memory(*device_, 1000);
    const Pinned<int> pinned(*device_, 10);
    cudart_double().stuck = true;
    device_->set_wait_deadline(std::chrono::milliseconds(2));
    const std::string text = error_text(ErrorKind::hang, [&] { device_->synchronize(stream_); });
    EXPECT_EQ(text.rfind("cuda:0 (Double): the work of a stream is not done after 0.002 s", 0), 0U) << text;
  }
  device_->destroy(stream_);
  device_.reset();
  EXPECT_EQ(cudart_double().blocking_calls, 0) << "freeing waits for work that never ends";
}

TEST_F(DeviceCuda, WhatTheCheckThrowsEndsTheWaitAndIsGivenUpAlike) {
  cudart_double().stuck = true;
  device_->set_wait_check([] { fail(ErrorKind::hang, "rank 1 is gone"); });
  EXPECT_EQ(error_text(ErrorKind::hang, [&] { device_->synchronize(device_->make_event()); }), "rank 1 is gone");
  EXPECT_FALSE(device_->try_synchronize(stream_));
  device_.reset();
  EXPECT_EQ(cudart_double().blocking_calls, 0);
}

TEST_F(DeviceCuda, AnErrorOfTheDeviceIsTold) {
  cudart_double().broken = true;
  const std::string text = error_text(ErrorKind::environment, [&] { device_->synchronize(stream_); });
  EXPECT_EQ(text, "CUDA: the work of a stream failed: an error of the double (cudaErrorIllegalAddress)");
}

TEST_F(DeviceCuda, OutOfMemorySaysWhatWasAskedAndWhatIsFreeAndLeavesNoError) {
  try {
    (void)device_->allocate(std::size_t{3} << 30);
    FAIL() << "not refused";
  } catch (const OutOfMemory& error) {
    EXPECT_STREQ(
        error.what(),
        "out of GPU memory: 3.00 GiB asked for, 1.00 GiB of 4.00 GiB free; use a smaller model, micro-batch or "
        "fewer ranks on this GPU");
    EXPECT_EQ(error.memory().free, std::size_t{1} << 30);
  }
  EXPECT_EQ(cudart_double().pending_error, 0);
  EXPECT_THROW((void)device_->allocate_pinned(std::size_t{3} << 30), OutOfMemory);
}

TEST_F(DeviceCuda, ThereIsNoSecondGpu) {
  const std::string text = error_text(ErrorKind::environment, [] { delete new_cuda_device(1); });
  EXPECT_NE(text.find("choosing the GPU failed"), std::string::npos) << text;
}

}  // namespace
}  // namespace lockstep::testing
