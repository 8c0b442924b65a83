#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "core/view.hpp"

namespace lockstep {

/// A queue of work of one device, by reference. The null stream of the cpu device means "now, in the caller".
struct StreamRef {
  void* handle = nullptr;
  bool operator==(const StreamRef&) const = default;
};

/// A point in a stream's work, by reference.
struct EventRef {
  void* handle = nullptr;
  bool operator==(const EventRef&) const = default;
};

/// Work captured from a stream, by reference.
struct GraphRef {
  void* handle = nullptr;
  bool operator==(const GraphRef&) const = default;
};

/// Memory, streams, events, copies and host calls of one device: the only way the layers above touch one.
///
/// Implementations: `cpu` (everything happens at once, streams do not matter), `emu` (host memory; work is put
/// off and runs in a random permitted order, so that a missing wait gives a wrong answer in a test) and `cuda`.
/// One object a rank; not thread-safe. Functions that enqueue return before the work is done. Errors of the device are
/// thrown as ErrorKind::environment and leave it in an unknown state.
class DeviceApi {
 public:
  virtual ~DeviceApi() = default;

  [[nodiscard]] virtual std::string name() const = 0;         ///< "cpu", "emu", "cuda:0 (NVIDIA H200)"
  [[nodiscard]] virtual Memory memory() const noexcept = 0;   ///< what allocate() returns; emu says device
  [[nodiscard]] virtual bool immediate() const noexcept = 0;  ///< work is done when the enqueueing call returns

  /// Zero-filled memory, aligned to 256 bytes at least (2 MiB and huge pages on the host where large).
  [[nodiscard]] virtual void* allocate(std::size_t bytes) = 0;
  virtual void deallocate(void* data, std::size_t bytes) noexcept = 0;
  /// Host memory that copies can use without staging.
  [[nodiscard]] virtual void* allocate_pinned(std::size_t bytes) = 0;
  virtual void deallocate_pinned(void* data, std::size_t bytes) noexcept = 0;

  [[nodiscard]] virtual StreamRef make_stream() = 0;
  virtual void destroy(StreamRef stream) noexcept = 0;
  [[nodiscard]] virtual EventRef make_event() = 0;
  virtual void destroy(EventRef event) noexcept = 0;

  virtual void record(EventRef event, StreamRef stream) = 0;  ///< event <- all work enqueued on stream so far
  virtual void wait(StreamRef stream, EventRef event) = 0;    ///< later work of stream waits for event
  [[nodiscard]] virtual bool done(EventRef event) = 0;        ///< never blocks
  virtual void synchronize(EventRef event) = 0;               ///< blocks the host
  virtual void synchronize(StreamRef stream) = 0;

  /// Copies between any two kinds of memory, in stream order. Host memory must stay untouched until then.
  virtual void copy(void* to, const void* from, std::size_t bytes, StreamRef stream) = 0;
  virtual void fill_zero(void* data, std::size_t bytes, StreamRef stream) = 0;
  /// Calls task(context) on the host in stream order. The task must not call the device.
  virtual void call_host(void (*task)(void*), void* context, StreamRef stream) = 0;

  // Graphs. Between begin_capture and end_capture what is enqueued on `stream` is kept instead of done, with the
  // arguments it has now; launch() enqueues all of it, as often as wanted. Meanwhile nothing may be allocated, waited
  // for or asked, and the stream may wait only for events that were recorded on it in the same capture. One capture at
  // a time.
  /// Where false, the other four are ErrorKind::internal.
  [[nodiscard]] virtual bool can_capture() const noexcept { return false; }
  virtual void begin_capture(StreamRef stream);
  /// Null if nothing was enqueued. The caller destroys the graph, after the work of its launches is done.
  [[nodiscard]] virtual GraphRef end_capture(StreamRef stream);
  virtual void launch(GraphRef graph, StreamRef stream);
  virtual void destroy(GraphRef graph) noexcept;
};

/// The host itself. Every call completes before it returns.
[[nodiscard]] std::unique_ptr<DeviceApi> make_cpu_device();

/// Owns device memory of a DeviceApi, which must outlive it. Zero-filled.
class Arena {
 public:
  Arena() = default;
  Arena(DeviceApi& device, std::size_t bytes);
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  template <class T>
  [[nodiscard]] View<T> as() const {
    return {reinterpret_cast<T*>(data_), bytes_ / sizeof(T)};
  }

 private:
  DeviceApi* device_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Host memory that a device copies from and to without staging.
template <class T>
class Pinned {
 public:
  Pinned(DeviceApi& device, std::size_t count)
      : device_(device), count_(count), data_(static_cast<T*>(device.allocate_pinned(count * sizeof(T)))) {}
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  ~Pinned() { device_.deallocate_pinned(data_, count_ * sizeof(T)); }

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return count_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  DeviceApi& device_;
  std::size_t count_;
  T* data_;
};

}  // namespace lockstep
