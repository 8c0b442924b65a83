#include "tests/comm/fake_nccl.hpp"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <thread>
#include <type_traits>

#include "core/error.hpp"

namespace lockstep::test {

using comm::NcclApi;
using comm::NcclComm;
using comm::NcclResult;
using comm::NcclUniqueId;
using comm::Reduce;

namespace {

enum class Kind { all_reduce, reduce, reduce_scatter, all_gather, broadcast, send, receive };

thread_local FakeNccl::Seat* here = nullptr;
thread_local int group_depth = 0;

template <class T>
T add(T a, T b, Reduce op) {
  if constexpr (std::is_same_v<T, bf16> || std::is_same_v<T, f16>) {
    return T(add(static_cast<float>(a), static_cast<float>(b), op));
  } else {
    if (op == Reduce::max) return std::max(a, b);
    if (op == Reduce::min) return std::min(a, b);
    if constexpr (std::is_integral_v<T>) {
      using U = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    } else {
      return a + b;
    }
  }
}

/// Once round the ring, from the rank that comes after the element's owner; rounded at every rank.
template <class T>
std::vector<std::byte> reduced(const std::vector<const void*>& sources, std::size_t count, Reduce op) {
  std::vector<std::byte> result(count * sizeof(T));
  const std::size_t n = sources.size();
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t first = (i * n / count + 1) % n;
    T sum = static_cast<const T*>(sources[first])[i];
    for (std::size_t k = 1; k < n; ++k) sum = add(sum, static_cast<const T*>(sources[(first + k) % n])[i], op);
    std::memcpy(result.data() + i * sizeof(T), &sum, sizeof(T));
  }
  return result;
}

std::vector<std::byte> reduced(const std::vector<const void*>& sources, std::size_t count, DType dtype, Reduce op) {
  switch (dtype) {
    case DType::f32:
      return reduced<float>(sources, count, op);
    case DType::bf16:
      return reduced<bf16>(sources, count, op);
    case DType::f16:
      return reduced<f16>(sources, count, op);
    case DType::f64:
      return reduced<double>(sources, count, op);
    case DType::i32:
      return reduced<std::int32_t>(sources, count, op);
    case DType::i64:
      return reduced<std::int64_t>(sources, count, op);
    case DType::u8:
      break;
  }
  fail(ErrorKind::internal, "fake nccl: bytes cannot be reduced");
}

}  // namespace

/// One call with work.
struct FakeNccl::Op {
  Kind kind = Kind::all_reduce;
  const void* send = nullptr;
  void* receive = nullptr;
  std::size_t count = 0;
  DType dtype = DType::f32;
  Reduce op = Reduce::sum;
  int peer = 0;  ///< or root
  Comm* comm = nullptr;
  StreamRef stream;
  std::uint64_t number = 0;  ///< of the collective within its group
  bool done = false;         ///< under the world's mutex

  [[nodiscard]] std::size_t bytes() const { return count * size_of(dtype); }
  [[nodiscard]] bool agrees_with(const Op& other) const {
    return kind == other.kind && count == other.count && dtype == other.dtype && op == other.op && peer == other.peer;
  }
};

/// Ranks that found one another.
struct FakeNccl::Group {
  int ranks = 0;
  int arrived = 0;
  std::map<std::uint64_t, std::vector<Op*>> meetings;              ///< by number, then by rank
  std::map<std::pair<int, int>, std::deque<Op*>> sends, receives;  ///< by (from, to)
};

struct FakeNccl::Comm {
  FakeNccl* world = nullptr;
  Group* group = nullptr;
  DeviceApi* device = nullptr;
  NcclFaults faults;
  int rank = 0;
  bool starting = true;
  bool dead = false;
  bool stopped = false;
  bool finalized = false;
  bool failed = false;
  std::uint64_t last_number = 0;
  int launches = 0;
  int questions = 0;  ///< to be asked before what is deferred happens
  std::shared_ptr<std::vector<Op>> deferred;
};

struct FakeNccl::World {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, Group> groups;  ///< by the text of the id
  std::deque<Comm> comms;
  std::vector<std::string> violations;
  std::deque<std::shared_ptr<std::vector<Op>>> launched;  ///< kept: streams have their addresses
  std::uint64_t last_id = 0;
  int aborted = 0;
};

struct FakeNccl::Functions {
  static thread_local std::vector<Op> grouped;

  static Comm& comm_of(NcclComm comm) { return *static_cast<Comm*>(comm.handle); }
  static World& world_of(const Comm& comm) { return *comm.world->world_; }

  static NcclResult refuse(World& world, const std::string& what) {
    world.violations.push_back(what);
    return NcclResult::invalid_usage;
  }

