#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/communicator.hpp"
#include "core/device.hpp"
#include "core/error.hpp"

// What every communicator promises, as functions that each rank calls together and that throw at the first broken
// promise. The local backend runs them on threads (communicator_test.cpp), the mpi backend in processes (mpi_test.cpp).
namespace lockstep::comm::contract {

/// The communicator under test, and where the buffers of its collectives live.
struct Subject {
  Communicator& comm;
  DeviceApi* device = nullptr;  ///< null: host memory
  bool in_arenas = false;       ///< of make_arena(), where the other ranks may reach it; host memory
};

class Broken : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Args>
void expect(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw Broken(fmt::format(format, std::forward<Args>(args)...));
}

/// A buffer of a collective. On a device, its contents arrive late (on the producing stream) and are read late (on the
/// consuming one), so a communicator that ignores either stream works on the wrong numbers.
template <class T>
class Data {
 public:
  Data(Subject subject, std::vector<T> values) : subject_(subject), host_(std::move(values)) {
    if (subject_.in_arenas) {
      arena_ = subject_.comm.make_arena(*cpu_, bytes());
      if (bytes() > 0) std::memcpy(arena_->data(), host_.data(), bytes());
    }
    if (subject_.device == nullptr) return;
    DeviceApi& device = *subject_.device;
    memory_ = std::make_unique<Arena>(device, bytes());
    produce_ = device.make_stream();
    consume_ = device.make_stream();
    device.copy(memory_->data(), host_.data(), bytes(), produce_);
  }
  ~Data() {
    if (subject_.device == nullptr) return;
    subject_.device->synchronize(produce_);
    subject_.device->synchronize(consume_);
    subject_.device->destroy(produce_);
    subject_.device->destroy(consume_);
  }
  Data(const Data&) = delete;
  Data& operator=(const Data&) = delete;

  [[nodiscard]] Buffer buffer() {
    if (memory_) return {memory_->data(), host_.size(), dtype_of<T>, Memory::device};
    if (arena_) return {arena_->data(), host_.size(), dtype_of<T>, Memory::host};
    return {host_.data(), host_.size(), dtype_of<T>, Memory::host};
  }
  [[nodiscard]] StreamRef after() const { return produce_; }
  void wait(Pending pending) { subject_.comm.wait(pending, consume_); }

  /// The contents after wait().
  [[nodiscard]] std::vector<T> read() {
    std::vector<T> values(host_.size());
    if (arena_ && bytes() > 0) std::memcpy(values.data(), arena_->data(), bytes());
    if (arena_) return values;
    if (!memory_) return host_;
    subject_.device->copy(values.data(), memory_->data(), bytes(), consume_);
    subject_.device->synchronize(consume_);
    return values;
  }

 private:
  [[nodiscard]] std::size_t bytes() const { return host_.size() * sizeof(T); }

  Subject subject_;
  std::vector<T> host_;
  std::unique_ptr<Arena> memory_;
  std::unique_ptr<DeviceApi> cpu_ = make_cpu_device();
  std::unique_ptr<FlatArena> arena_;
  StreamRef produce_;
  StreamRef consume_;
};

/// Element i of what rank r brings, different in every bit pattern: sums of floats round, so their order shows.
template <class T>
T value_at(int rank, std::size_t i, std::uint64_t salt) {
  std::uint64_t z = (static_cast<std::uint64_t>(rank) << 40) + i + salt * 0x9E3779B97F4A7C15U + 1;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  z ^= z >> 31;
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(z >> (sizeof(T) < 8 ? 33 : 3));
  } else {
    // Magnitudes from 2^-6 to 2^5, so that small ones are lost against large ones unless sums are wide and ordered.
    const double mantissa = static_cast<double>(z >> 40) / static_cast<double>(1 << 24) * 2.0 - 1.0;
    const double scale = std::ldexp(1.0, static_cast<int>(z & 15U) % 12 - 6);
    if constexpr (std::is_same_v<T, double>)
      return mantissa * scale;
    else
      return static_cast<T>(static_cast<float>(mantissa * scale));
  }
}

