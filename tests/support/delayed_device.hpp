#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "core/device.hpp"

namespace lockstep::test {

/// Host memory that calls itself device memory. Work is put off until a synchronisation forces it, and runs then in a
/// random order among what the streams and events permit: a forgotten wait reads stale data under some seed.
class DelayedDevice final : public DeviceApi {
 public:
  explicit DelayedDevice(std::uint64_t seed) : host_(make_cpu_device()), random_(seed) {}

  [[nodiscard]] std::string name() const override { return "delayed"; }
  [[nodiscard]] Memory memory() const noexcept override { return Memory::device; }
  [[nodiscard]] bool immediate() const noexcept override { return false; }

  [[nodiscard]] void* allocate(std::size_t bytes) override { return host_->allocate(bytes); }
  void deallocate(void* data, std::size_t bytes) noexcept override { host_->deallocate(data, bytes); }
  [[nodiscard]] void* allocate_pinned(std::size_t bytes) override { return host_->allocate_pinned(bytes); }
  void deallocate_pinned(void* data, std::size_t bytes) noexcept override { host_->deallocate_pinned(data, bytes); }

  [[nodiscard]] StreamRef make_stream() override { return {new Point}; }
  void destroy(StreamRef stream) noexcept override { delete point(stream); }
  [[nodiscard]] EventRef make_event() override { return {new Point}; }
  void destroy(EventRef event) noexcept override { delete point(event); }

  void record(EventRef event, StreamRef stream) override { *point(event) = *point(stream); }
  void wait(StreamRef stream, EventRef event) override {
    auto& after = point(stream)->after;
    after.insert(after.end(), point(event)->after.begin(), point(event)->after.end());
  }
  [[nodiscard]] bool done(EventRef event) override {
    for (const auto& work : point(event)->after)
      if (!work->done) return false;
    return true;
  }
  void synchronize(EventRef event) override { run_until(*point(event)); }
  void synchronize(StreamRef stream) override { run_until(*point(stream)); }

  void copy(void* to, const void* from, std::size_t bytes, StreamRef stream) override {
    enqueue(stream, [=] {
      if (bytes > 0) std::memcpy(to, from, bytes);
    });
  }
  void fill_zero(void* data, std::size_t bytes, StreamRef stream) override {
    enqueue(stream, [=] { std::memset(data, 0, bytes); });
  }
  void call_host(void (*task)(void*), void* context, StreamRef stream) override {
    enqueue(stream, [=] { task(context); });
  }

 private:
  struct Work {
    std::function<void()> run;
    std::vector<std::shared_ptr<Work>> after;
    bool done = false;
  };
  /// Where a stream has got to, or what an event stands for.
  struct Point {
    std::vector<std::shared_ptr<Work>> after;
  };

  static Point* point(StreamRef stream) { return static_cast<Point*>(stream.handle); }
  static Point* point(EventRef event) { return static_cast<Point*>(event.handle); }

  void enqueue(StreamRef stream, std::function<void()> run) {
    auto work = std::make_shared<Work>(Work{std::move(run), point(stream)->after});
    point(stream)->after = {work};
    queue_.push_back(std::move(work));
  }

  static bool all_done(const std::vector<std::shared_ptr<Work>>& works) {
    for (const auto& work : works)
      if (!work->done) return false;
    return true;
  }

  void run_until(const Point& target) {
    const auto goal = target.after;
    while (!all_done(goal)) {
      std::vector<std::size_t> ready;
      for (std::size_t i = 0; i < queue_.size(); ++i)
        if (all_done(queue_[i]->after)) ready.push_back(i);
      const std::size_t chosen = ready[random_() % ready.size()];
      const std::shared_ptr<Work> work = queue_[chosen];
      queue_.erase(queue_.begin() + static_cast<std::ptrdiff_t>(chosen));
      work->run();
      work->done = true;
      work->after.clear();
    }
  }

  std::unique_ptr<DeviceApi> host_;
  std::mt19937_64 random_;
  std::vector<std::shared_ptr<Work>> queue_;
};

}  // namespace lockstep::test