  static NcclResult get_unique_id(NcclUniqueId* id) {
    World& world = *here->world_.world_;
    const std::lock_guard lock(world.mutex);
    const std::string text = "fake group " + std::to_string(++world.last_id);
    std::ranges::copy(text, id->bytes.begin());
    return NcclResult::success;
  }

  static NcclResult init_rank(NcclComm* made, int ranks, const NcclUniqueId* id, int rank) {
    World& world = *here->world_.world_;
    const std::lock_guard lock(world.mutex);
    Comm& comm = world.comms.emplace_back();
    comm.world = &here->world_;
    comm.group = &world.groups[id->bytes.data()];
    comm.device = &here->device_;
    comm.faults = here->faults_;
    comm.rank = rank;
    comm.group->ranks = ranks;
    if (!comm.faults.start_up_hangs) ++comm.group->arrived;
    made->handle = &comm;
    return NcclResult::in_progress;
  }

  static NcclResult async_error(NcclComm handle, NcclResult* state) {
    Comm& comm = comm_of(handle);
    World& world = world_of(comm);
    const std::lock_guard lock(world.mutex);
    if (comm.dead) return refuse(world, "async_error after the end");
    if (comm.starting) comm.starting = comm.group->arrived < comm.group->ranks;
    if (comm.questions > 0) --comm.questions;
    if (comm.deferred && comm.questions == 0) launch(comm, std::exchange(comm.deferred, nullptr));
    *state = comm.failed                                            ? comm.faults.error
             : comm.starting || comm.deferred || comm.questions > 0 ? NcclResult::in_progress
                                                                    : NcclResult::success;
    return NcclResult::success;
  }

  static NcclResult finalize(NcclComm handle) {
    Comm& comm = comm_of(handle);
    World& world = world_of(comm);
    const std::lock_guard lock(world.mutex);
    if (const NcclResult bad = check_use(comm, "finalize"); bad != NcclResult::success) return bad;
    comm.finalized = true;
    comm.questions = 2;
    return NcclResult::in_progress;
  }

  static NcclResult destroy(NcclComm handle) {
    Comm& comm = comm_of(handle);
    World& world = world_of(comm);
    const std::lock_guard lock(world.mutex);
    if (comm.dead) return refuse(world, "destroyed twice");
    if (!comm.finalized || comm.questions > 0) return refuse(world, "destroyed before it was finalized");
    comm.dead = comm.stopped = true;
    return NcclResult::success;
  }

  static NcclResult abort(NcclComm handle) {
    Comm& comm = comm_of(handle);
    World& world = world_of(comm);
    std::unique_lock lock(world.mutex);
    if (comm.dead) return refuse(world, "aborted after the end");
    comm.dead = true;
    while (comm.faults.abort_hangs) world.changed.wait(lock);
    comm.stopped = true;
    ++world.aborted;
    world.changed.notify_all();
    return NcclResult::success;
  }

  static NcclResult check_use(Comm& comm, const char* what) {
    World& world = world_of(comm);
    if (comm.dead) return refuse(world, std::string(what) + " after the end");
    if (comm.finalized) return refuse(world, std::string(what) + " after finalize");
    if (comm.starting || comm.deferred) return refuse(world, std::string(what) + " while NCCL is busy");
    return NcclResult::success;
  }

  static NcclResult group_start() {
    ++group_depth;
    return NcclResult::success;
  }
  static NcclResult group_end() {
    if (--group_depth > 0 || grouped.empty()) return NcclResult::success;
    return submit();
  }

  static NcclResult add(const Op& op) {
    World& world = world_of(*op.comm);
    {
      const std::lock_guard lock(world.mutex);
      if (const NcclResult bad = check_use(*op.comm, "a collective"); bad != NcclResult::success) return bad;
      const auto offset = static_cast<std::size_t>(op.comm->rank) * op.bytes();
      if (op.kind == Kind::reduce_scatter && op.receive != static_cast<const std::byte*>(op.send) + offset)
        return refuse(world, "reduce_scatter that is not in place");
      if (op.kind == Kind::all_gather && op.send != static_cast<const std::byte*>(op.receive) + offset)
        return refuse(world, "all_gather that is not in place");
      if (op.count == 0) return refuse(world, "a collective of nothing");
      if ((op.kind == Kind::send || op.kind == Kind::receive) && group_depth == 0)
        return refuse(world, "a message outside of a group may wait for ever");
    }
    grouped.push_back(op);
    return group_depth > 0 ? NcclResult::success : submit();
  }