template <class T>
std::vector<T> values_of(int rank, std::size_t count, std::uint64_t salt = 0) {
  std::vector<T> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = value_at<T>(rank, i, salt);
  return values;
}

/// The definition: T(lo, hi) over ranks; 16-bit types in fp32 with one rounding at the end; integers wrap around.
template <class T, class Wide = std::conditional_t<sizeof(T) == 2, float, T>>
Wide tree_of_ranks(int lo, int hi, std::size_t i, Reduce op, std::uint64_t salt) {
  if (hi - lo == 1) return static_cast<Wide>(value_at<T>(lo, i, salt));
  int half = 1;
  while (2 * half < hi - lo) half *= 2;
  const Wide left = tree_of_ranks<T>(lo, lo + half, i, op, salt);
  const Wide right = tree_of_ranks<T>(lo + half, hi, i, op, salt);
  if (op == Reduce::max) return std::max(left, right);
  if (op == Reduce::min) return std::min(left, right);
  if constexpr (std::is_integral_v<T>) {
    using U = std::make_unsigned_t<T>;
    return static_cast<T>(static_cast<U>(left) + static_cast<U>(right));
  } else {
    return left + right;
  }
}

template <class T>
T reduced_at(int ranks, std::size_t i, Reduce op, std::uint64_t salt = 0) {
  return static_cast<T>(tree_of_ranks<T>(0, ranks, i, op, salt));
}

template <class T>
bool equal_or_close(const Communicator& comm, T got, T want) {
  if (std::memcmp(&got, &want, sizeof(T)) == 0) return true;
  if constexpr (std::is_integral_v<T>) {
    return false;
  } else {
    // A free summation order moves the result by a rounding or two of the largest intermediate sum (8 x 2^5).
    const double unit = std::is_same_v<T, double> ? 0x1p-52
                        : sizeof(T) == 4          ? 0x1p-23
                        : std::is_same_v<T, f16>  ? 0x1p-10
                                                  : 0x1p-7;
    const auto wide = [](T v) {
      if constexpr (sizeof(T) == 2)
        return static_cast<double>(static_cast<float>(v));
      else
        return static_cast<double>(v);
    };
    return !comm.capabilities().ordered_sum && std::abs(wide(got) - wide(want)) <= 8 * 256 * unit;
  }
}

template <class T>
void expect_reduced(Subject s, const std::vector<T>& got, std::size_t from, std::size_t to, Reduce op,
                    std::string_view what, std::uint64_t salt = 0) {
  for (std::size_t i = from; i < to; ++i)
    expect(equal_or_close(s.comm, got[i], reduced_at<T>(s.comm.size(), i, op, salt)),
           "{} of {} x {}: element {} on rank {} of {} is wrong", what, got.size(), to_string(dtype_of<T>), i,
           s.comm.rank(), s.comm.size());
}

template <class T>
void expect_equal(Subject s, const std::vector<T>& got, std::size_t from, std::size_t to,
                  const std::function<T(std::size_t)>& want, std::string_view what) {
  for (std::size_t i = from; i < to; ++i)
    expect(got[i] == want(i), "{} of {} x {}: element {} on rank {} of {} is wrong", what, got.size(),
           to_string(dtype_of<T>), i, s.comm.rank(), s.comm.size());
}

inline constexpr std::size_t counts[] = {0, 1, 7, 1000, 65537};

/// Ways to cut `count` elements over the ranks: evenly, everything to the last rank, and uneven with empty parts.
inline std::vector<std::vector<std::size_t>> cuts(int ranks, std::size_t count) {
  const auto n = static_cast<std::size_t>(ranks);
  std::vector<std::size_t> even(n + 1), last(n + 1, 0), uneven(n + 1, 0);
  for (std::size_t r = 0; r <= n; ++r) even[r] = count * r / n;
  last[n] = count;
  for (std::size_t r = 1; r < n; ++r)
    uneven[r] = std::min(count, r % 2 == 1 ? uneven[r - 1] + count / n + 3 : uneven[r - 1]);
  uneven[n] = count;
  return {even, last, uneven};
}

