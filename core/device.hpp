#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

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

/// Memory of one device in bytes, other users' included.
struct MemoryInfo {
  std::size_t free = 0;
  std::size_t total = 0;
};

/// Memory, streams, events, copies and host calls of one device: the only way the layers above touch one.
///
/// Implementations: `cpu` (everything happens at once, streams do not matter), `emu` (host memory; work is put
/// off and runs in a random permitted order, so that a missing wait gives a wrong answer in a test) and `cuda`.
/// One object a rank; not thread-safe. Functions that enqueue return before the work is done. Errors of the device are
/// thrown as ErrorKind::environment and leave it in an unknown state.
///
/// The host waits for a device by looking again and again (synchronize): between two looks it calls the wait check,
/// which may throw what it found, and past the wait deadline it throws ErrorKind::hang. So a peer that is gone, or a
/// collective that never ends, ends the wait and not the program. After a wait that ended so, work is still under way:
/// the device must be let go of, and gives no memory back.
class DeviceApi {
 public:
  virtual ~DeviceApi() = default;

  [[nodiscard]] virtual std::string name() const = 0;         ///< "cpu", "emu", "cuda:0 (NVIDIA H200)"
  [[nodiscard]] virtual Memory memory() const noexcept = 0;   ///< what allocate() returns; emu says device
  [[nodiscard]] virtual bool immediate() const noexcept = 0;  ///< work is done when the enqueueing call returns

  /// Before another thread than the one that made the device uses it, one at a time: called on that thread.
  virtual void use_here() {}

  /// What allocate() can still take. On the host: what the machine has, whatever limits a control group sets.
  [[nodiscard]] virtual MemoryInfo memory_info();
  /// Zero-filled memory, aligned to 256 bytes at least (2 MiB and huge pages on the host where large). Throws
  /// OutOfMemory (core/out_of_memory.hpp).
  [[nodiscard]] virtual void* allocate(std::size_t bytes) = 0;
  virtual void deallocate(void* data, std::size_t bytes) noexcept = 0;
  /// Host memory that copies can use without staging.
  [[nodiscard]] virtual void* allocate_pinned(std::size_t bytes) = 0;
  virtual void deallocate_pinned(void* data, std::size_t bytes) noexcept = 0;

  [[nodiscard]] virtual StreamRef make_stream() = 0;
  /// A stream whose work goes before that of other streams wherever both could run: for what others wait for.
  [[nodiscard]] virtual StreamRef make_urgent_stream() { return make_stream(); }
  virtual void destroy(StreamRef stream) noexcept = 0;
  [[nodiscard]] virtual EventRef make_event() = 0;
  /// An event that elapsed_ms() can be asked about. Not to be recorded in a capture.
  [[nodiscard]] virtual EventRef make_timed_event() { return make_event(); }
  virtual void destroy(EventRef event) noexcept = 0;

  virtual void record(EventRef event, StreamRef stream) = 0;  ///< event <- all work enqueued on stream so far
  virtual void wait(StreamRef stream, EventRef event) = 0;    ///< later work of stream waits for event
  [[nodiscard]] virtual bool done(EventRef event) = 0;        ///< never blocks
  virtual void synchronize(EventRef event) = 0;               ///< blocks the host, in the way said above
  virtual void synchronize(StreamRef stream) = 0;
  /// Milliseconds of the device between two timed events that were recorded and are done; `from` is the earlier one.
  [[nodiscard]] virtual double elapsed_ms(EventRef from, EventRef to);

  /// Called by the host while it waits, a few hundred times a second or more; null: nothing is called. It must not call
  /// this device.
  void set_wait_check(std::function<void()> check) { wait_check_ = std::move(check); }
  /// How long one wait may last; zero: for ever. At first it is zero.
  void set_wait_deadline(std::chrono::duration<double> deadline) { wait_deadline_ = deadline; }
  /// synchronize() for destructors: whether the work is done. Never throws.
  [[nodiscard]] bool try_synchronize(StreamRef stream) noexcept;

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

 protected:
  /// Returns once done() does; else what the wait check throws, or ErrorKind::hang past the deadline. done() is asked
  /// without a pause at first, then at growing intervals of at most a millisecond. `what` is waited for: "a stream".
  void wait_until(const std::function<bool()>& done, const char* what) const;
  /// What happens between two looks of a wait that began then.
  void check_wait(std::chrono::steady_clock::time_point begin, const char* what) const;

 private:
  std::function<void()> wait_check_;
  std::chrono::duration<double> wait_deadline_{0.0};
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