  static NcclResult submit() {
    auto ops = std::make_shared<std::vector<Op>>(std::exchange(grouped, {}));
    Comm& comm = *ops->front().comm;
    World& world = world_of(comm);
    const std::lock_guard lock(world.mutex);
    for (Op& op : *ops)
      if (op.kind != Kind::send && op.kind != Kind::receive) op.number = ++comm.last_number;
    if (comm.faults.error_after >= 0 && comm.launches >= comm.faults.error_after) comm.failed = true;
    // Sometimes at once, mostly some questions later.
    comm.questions = comm.launches++ % 4;
    if (comm.questions == 0) {
      launch(comm, std::move(ops));
      return NcclResult::success;
    }
    comm.deferred = std::move(ops);
    return NcclResult::in_progress;
  }

  /// Under the mutex. A rank that has failed takes part in nothing more.
  static void launch(Comm& comm, std::shared_ptr<std::vector<Op>> ops) {
    World& world = world_of(comm);
    world.launched.push_back(ops);
    comm.device->call_host([](void* context) { run(*static_cast<std::vector<Op>*>(context)); }, ops.get(),
                           ops->front().stream);
  }

  /// What a kernel of NCCL's does: meets the other ranks.
  static void run(std::vector<Op>& ops) {
    Comm& comm = *ops.front().comm;
    World& world = world_of(comm);
    std::unique_lock lock(world.mutex);
    if (!comm.failed)
      for (Op& op : ops) post(world, comm, op);
    world.changed.notify_all();
    world.changed.wait(lock,
                       [&] { return comm.stopped || std::ranges::all_of(ops, [](const Op& op) { return op.done; }); });
  }

  static void post(World& world, Comm& comm, Op& op) {
    Group& group = *comm.group;
    if (op.kind == Kind::send || op.kind == Kind::receive) {
      const bool sends = op.kind == Kind::send;
      const auto way = sends ? std::pair(comm.rank, op.peer) : std::pair(op.peer, comm.rank);
      auto& mine = sends ? group.sends[way] : group.receives[way];
      auto& theirs = sends ? group.receives[way] : group.sends[way];
      if (theirs.empty()) {
        mine.push_back(&op);
        return;
      }
      Op& other = *theirs.front();
      theirs.pop_front();
      const Op& from = sends ? op : other;
      const Op& to = sends ? other : op;
      if (from.count != to.count || from.dtype != to.dtype) {
        (void)refuse(world, "a message of another size than its receiver expects");
        return;
      }
      std::memcpy(to.receive, from.send, from.bytes());
      op.done = other.done = true;
      return;
    }
    auto& meeting = group.meetings[op.number];
    meeting.resize(static_cast<std::size_t>(group.ranks), nullptr);
    meeting[static_cast<std::size_t>(comm.rank)] = &op;
    for (const Op* other : meeting)
      if (other != nullptr && !op.agrees_with(*other)) {
        (void)refuse(world, "ranks that disagree about collective number " + std::to_string(op.number));
        return;
      }
    if (std::ranges::find(meeting, nullptr) != meeting.end()) return;
    perform(meeting);
    for (Op* each : meeting) each->done = true;
    group.meetings.erase(op.number);
  }

  static void perform(const std::vector<Op*>& ops) {
    const Op& any = *ops.front();
    const std::size_t bytes = any.bytes();
    std::vector<const void*> sources;
    for (const Op* op : ops) sources.push_back(op->send);
    const auto root = static_cast<std::size_t>(any.peer);
    if (any.kind == Kind::broadcast) {
      for (const Op* op : ops) std::memmove(op->receive, sources[root], bytes);
    } else if (any.kind == Kind::all_gather) {
      for (const Op* op : ops)
        for (std::size_t r = 0; r < ops.size(); ++r)
          std::memmove(static_cast<std::byte*>(op->receive) + r * bytes, sources[r], bytes);
    } else if (any.kind == Kind::reduce_scatter) {
      const auto all = reduced(sources, any.count * ops.size(), any.dtype, any.op);
      for (std::size_t r = 0; r < ops.size(); ++r) std::memcpy(ops[r]->receive, all.data() + r * bytes, bytes);
    } else {
      const auto all = reduced(sources, any.count, any.dtype, any.op);
      for (std::size_t r = 0; r < ops.size(); ++r)
        if (any.kind == Kind::all_reduce || r == root) std::memcpy(ops[r]->receive, all.data(), bytes);
    }
  }