template <class T>
void all_reduce(Subject s) {
  for (const std::size_t count : counts)
    for (const Reduce op : {Reduce::sum, Reduce::max, Reduce::min}) {
      Data<T> data(s, values_of<T>(s.comm.rank(), count));
      data.wait(s.comm.start_all_reduce(data.buffer(), op, data.after()));
      expect_reduced(s, data.read(), 0, count, op, "all_reduce");
    }
}

template <class T>
void reduce_scatter(Subject s) {
  const auto me = static_cast<std::size_t>(s.comm.rank());
  for (const std::size_t count : counts)
    for (const auto& offsets : cuts(s.comm.size(), count)) {
      Data<T> data(s, values_of<T>(s.comm.rank(), count));
      data.wait(s.comm.start_reduce_scatter(data.buffer(), offsets, Reduce::sum, data.after()));
      expect_reduced(s, data.read(), offsets[me], offsets[me + 1], Reduce::sum, "reduce_scatter");
    }
}

/// Element i of rank 0's values, whoever owns it; the other elements hold other ranks' values before.
template <class T>
void all_gather(Subject s) {
  const auto me = static_cast<std::size_t>(s.comm.rank());
  for (const std::size_t count : counts)
    for (const auto& offsets : cuts(s.comm.size(), count)) {
      std::vector<T> mine = values_of<T>(s.comm.rank() + 1, count);
      for (std::size_t i = offsets[me]; i < offsets[me + 1]; ++i) mine[i] = value_at<T>(0, i, 0);
      Data<T> data(s, std::move(mine));
      data.wait(s.comm.start_all_gather(data.buffer(), offsets, data.after()));
      expect_equal<T>(
          s, data.read(), 0, count, [](std::size_t i) { return value_at<T>(0, i, 0); }, "all_gather");
    }
}

template <class T>
void broadcast(Subject s) {
  for (const std::size_t count : counts)
    for (const int root : {0, s.comm.size() - 1}) {
      Data<T> data(s, values_of<T>(s.comm.rank(), count));
      data.wait(s.comm.start_broadcast(data.buffer(), root, data.after()));
      expect_equal<T>(
          s, data.read(), 0, count, [=](std::size_t i) { return value_at<T>(root, i, 0); }, "broadcast");
    }
}

/// Longer than a piece of the mpi backend, and no multiple of it.
inline void long_all_reduce(Subject s) {
  const std::size_t count = (std::size_t{1} << 20) + 3;
  Data<float> data(s, values_of<float>(s.comm.rank(), count));
  data.wait(s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after()));
  expect_reduced(s, data.read(), 0, count, Reduce::sum, "all_reduce");
}

/// How many elements rank a sends to rank b: uneven, sometimes none.
inline std::size_t share(int a, int b, std::size_t unit) {
  return static_cast<std::size_t>((a * 3 + b * 5) % 4) * unit;
}

template <class T>
void all_to_all(Subject s) {
  const int me = s.comm.rank(), n = s.comm.size();
  for (const std::size_t unit : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{9001}}) {
    std::vector<std::size_t> sends{0}, receives{0};
    for (int r = 0; r < n; ++r) {
      sends.push_back(sends.back() + share(me, r, unit));
      receives.push_back(receives.back() + share(r, me, unit));
    }
    std::vector<T> out;
    for (int r = 0; r < n; ++r)
      for (std::size_t i = 0; i < share(me, r, unit); ++i) out.push_back(value_at<T>(me * 16 + r, i, 0));
    Data<T> to_send(s, std::move(out));
    Data<T> received(s, std::vector<T>(receives.back()));
    // One stream goes to start(): the receiving buffer is made ready on the other one before.
    if (s.device != nullptr) s.device->synchronize(received.after());
    received.wait(s.comm.start_all_to_all(to_send.buffer(), sends, received.buffer(), receives, to_send.after()));
    const std::vector<T> got = received.read();
    for (int r = 0; r < n; ++r)
      for (std::size_t i = 0; i < share(r, me, unit); ++i)
        expect(got[receives[static_cast<std::size_t>(r)] + i] == value_at<T>(r * 16 + me, i, 0),
               "all_to_all: element {} from rank {} on rank {} of {} is wrong", i, r, me, n);
  }
}

