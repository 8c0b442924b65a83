#include "comm/communicator.hpp"

#include <algorithm>
#include <cstring>

#include "core/error.hpp"

namespace lockstep::comm {
namespace {

constexpr std::uint64_t joined_mark = std::uint64_t{1} << 63;

void check_buffer(const Buffer& buffer, std::string_view what) {
  if (buffer.count > 0 && buffer.data == nullptr)
    fail(ErrorKind::internal, "{}: {} elements asked for, but the buffer has no address", what, buffer.count);
}

void check_reducible(const Buffer& buffer, std::string_view what) {
  if (buffer.dtype == DType::u8)
    fail(ErrorKind::internal, "{}: bytes cannot be reduced; use one of f32, bf16, f16, f64, i32, i64", what);
}

void check_offsets(std::span<const std::size_t> offsets, int ranks, std::size_t count, std::string_view what) {
  if (offsets.size() != static_cast<std::size_t>(ranks) + 1)
    fail(ErrorKind::internal, "{}: {} offsets given for {} ranks, {} are needed", what, offsets.size(), ranks,
         ranks + 1);
  if (!std::is_sorted(offsets.begin(), offsets.end())) fail(ErrorKind::internal, "{}: the offsets do not ascend", what);
  if (offsets.back() > count)
    fail(ErrorKind::internal, "{}: the last offset is {}, beyond the buffer's {} elements", what, offsets.back(),
         count);
}

/// Piece `piece` of `pieces`: of each rank's part the same share, in order.
Parts share_of_parts(std::span<const std::size_t> offsets, std::size_t piece, std::size_t pieces) {
  Parts parts(offsets.size() - 1);
  for (std::size_t r = 0; r < parts.size(); ++r) {
    const std::size_t length = offsets[r + 1] - offsets[r];
    // Not length * piece / pieces, which may not fit into 64 bits.
    const std::size_t share = length / pieces, rest = length % pieces;
    const auto begin_of = [&](std::size_t p) { return offsets[r] + p * share + std::min(p, rest); };
    parts[r] = {begin_of(piece), begin_of(piece + 1)};
  }
  return parts;
}

class OwnArena final : public FlatArena {
 public:
  OwnArena(DeviceApi& device, std::size_t bytes, int rank) : memory_(device, bytes), rank_(rank) {}
  [[nodiscard]] std::byte* data() const noexcept override { return memory_.data(); }
  [[nodiscard]] std::size_t bytes() const noexcept override { return memory_.bytes(); }
  [[nodiscard]] std::byte* peer(int rank) const noexcept override { return rank == rank_ ? memory_.data() : nullptr; }

 private:
  Arena memory_;
  int rank_;
};

/// For host memory the base class answers everything. On a device nothing moves either, but the stream that waits must
/// still come after the stream that produced the data.
class Single final : public Communicator {
 public:
  explicit Single(DeviceApi* device)
      : device_(device != nullptr && device->memory() == Memory::device ? device : nullptr) {}
  ~Single() override {
    for (const auto& [number, event] : produced_) device_->destroy(event);
  }
  [[nodiscard]] int rank() const noexcept override { return 0; }
  [[nodiscard]] int size() const noexcept override { return 1; }
  [[nodiscard]] std::string name() const override { return "single"; }
  [[nodiscard]] Capabilities capabilities() const noexcept override {
    return {.host_memory = true,
            .device_memory = device_ != nullptr,
            .shared_address_space = true,
            .ordered_sum = true,
            .graph_capturable = device_ != nullptr,
            .needs_progress = false};
  }
  void progress() override {}
  void abort(std::string_view /*why*/, int /*exit_code*/) noexcept override {}

 private:
  void do_barrier() override {}
  Pending do_all_reduce(Buffer /*data*/, Reduce /*op*/, StreamRef after) override { return mark(after); }
  Pending do_reduce_scatter(Buffer /*data*/, const Parts& /*parts*/, Reduce /*op*/, StreamRef after) override {
    return mark(after);
  }
  Pending do_all_gather(Buffer /*data*/, const Parts& /*parts*/, StreamRef after) override { return mark(after); }
  Pending do_broadcast(Buffer /*data*/, int /*root*/, StreamRef after) override { return mark(after); }
  Pending do_all_to_all(Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                        std::span<const std::size_t> receive_offsets, StreamRef after) override {
    const Buffer from = send.part(send_offsets[0], send_offsets[1] - send_offsets[0]);
    const Pending pending = mark(after);  // checks that there is a device
    require(pending.id != 0, "single: all_to_all on device memory needs the stream to copy on");
    device_->copy(receive.part(receive_offsets[0], from.count).data, from.data, from.bytes(), after);
    device_->record(produced_.at(pending.id), after);
    return pending;
  }

  Pending mark(StreamRef after) {
    require(device_ != nullptr, "single: device memory given, but make_single() was not given its device");
    if (after.handle == nullptr) return {};
    const std::uint64_t number = ++last_number_;
    const EventRef event = device_->make_event();
    produced_.emplace(number, event);
    device_->record(event, after);
    return {number};
  }