  static NcclResult all_reduce(const void* send, void* receive, std::size_t count, DType dtype, Reduce op,
                               NcclComm comm, StreamRef stream) {
    return add({Kind::all_reduce, send, receive, count, dtype, op, 0, &comm_of(comm), stream});
  }
  static NcclResult reduce(const void* send, void* receive, std::size_t count, DType dtype, Reduce op, int root,
                           NcclComm comm, StreamRef stream) {
    return add({Kind::reduce, send, receive, count, dtype, op, root, &comm_of(comm), stream});
  }
  static NcclResult reduce_scatter(const void* send, void* receive, std::size_t count, DType dtype, Reduce op,
                                   NcclComm comm, StreamRef stream) {
    return add({Kind::reduce_scatter, send, receive, count, dtype, op, 0, &comm_of(comm), stream});
  }
  static NcclResult all_gather(const void* send, void* receive, std::size_t count, DType dtype, NcclComm comm,
                               StreamRef stream) {
    return add({Kind::all_gather, send, receive, count, dtype, Reduce::sum, 0, &comm_of(comm), stream});
  }
  static NcclResult broadcast(const void* send, void* receive, std::size_t count, DType dtype, int root, NcclComm comm,
                              StreamRef stream) {
    return add({Kind::broadcast, send, receive, count, dtype, Reduce::sum, root, &comm_of(comm), stream});
  }
  static NcclResult send(const void* data, std::size_t count, DType dtype, int to, NcclComm comm, StreamRef stream) {
    return add({Kind::send, data, nullptr, count, dtype, Reduce::sum, to, &comm_of(comm), stream});
  }
  static NcclResult receive(void* data, std::size_t count, DType dtype, int from, NcclComm comm, StreamRef stream) {
    return add({Kind::receive, nullptr, data, count, dtype, Reduce::sum, from, &comm_of(comm), stream});
  }

  static NcclResult allocate(void** data, std::size_t bytes) {
    *data = here->device_.allocate(bytes);
    here->memory_[*data] = bytes;
    std::memset(*data, 0xff, bytes);  // not cleared
    return NcclResult::success;
  }
  static NcclResult deallocate(void* data) {
    here->device_.deallocate(data, here->memory_.at(data));
    here->memory_.erase(data);
    return NcclResult::success;
  }
  static const char* result_text(NcclResult result) {
    return result == NcclResult::remote_error ? "remote process exited or there was a network error"
                                              : "another error of the stand-in";
  }
  static const char* last_error() { return "the stand-in's last words"; }
  static NcclResult device_place(char* text, int bytes) {
    std::strncpy(text, here->place_.c_str(), static_cast<std::size_t>(bytes) - 1);
    return NcclResult::success;
  }
  static bool capturing(StreamRef /*stream*/) { return false; }
  static const char* get_environment(const char* name) {
    const auto found = here->environment_.find(name);
    return found == here->environment_.end() ? nullptr : found->second.c_str();
  }
  static void set_environment(const char* name, const char* value) { here->environment_[name] = value; }
};

thread_local std::vector<FakeNccl::Op> FakeNccl::Functions::grouped;

FakeNccl::FakeNccl(int version)
    : world_(std::make_unique<World>()),
      api_{.version = version,
           .graph_capturable = false,
           .get_unique_id = Functions::get_unique_id,
           .init_rank = Functions::init_rank,
           .async_error = Functions::async_error,
           .finalize = Functions::finalize,
           .destroy = Functions::destroy,
           .abort = Functions::abort,
           .group_start = Functions::group_start,
           .group_end = Functions::group_end,
           .all_reduce = Functions::all_reduce,
           .reduce = Functions::reduce,
           .reduce_scatter = Functions::reduce_scatter,
           .all_gather = Functions::all_gather,
           .broadcast = Functions::broadcast,
           .send = Functions::send,
           .receive = Functions::receive,
           .allocate = Functions::allocate,
           .deallocate = Functions::deallocate,
           .result_text = Functions::result_text,
           .last_error = Functions::last_error,
           .device_place = Functions::device_place,
           .capturing = Functions::capturing,
           .get_environment = Functions::get_environment,
           .set_environment = Functions::set_environment} {}

FakeNccl::~FakeNccl() = default;

FakeNccl::Seat::Seat(FakeNccl& world, DeviceApi& device, std::string place, const NcclFaults& faults)
    : world_(world), device_(device), place_(std::move(place)), faults_(faults) {
  here = this;
}
FakeNccl::Seat::~Seat() { here = nullptr; }

std::vector<std::string> FakeNccl::violations() {
  const std::lock_guard lock(world_->mutex);
  return world_->violations;
}

int FakeNccl::alive() {
  const std::lock_guard lock(world_->mutex);
  return static_cast<int>(std::ranges::count_if(world_->comms, [](const Comm& comm) { return !comm.dead; }));
}

int FakeNccl::aborted() {
  const std::lock_guard lock(world_->mutex);
  return world_->aborted;
}

}  // namespace lockstep::test