/// Many collectives started before the first is waited for, waited for in reverse, with progress() and test() between.
inline void several_in_flight(Subject s) {
  constexpr std::size_t count = 5000;
  const auto offsets = cuts(s.comm.size(), count)[2];
  const auto me = static_cast<std::size_t>(s.comm.rank());
  std::vector<std::unique_ptr<Data<float>>> data;
  std::vector<Pending> pending;
  for (std::uint64_t k = 0; k < 12; ++k) {
    data.push_back(std::make_unique<Data<float>>(s, values_of<float>(s.comm.rank(), count, k)));
    const Buffer buffer = data.back()->buffer();
    const StreamRef after = data.back()->after();
    if (k % 3 == 0) pending.push_back(s.comm.start_all_reduce(buffer, Reduce::sum, after));
    if (k % 3 == 1) pending.push_back(s.comm.start_reduce_scatter(buffer, offsets, Reduce::sum, after));
    if (k % 3 == 2) pending.push_back(s.comm.start_broadcast(buffer, s.comm.size() - 1, after));
    s.comm.progress();
    (void)s.comm.test(pending.front());
  }
  // A host collective among them: the engine exchanges its small records while buckets are under way.
  std::int64_t ranks_seen = 1;
  s.comm.all_reduce({&ranks_seen, 1, DType::i64, Memory::host}, Reduce::sum);
  expect(ranks_seen == s.comm.size(), "a host all_reduce among others counted {} ranks of {}", ranks_seen,
         s.comm.size());
  for (std::uint64_t k = 12; k-- > 0;) {
    data[k]->wait(pending[k]);
    const std::vector<float> got = data[k]->read();
    if (k % 3 == 0) expect_reduced(s, got, 0, count, Reduce::sum, "all_reduce in flight", k);
    if (k % 3 == 1) expect_reduced(s, got, offsets[me], offsets[me + 1], Reduce::sum, "reduce_scatter in flight", k);
    if (k % 3 == 2)
      expect_equal<float>(
          s, got, 0, count, [&](std::size_t i) { return value_at<float>(s.comm.size() - 1, i, k); },
          "broadcast in flight");
  }
}

/// A collective completes through progress() and test() alone; wait() then returns at once.
inline void polling_completes(Subject s) {
  Data<float> data(s, values_of<float>(s.comm.rank(), 1000));
  const Pending pending = s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after());
  if (s.device == nullptr)
    while (!s.comm.test(pending)) std::this_thread::yield();
  data.wait(pending);
  expect_reduced(s, data.read(), 0, 1000, Reduce::sum, "polled all_reduce");
}

inline void small_values(Subject s) {
  struct Record {
    int rank;
    double lr;
  };
  const int me = s.comm.rank(), n = s.comm.size();
  Record record{me, 0.5 * me};
  s.comm.broadcast_value(record, n - 1);
  expect(record.rank == n - 1 && record.lr == 0.5 * (n - 1), "broadcast_value: rank {} has rank {}'s record", me,
         record.rank);
  std::vector<Record> all(static_cast<std::size_t>(n));
  all[static_cast<std::size_t>(me)] = {me, 2.0 * me};
  s.comm.all_gather_values(std::span<Record>(all));
  for (int r = 0; r < n; ++r)
    expect(all[static_cast<std::size_t>(r)].rank == r && all[static_cast<std::size_t>(r)].lr == 2.0 * r,
           "all_gather_values: entry {} on rank {} is wrong", r, me);
  std::string text = me == 0 ? std::string(3000, 'x') + "end" : "something else";
  s.comm.broadcast_text(text, 0);
  expect(text == std::string(3000, 'x') + "end", "broadcast_text: rank {} got {} characters", me, text.size());
  s.comm.broadcast_text(text = me == 0 ? "" : "not empty", 0);
  expect(text.empty(), "broadcast_text: rank {} got '{}' for an empty text", me, text);
  for (int i = 0; i < 3; ++i) s.comm.barrier();
}