  void do_wait(Pending pending, StreamRef stream) override {
    const auto found = produced_.find(pending.id);
    if (found == produced_.end()) return;
    if (stream.handle != nullptr)
      device_->wait(stream, found->second);
    else
      device_->synchronize(found->second);
    device_->destroy(found->second);
    produced_.erase(found);
  }
  bool do_test(Pending pending) override {
    const auto found = produced_.find(pending.id);
    return found == produced_.end() || device_->done(found->second);
  }

  DeviceApi* device_;
  std::uint64_t last_number_ = 0;
  std::map<std::uint64_t, EventRef> produced_;
};

}  // namespace

Communicator::Communicator(std::size_t max_piece) : max_piece_(max_piece) {
  require(max_piece > 0, "communicator: a piece needs at least one element");
}

/// Calls start(begin, length) for each piece and joins the pieces into one Pending.
template <class Start>
Pending Communicator::start_in_pieces(std::size_t count, Start start) {
  if (count <= max_piece_) return start(std::size_t{0}, count);
  std::vector<Pending> pieces;
  for (std::size_t begin = 0; begin < count; begin += max_piece_)
    pieces.push_back(start(begin, std::min(max_piece_, count - begin)));
  return join(std::move(pieces));
}

/// Calls start(parts) for each piece of a buffer whose parts belong to ranks.
template <class Start>
Pending Communicator::start_in_parts(std::size_t count, std::span<const std::size_t> offsets, Start start) {
  const std::size_t pieces = (count + max_piece_ - 1) / max_piece_;
  if (pieces == 1) return start(share_of_parts(offsets, 0, 1));
  std::vector<Pending> pending;
  for (std::size_t piece = 0; piece < pieces; ++piece) pending.push_back(start(share_of_parts(offsets, piece, pieces)));
  return join(std::move(pending));
}

Pending Communicator::join(std::vector<Pending> pieces) {
  const Pending whole{joined_mark | ++joined_count_};
  joined_.emplace(whole.id, std::move(pieces));
  return whole;
}

/// One rank's result is its data. On a device the streams still have to be put in order.
bool Communicator::nothing_to_do(const Buffer& data) const {
  return data.count == 0 || (size() == 1 && data.memory == Memory::host);
}

Pending Communicator::start_all_reduce(Buffer data, Reduce op, StreamRef after) {
  check_buffer(data, "all_reduce");
  check_reducible(data, "all_reduce");
  if (nothing_to_do(data)) return {};
  return recorded(
      {.call = Call::all_reduce, .dtype = data.dtype, .op = static_cast<std::uint8_t>(op), .elements = data.count},
      [&] {
        return start_in_pieces(data.count, [&](std::size_t begin, std::size_t length) {
          return do_all_reduce(data.part(begin, length), op, after);
        });
      });
}

Pending Communicator::start_reduce_scatter(Buffer data, std::span<const std::size_t> offsets, Reduce op,
                                           StreamRef after) {
  check_buffer(data, "reduce_scatter");
  check_reducible(data, "reduce_scatter");
  check_offsets(offsets, size(), data.count, "reduce_scatter");
  if (nothing_to_do(data)) return {};
  return recorded(
      {.call = Call::reduce_scatter, .dtype = data.dtype, .op = static_cast<std::uint8_t>(op), .elements = data.count},
      [&] {
        return start_in_parts(data.count, offsets,
                              [&](const Parts& parts) { return do_reduce_scatter(data, parts, op, after); });
      });
}

Pending Communicator::start_all_gather(Buffer data, std::span<const std::size_t> offsets, StreamRef after) {
  check_buffer(data, "all_gather");
  check_offsets(offsets, size(), data.count, "all_gather");
  if (nothing_to_do(data)) return {};
  return recorded({.call = Call::all_gather, .dtype = data.dtype, .elements = data.count}, [&] {
    return start_in_parts(data.count, offsets, [&](const Parts& parts) { return do_all_gather(data, parts, after); });
  });
}

Pending Communicator::start_broadcast(Buffer data, int root, StreamRef after) {
  check_buffer(data, "broadcast");
  if (root < 0 || root >= size())
    fail(ErrorKind::internal, "broadcast: root {} is not a rank of this group of {}", root, size());
  if (nothing_to_do(data)) return {};
  return recorded({.call = Call::broadcast, .dtype = data.dtype, .root = root, .elements = data.count}, [&] {
    return start_in_pieces(data.count, [&](std::size_t begin, std::size_t length) {
      return do_broadcast(data.part(begin, length), root, after);
    });
  });
}

Pending Communicator::start_all_to_all(Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                                       std::span<const std::size_t> receive_offsets, StreamRef after) {
  check_buffer(send, "all_to_all");
  check_buffer(receive, "all_to_all");
  check_offsets(send_offsets, size(), send.count, "all_to_all (send)");
  check_offsets(receive_offsets, size(), receive.count, "all_to_all (receive)");
  if (send.dtype != receive.dtype || send.memory != receive.memory)
    fail(ErrorKind::internal, "all_to_all: send is {} and receive is {}; type and memory must be the same",
         to_string(send.dtype), to_string(receive.dtype));
  const auto self = static_cast<std::size_t>(rank());
  const std::size_t kept = send_offsets[self + 1] - send_offsets[self];
  if (receive_offsets[self + 1] - receive_offsets[self] != kept)
    fail(ErrorKind::internal, "all_to_all: rank {} sends itself {} elements, but expects {}", rank(), kept,
         receive_offsets[self + 1] - receive_offsets[self]);
  if (size() == 1 && send.memory == Memory::host) {
    if (kept > 0)
      std::memcpy(receive.part(receive_offsets[0], kept).data, send.part(send_offsets[0], kept).data,
                  kept * size_of(send.dtype));
    return {};
  }
  // Only the two ends know how long a part is, so backends cut the parts, not the whole.
  return recorded({.call = Call::all_to_all, .dtype = send.dtype},
                  [&] { return do_all_to_all(send, send_offsets, receive, receive_offsets, after); });
}

/// Starts a collective between its two lines in the recorder.
template <class Start>
Pending Communicator::recorded(const Signature& signature, Start start) {
  if (check_signatures_ && size() > 1) compare_signatures(signature);
  if (track_ == nullptr) return start();
  const std::uint64_t number = track_->begin(signature);
  // A backend may wait for something in here too.
  track_->begin_wait(number);
  const Pending pending = start();
  if (pending.id == 0)
    track_->end(number);
  else
    open_.push_back({pending.id, number});
  track_->begin_wait(0);
  return pending;
}

void Communicator::compare_signatures(const Signature& own) {
  ++compared_;
  static_assert(sizeof(Signature) == 16);
  const auto ranks = static_cast<std::size_t>(size());
  std::vector<Signature> all(ranks);
  all[static_cast<std::size_t>(rank())] = own;
  std::vector<std::size_t> offsets(ranks + 1);
  for (std::size_t r = 0; r < offsets.size(); ++r) offsets[r] = r * sizeof(Signature);
  const Buffer bytes{all.data(), offsets.back(), DType::u8, Memory::host};
  const Pending pending = do_all_gather(bytes, share_of_parts(offsets, 0, 1), {});
  if (pending.id != 0) do_wait(pending, {});
  for (std::size_t r = 1; r < ranks; ++r)
    if (all[r] != all[0])
      fail(ErrorKind::desync,
           "collective number {}: rank 0 asks for {}, rank {} for {}; all ranks must issue the same collectives in the "
           "same order",
           compared_, describe(all[0]), r, describe(all[r]));
}

void Communicator::barrier() {
  (void)recorded({.call = Call::barrier}, [&] {
    do_barrier();
    return Pending{};
  });
}

void Communicator::wait(Pending pending, StreamRef stream) {
  if (pending.id == 0) return;
  const ProbeScope scope(probe_, Activity::communication, "wait");
  const auto open =
      track_ == nullptr ? open_.end() : std::ranges::find(open_, pending.id, [](const Open& o) { return o.pending; });
  if (open == open_.end()) return wait_for_pieces(pending, stream);
  const std::uint64_t number = open->number;
  open_.erase(open);
  track_->begin_wait(number);
  // Left open if this throws: the collective that a rank gave up in is what the recorder is for.
  wait_for_pieces(pending, stream);
  track_->end(number);
}

void Communicator::wait_for_pieces(Pending pending, StreamRef stream) {
  const auto joined = joined_.find(pending.id);
  if (joined == joined_.end()) return do_wait(pending, stream);
  for (const Pending piece : joined->second) do_wait(piece, stream);
  joined_.erase(joined);
}

bool Communicator::test(Pending pending) {
  if (pending.id == 0) return true;
  const auto joined = joined_.find(pending.id);
  if (joined == joined_.end()) return do_test(pending);
  return std::ranges::all_of(joined->second, [&](Pending piece) { return do_test(piece); });
}

std::unique_ptr<FlatArena> Communicator::make_arena(DeviceApi& device, std::size_t bytes) {
  return std::make_unique<OwnArena>(device, bytes, rank());
}

void Communicator::broadcast_text(std::string& text, int root) {
  std::uint64_t length = text.size();
  broadcast_value(length, root);
  text.resize(length);
  broadcast({text.data(), text.size(), DType::u8, Memory::host}, root);
}

void Communicator::gather_bytes(void* values, std::size_t bytes_each) {
  std::vector<std::size_t> offsets(static_cast<std::size_t>(size()) + 1);
  for (std::size_t r = 0; r < offsets.size(); ++r) offsets[r] = r * bytes_each;
  all_gather({values, offsets.back(), DType::u8, Memory::host}, offsets);
}

std::unique_ptr<Communicator> make_single(DeviceApi* device) { return std::make_unique<Single>(device); }

}  // namespace lockstep::comm
