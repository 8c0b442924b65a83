#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "core/error.hpp"
#include "kernels/emu/emu_device.hpp"

namespace lockstep::test {

/// Host memory that calls itself device memory, and streams that are threads: work goes on while the host does
/// something else, and a stream that hangs hangs alone, as on a GPU. Each stream dawdles at random, so that a forgotten
/// wait reads stale data now and then. Freeing memory waits for all streams, as cudaFree does.
class AsyncDevice final : public EmuDevice {
 public:
  explicit AsyncDevice(std::uint64_t seed) : host_(make_cpu_device()), seed_(seed) {}
  ~AsyncDevice() override {
    for (Stream& stream : streams_) stream.end();
  }

  [[nodiscard]] std::string name() const override { return "async"; }
  [[nodiscard]] Memory memory() const noexcept override { return Memory::device; }
  [[nodiscard]] bool immediate() const noexcept override { return false; }

  [[nodiscard]] void* allocate(std::size_t bytes) override { return host_->allocate(bytes); }
  void deallocate(void* data, std::size_t bytes) noexcept override {
    drain();
    host_->deallocate(data, bytes);
  }
  [[nodiscard]] void* allocate_pinned(std::size_t bytes) override { return host_->allocate_pinned(bytes); }
  void deallocate_pinned(void* data, std::size_t bytes) noexcept override {
    drain();
    host_->deallocate_pinned(data, bytes);
  }

  [[nodiscard]] StreamRef make_stream() override { return {&streams_.emplace_back(seed_++)}; }
  /// The work that is left is done all the same.
  void destroy(StreamRef stream) noexcept override { stream_of(stream).end(); }
  [[nodiscard]] EventRef make_event() override { return {new Event}; }
  void destroy(EventRef event) noexcept override { delete static_cast<Event*>(event.handle); }

  void record(EventRef event, StreamRef stream) override {
    Event& recorded = *static_cast<Event*>(event.handle);
    recorded = std::make_shared<Flag>();
    stream_of(stream).push([flag = recorded] { flag->set(); });
  }
  void wait(StreamRef stream, EventRef event) override {
    const Event& recorded = *static_cast<Event*>(event.handle);
    if (recorded) stream_of(stream).push([flag = recorded] { flag->wait(); });
  }
  [[nodiscard]] bool done(EventRef event) override {
    const Event& recorded = *static_cast<Event*>(event.handle);
    return !recorded || recorded->is_set();
  }
  void synchronize(EventRef event) override {
    wait_until([&] { return done(event); }, "work before an event");
  }
  void synchronize(StreamRef stream) override {
    wait_until([&] { return stream_of(stream).empty(); }, "the work of a stream");
  }

  void copy(void* to, const void* from, std::size_t bytes, StreamRef stream) override {
    if (bytes > 0) enqueue(stream, [=] { std::memmove(to, from, bytes); });
  }
  void fill_zero(void* data, std::size_t bytes, StreamRef stream) override {
    // Words that a host looks at meanwhile, as it may where a GPU writes.
    if (bytes == sizeof(std::uint32_t))
      enqueue(stream, [=] { std::atomic_ref(*static_cast<std::uint32_t*>(data)).store(0, std::memory_order_release); });
    else if (bytes > 0)
      enqueue(stream, [=] { std::memset(data, 0, bytes); });
  }
  void call_host(void (*task)(void*), void* context, StreamRef stream) override {
    enqueue(stream, [=] { task(context); });
  }
  void enqueue(StreamRef stream, std::function<void()> work) override { stream_of(stream).push(std::move(work)); }

 private:
  class Flag {
   public:
    void set() {
      const std::lock_guard lock(mutex_);
      set_ = true;
      changed_.notify_all();
    }
    [[nodiscard]] bool is_set() {
      const std::lock_guard lock(mutex_);
      return set_;
    }
    void wait() {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return set_; });
    }

   private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool set_ = false;
  };
  using Event = std::shared_ptr<Flag>;  ///< null: never recorded

  class Stream {
   public:
    explicit Stream(std::uint64_t seed) : random_(seed), thread_([this] { run(); }) {}
    void push(std::function<void()> work) {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(work));
      changed_.notify_all();
    }
    [[nodiscard]] bool empty() {
      const std::lock_guard lock(mutex_);
      return queue_.empty();
    }
    void drain() {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return queue_.empty(); });
    }
    void end() {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      changed_.notify_all();
    }

   private:
    void run() {
      std::unique_lock lock(mutex_);
      for (;;) {
        changed_.wait(lock, [this] { return ended_ || !queue_.empty(); });
        if (queue_.empty()) return;
        const auto work = queue_.front();  // stays there until it is done
        lock.unlock();
        if (random_() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random_() % 60));
        work();
        lock.lock();
        queue_.pop_front();
        changed_.notify_all();
      }
    }

    std::mt19937_64 random_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> queue_;
    bool ended_ = false;
    std::jthread thread_;  // last: it uses the others
  };

  static Stream& stream_of(StreamRef stream) {
    require(stream.handle != nullptr, "async device: work needs a stream");
    return *static_cast<Stream*>(stream.handle);
  }
  void drain() {
    for (Stream& stream : streams_) stream.drain();
  }

  std::unique_ptr<DeviceApi> host_;
  std::uint64_t seed_;
  std::list<Stream> streams_;
};

}  // namespace lockstep::test