/// The same collective twice gives the same bits, and every rank has the same ones.
inline void same_bits_everywhere(Subject s) {
  const auto run = [&] {
    Data<float> data(s, values_of<float>(s.comm.rank(), 65537));
    data.wait(s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after()));
    return data.read();
  };
  const std::vector<float> first = run(), second = run();
  expect(std::memcmp(first.data(), second.data(), first.size() * sizeof(float)) == 0, "two runs differ in their bits");
  std::vector<float> of_rank_0 = first;
  s.comm.broadcast({of_rank_0.data(), of_rank_0.size(), DType::f32, Memory::host}, 0);
  expect(std::memcmp(first.data(), of_rank_0.data(), first.size() * sizeof(float)) == 0,
         "ranks 0 and {} differ in their bits", s.comm.rank());
}

/// An arena is zero, the rank's own, and shows its peers' where the address space is shared.
inline void arenas(Subject s) {
  const auto cpu = make_cpu_device();
  const auto arena = s.comm.make_arena(*cpu, 1024);
  expect(arena->bytes() == 1024 && arena->peer(s.comm.rank()) == arena->data(), "the arena is not the rank's own");
  expect(std::all_of(arena->data(), arena->data() + 1024, [](std::byte b) { return b == std::byte{0}; }),
         "the arena is not zero");
  std::memset(arena->data(), s.comm.rank() + 1, 1024);
  s.comm.barrier();
  for (int r = 0; r < s.comm.size(); ++r) {
    const std::byte* peer = arena->peer(r);
    if (s.comm.capabilities().shared_address_space)
      expect(peer != nullptr && peer[1023] == static_cast<std::byte>(r + 1), "rank {} cannot read rank {}'s arena",
             s.comm.rank(), r);
    else
      expect(peer == nullptr || r == s.comm.rank(), "a backend without shared memory shows a peer's arena");
  }
  s.comm.barrier();
}

/// Wrong arguments are refused before anything is sent, so all ranks stay in step.
inline void refusals(Subject s) {
  std::vector<float> values(10);
  const Buffer buffer{values.data(), values.size(), DType::f32, Memory::host};
  const auto refused = [&](const std::function<void()>& call, std::string_view word) {
    try {
      call();
    } catch (const std::exception& error) {
      expect(std::string_view(error.what()).find(word) != std::string_view::npos, "'{}' does not speak of '{}'",
             error.what(), word);
      return;
    }
    throw Broken(fmt::format("a call that should be refused ({}) went through", word));
  };
  std::vector<std::size_t> offsets(static_cast<std::size_t>(s.comm.size()) + 1, 0);
  offsets.back() = 11;
  refused([&] { (void)s.comm.start_all_gather(buffer, offsets); }, "beyond");
  offsets.push_back(11);
  refused([&] { (void)s.comm.start_reduce_scatter(buffer, offsets, Reduce::sum); }, "offsets");
  refused([&] { (void)s.comm.start_broadcast(buffer, s.comm.size()); }, "root");
  refused([&] { (void)s.comm.start_all_reduce({nullptr, 3, DType::f32, Memory::host}, Reduce::sum); }, "no address");
  refused([&] { (void)s.comm.start_all_reduce({values.data(), 3, DType::u8, Memory::host}, Reduce::sum); }, "bytes");
  s.comm.barrier();
}

struct Case {
  std::string name;
  std::function<void(Subject)> run;
};

/// Everything that holds on every backend, number of ranks and kind of memory.
inline std::vector<Case> cases() {
  return {
      {"all_reduce_f32", all_reduce<float>},
      {"all_reduce_bf16", all_reduce<bf16>},
      {"all_reduce_f16", all_reduce<f16>},
      {"all_reduce_f64", all_reduce<double>},
      {"all_reduce_i32", all_reduce<std::int32_t>},
      {"all_reduce_i64", all_reduce<std::int64_t>},
      {"reduce_scatter_f32", reduce_scatter<float>},
      {"reduce_scatter_bf16", reduce_scatter<bf16>},
      {"reduce_scatter_f16", reduce_scatter<f16>},
      {"reduce_scatter_i64", reduce_scatter<std::int64_t>},
      {"all_gather_f32", all_gather<float>},
      {"all_gather_bf16", all_gather<bf16>},
      {"all_gather_u8", all_gather<std::uint8_t>},
      {"broadcast_f32", broadcast<float>},
      {"broadcast_u8", broadcast<std::uint8_t>},
      {"all_to_all_f32", all_to_all<float>},
      {"all_to_all_f16", all_to_all<f16>},
      {"all_to_all_u8", all_to_all<std::uint8_t>},
      {"several_in_flight", several_in_flight},
      {"polling_completes", polling_completes},
      {"small_values", small_values},
      {"same_bits_everywhere", same_bits_everywhere},
      {"arenas", arenas},
      {"refusals", refusals},
  };
}

/// Waits until the collective is done; each missed deadline must be reported as a hang that names the late rank.
/// Returns how many there were; with `once` the first is the last.
inline int wait_for_late_rank(Communicator& comm, Pending pending, int late, bool once) {
  for (int failures = 0;; ++failures) {
    if (once && failures == 1) return failures;
    try {
      comm.wait(pending);
      return failures;
    } catch (const Error& error) {
      const std::string_view text(error.what());
      expect(error.kind() == ErrorKind::hang, "a missed deadline is reported as {}", to_string(error.kind()));
      // Others may be named too, on a busy machine; later on the late rank may have come.
      expect(failures > 0 || text.find(fmt::format("rank {}", late)) != std::string_view::npos,
             "'{}' does not name rank {}", text, late);
      expect(text.find("all_reduce (sum) of 1000 x fp32") != std::string_view::npos,
             "'{}' does not name the collective", text);
    }
  }
}

enum class AfterDeadline : std::uint8_t { given_up, goes_on };

/// A rank that comes too late: the others' waits fail at the deadline and name it. Threads as ranks give up: they have
/// taken their buffers back, and the late rank is told so. Between processes messages are still on their way, or the
/// buffers are where they were, and all complete once it comes. `comm` has a deadline well below `lateness`.
inline void late_rank(Subject s, Seconds lateness, AfterDeadline after) {
  Communicator& comm = s.comm;
  Data<float> data(s, values_of<float>(comm.rank(), 1000));
  const int late = comm.size() - 1;
  const bool gives_up = after == AfterDeadline::given_up;
  comm.barrier();
  if (comm.rank() == late) std::this_thread::sleep_for(lateness);
  Pending pending;
  try {
    pending = comm.start_all_reduce(data.buffer(), Reduce::sum);
  } catch (const Error& error) {
    expect(gives_up && comm.rank() == late && error.kind() == ErrorKind::hang, "rank {} cannot start: {}", comm.rank(),
           error.what());
    return;
  }
  expect(!gives_up || comm.rank() != late, "rank {} was late, but nobody gave up", late);
  const int failures = wait_for_late_rank(comm, pending, late, gives_up);
  expect(comm.rank() == late || failures > 0, "rank {} did not notice that rank {} was late", comm.rank(), late);
  if (!gives_up) expect_reduced<float>(s, data.read(), 0, 1000, Reduce::sum, "all_reduce after a missed deadline");
}

}  // namespace lockstep::comm::contract
