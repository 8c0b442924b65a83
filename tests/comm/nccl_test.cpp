#include "comm/nccl.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <ostream>
#include <thread>

#include "comm/local.hpp"
#include "comm/nccl_loader.hpp"
#include "comm/nccl_settings.hpp"
#include "comm/run_ranks.hpp"
#include "core/failure.hpp"
#include "kernels/cuda_loader.hpp"
#include "kernels/table.hpp"
#include "tests/comm/async_device.hpp"
#include "tests/comm/contract.hpp"
#include "tests/comm/fake_nccl.hpp"

// The nccl backend on a stand-in for the library: ranks are threads, each with a device whose streams are threads too.
namespace lockstep::comm {
namespace {

using test::AsyncDevice;
using test::FakeNccl;
using test::NcclFaults;
using testing::HasSubstr;

/// As a user has it, but for deadlines that suit a test.
NcclOptions options_of_a_test() {
  return {.timeout = Seconds(30), .grace = Seconds(10), .kernels = &kernels::emulated_table()};
}

struct World {
  FakeNccl nccl;
  std::vector<NcclFaults> faults;  ///< by rank; of those that are missing nothing
  Seconds host_timeout{30};

  /// Runs body(subject) on every rank. Afterwards nothing forbidden was done and nothing is left.
  void run(int ranks, const NcclOptions& options, const std::function<void(contract::Subject)>& body) {
    run_rank_threads(ranks, [&](const std::shared_ptr<LocalGroup>& group, int rank) {
      AsyncDevice device(4321 + 100 * static_cast<std::uint64_t>(rank));
      const auto r = static_cast<std::size_t>(rank);
      const FakeNccl::Seat seat(nccl, device, "0000:0" + std::to_string(rank) + ":00.0",
                                r < faults.size() ? faults[r] : NcclFaults{});
      run_as(group, rank, device, options, body);
    });
  }
  void run_as(const std::shared_ptr<LocalGroup>& group, int rank, DeviceApi& device, const NcclOptions& options,
              const std::function<void(contract::Subject)>& body) {
    const auto comm = make_nccl(make_local(group, rank, {.timeout = host_timeout}), device, nccl.api(), options);
    body({*comm, &device});
  }
  void expect_clean(int aborted = 0) {
    EXPECT_THAT(nccl.violations(), testing::IsEmpty());
    EXPECT_EQ(nccl.alive(), 0);
    EXPECT_EQ(nccl.aborted(), aborted);
  }
};

/// Runs body and returns the error that comes out of it.
Failure failure_of_run(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return {error.kind(), error.what()};
  } catch (const std::exception& error) {
    return {ErrorKind::internal, error.what()};
  }
  return {ErrorKind::internal, "nothing failed"};
}

enum class Sums { ring, ordered, library };

struct Setting {
  Sums sums;
  int ranks;
  contract::Case one;
};

void PrintTo(const Setting& setting, std::ostream* out) { *out << setting.ranks << " ranks, " << setting.one.name; }

NcclOptions options_of(Sums sums) {
  NcclOptions options = options_of_a_test();
  options.ordered_sum = sums == Sums::ordered;
  options.library_order = sums == Sums::library;
  if (sums == Sums::library) options.kernels = nullptr;  // it needs none
  return options;
}

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const contract::Case& one : contract::cases())
    for (const int ranks : {1, 2, 3, 4})
      for (const Sums sums : {Sums::ring, Sums::ordered, Sums::library}) {
        // Ordered sums have no fp64 on a device, which a test of its own says.
        if (sums == Sums::ordered && one.name == "all_reduce_f64") continue;
        all.push_back({sums, ranks, one});
      }
  return all;
}

class NcclContract : public testing::TestWithParam<Setting> {};

TEST_P(NcclContract, IsKept) {
  World world;
  EXPECT_NO_THROW(world.run(GetParam().ranks, options_of(GetParam().sums), GetParam().one.run));
  world.expect_clean();
}

std::string name_of(const testing::TestParamInfo<Setting>& info) {
  const std::string_view kinds[] = {"ring", "ordered", "library"};
  const Setting& setting = info.param;
  return fmt::format("{}_{}_ranks_{}", kinds[static_cast<std::size_t>(setting.sums)], setting.ranks, setting.one.name);
}

INSTANTIATE_TEST_SUITE_P(Nccl, NcclContract, testing::ValuesIn(settings()), name_of);

TEST(Nccl, CutsLongBuffersIntoPiecesAndStagesSumsInPieces) {
  const auto everything_cut = [](contract::Subject s) {
    contract::all_reduce<float>(s);
    contract::all_reduce<bf16>(s);
    contract::reduce_scatter<float>(s);
    contract::reduce_scatter<f16>(s);
    contract::all_gather<float>(s);
    contract::broadcast<float>(s);
    contract::several_in_flight(s);
  };
  for (const bool ordered : {false, true}) {
    NcclOptions options = options_of_a_test();
    options.ordered_sum = ordered;
    options.max_piece = 9999;
    options.staging_bytes = 4096;
    World world;
    EXPECT_NO_THROW(world.run(3, options, everything_cut));
    world.expect_clean();
  }
}

TEST(Nccl, OrderedSumsOfMoreRanksThanOneSumTakesAreTheSameTree) {
  NcclOptions options = options_of_a_test();
  options.ordered_sum = true;
  options.staging_bytes = std::size_t{1} << 17;
  for (const int ranks : {9, 17}) {
    World world;
    EXPECT_NO_THROW(world.run(ranks, options, [](contract::Subject s) {
      const auto check = [&]<class T>(T) {
        contract::Data<T> data(s, contract::values_of<T>(s.comm.rank(), 5000));
        data.wait(s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after()));
        contract::expect_reduced(s, data.read(), 0, 5000, Reduce::sum, "all_reduce");
      };
      check(float{});
      check(bf16{});
    }));
    world.expect_clean();
  }
}

/// Not only within the tolerance that the contract gives to a library's order.
TEST(Nccl, SixteenBitSumsAreTheTreeInFp32RoundedOnce) {
  World world;
  world.run(4, options_of_a_test(), [](contract::Subject s) {
    const auto check = [&]<class T>(T) {
      contract::Data<T> data(s, contract::values_of<T>(s.comm.rank(), 3001));
      data.wait(s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after()));
      const std::vector<T> got = data.read();
      for (std::size_t i = 0; i < got.size(); ++i)
        ASSERT_EQ(got[i].bits, contract::reduced_at<T>(4, i, Reduce::sum).bits) << i;
    };
    check(bf16{});
    check(f16{});
  });
  world.expect_clean();
}

TEST(Nccl, LibrarySumsOfFp32AreNotTheTreeAndAreNotCalledSo) {
  World world;
  std::atomic<int> different{0};
  world.run(3, options_of_a_test(), [&](contract::Subject s) {
    EXPECT_FALSE(s.comm.capabilities().ordered_sum);
    contract::Data<float> data(s, contract::values_of<float>(s.comm.rank(), 3000));
    data.wait(s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after()));
    const std::vector<float> got = data.read();
    for (std::size_t i = 0; i < got.size(); ++i)
      if (got[i] != contract::reduced_at<float>(3, i, Reduce::sum)) ++different;
  });
  // The stand-in's ring adds in another order: had the sum gone another way, the contract would have shown nothing.
  EXPECT_GT(different, 0);
}

TEST(Nccl, OrderedSumsOfFp64AreRefused) {
  NcclOptions options = options_of_a_test();
  options.ordered_sum = true;
  World world;
  const Failure failure = failure_of_run([&] {
    world.run(2, options, [](contract::Subject s) {
      contract::Data<double> data(s, {1.0, 2.0});
      (void)s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after());
    });
  });
  EXPECT_THAT(failure.text, HasSubstr("fp64"));
}

TEST(Nccl, SixteenBitSumsNeedTheDevicesKernels) {
  NcclOptions options = options_of_a_test();
  options.kernels = nullptr;
  World world;
  const Failure failure = failure_of_run([&] {
    world.run(2, options, [](contract::Subject s) {
      contract::Data<bf16> data(s, std::vector<bf16>(3));
      (void)s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after());
    });
  });
  EXPECT_THAT(failure.text, HasSubstr("NcclOptions::kernels"));
}

TEST(Nccl, ArenasOfTheDeviceAreZeroAndTheRanksOwn) {
  World world;
  world.run(2, options_of_a_test(), [](contract::Subject s) {
    const auto arena = s.comm.make_arena(*s.device, 5000);
    EXPECT_EQ(arena->bytes(), 5000U);
    EXPECT_EQ(arena->peer(s.comm.rank()), arena->data());
    EXPECT_EQ(arena->peer(1 - s.comm.rank()), nullptr);
    EXPECT_TRUE(std::all_of(arena->data(), arena->data() + 5000, [](std::byte b) { return b == std::byte{0}; }));
  });
  world.expect_clean();
}

TEST(Nccl, TellsWhatItIsAndCanDo) {
  World world;
  world.run(2, options_of_a_test(), [](contract::Subject s) {
    EXPECT_EQ(s.comm.name(), "nccl 2.28.9 NCCL_ALGO=Ring NCCL_PROTO=Simple NCCL_NVLS_ENABLE=0, started by local");
    const Capabilities can = s.comm.capabilities();
    EXPECT_TRUE(can.host_memory && can.device_memory);
    EXPECT_FALSE(can.shared_address_space || can.ordered_sum || can.needs_progress);
    EXPECT_FALSE(can.graph_capturable) << "the stand-in cannot be captured";
  });
  world.run(2, options_of(Sums::library),
            [](contract::Subject s) { EXPECT_EQ(s.comm.name(), "nccl 2.28.9, started by local"); });
  world.run(2, options_of(Sums::ordered), [](contract::Subject s) {
    EXPECT_TRUE(s.comm.capabilities().ordered_sum);
    EXPECT_THAT(s.comm.name(), HasSubstr("sums in the order of ranks"));
  });
  world.expect_clean();
}

// What is decided without NCCL.

std::vector<NcclPlace> places_on_one_gpu(int ranks) {
  return std::vector<NcclPlace>(static_cast<std::size_t>(ranks), {"node1", "boot-1", "0000:3B:00.0"});
}

std::map<std::string, std::string> values_of(const std::vector<NcclVariable>& variables) {
  std::map<std::string, std::string> values;
  for (const NcclVariable& variable : variables) values[variable.name] = variable.value;
  return values;
}

TEST(NcclSettings, TwoRanksOnOneGpuNeedToBeAskedFor) {
  const auto places = places_on_one_gpu(2);
  EXPECT_TRUE(check_places(places, true));
  const Failure failure = failure_of_run([&] { (void)check_places(places, false); });
  EXPECT_EQ(failure.kind, ErrorKind::environment);
  EXPECT_THAT(failure.text, HasSubstr("ranks 0 and 1 both have the GPU 0000:3B:00.0 of node1"));
  EXPECT_THAT(failure.text, HasSubstr("comm: {share_gpu: true}"));
}

TEST(NcclSettings, EqualGpusOfDifferentHostsAreDifferentGpus) {
  const std::vector<NcclPlace> hosts = {{"node1", "boot-1", "0000:3B:00.0"}, {"node2", "boot-2", "0000:3B:00.0"}};
  EXPECT_FALSE(check_places(hosts, false));
  // Containers may have one name everywhere.
  const std::vector<NcclPlace> names = {{"worker", "boot-1", "0000:3B:00.0"}, {"worker", "boot-2", "0000:3B:00.0"}};
  EXPECT_FALSE(check_places(names, false));
}

TEST(NcclSettings, SharingAGpuSetsWhatNcclNeeds) {
  const auto values = values_of(nccl_environment(1, places_on_one_gpu(2), true, false));
  const std::map<std::string, std::string> expected = {
      {"NCCL_ALGO", "Ring"},        {"NCCL_PROTO", "Simple"},
      {"NCCL_NVLS_ENABLE", "0"},    {"NCCL_HOSTID", "lockstep-rank-1"},
      {"NCCL_NET", "Socket"},       {"NCCL_IB_DISABLE", "1"},
      {"NCCL_SOCKET_IFNAME", "lo"}, {"NCCL_MNNVL_ENABLE", "0"},
      {"NCCL_MAX_CTAS", "2"},       {"NCCL_MULTI_RANK_GPU_ENABLE", "1"}};
  EXPECT_EQ(values, expected);
  // With the library's order its algorithms are its own, but for the one that sharing rules out.
  const auto fast = values_of(nccl_environment(1, places_on_one_gpu(2), true, true));
  EXPECT_EQ(fast.count("NCCL_ALGO"), 0U);
  EXPECT_EQ(fast.at("NCCL_NVLS_ENABLE"), "0");
}

TEST(NcclSettings, SharingOverSeveralHostsLeavesTheInterfaceToNccl) {
  const std::vector<NcclPlace> places = {{"a", "1", "0"}, {"a", "1", "0"}, {"b", "2", "0"}};
  EXPECT_EQ(values_of(nccl_environment(0, places, true, false)).count("NCCL_SOCKET_IFNAME"), 0U);
}

TEST(NcclSettings, WithoutSharingOnlyTheOrderOfSumsIsFixed) {
  const std::vector<NcclPlace> places = {{"a", "1", "0"}, {"a", "1", "1"}};
  EXPECT_EQ(nccl_environment(0, places, false, false).size(), 3U);
  EXPECT_TRUE(nccl_environment(0, places, false, true).empty());
}

TEST(Nccl, RanksOnOneGpuWorkWhereAskedForAndEachIsItsOwnHost) {
  const auto on_one_gpu = [](World& world, const NcclOptions& options, const std::string& algorithm) {
    run_rank_threads(2, [&](const std::shared_ptr<LocalGroup>& group, int rank) {
      AsyncDevice device(7);
      FakeNccl::Seat seat(world.nccl, device, "0000:3B:00.0");
      if (!algorithm.empty()) seat.environment()["NCCL_ALGO"] = algorithm;
      seat.environment()["NCCL_HOSTID"] = "the user's";
      world.run_as(group, rank, device, options, [&](contract::Subject s) {
        contract::all_reduce<float>(s);
        EXPECT_EQ(seat.environment()["NCCL_HOSTID"], "lockstep-rank-" + std::to_string(rank));
        EXPECT_EQ(seat.environment()["NCCL_ALGO"], algorithm.empty() ? "Ring" : algorithm);
        EXPECT_THAT(s.comm.name(), HasSubstr("NCCL_ALGO=" + seat.environment()["NCCL_ALGO"]));
      });
    });
  };
  NcclOptions options = options_of_a_test();
  World world;
  EXPECT_THAT(failure_of_run([&] { on_one_gpu(world, options, ""); }).text, HasSubstr("share_gpu"));
  options.share_gpu = true;
  on_one_gpu(world, options, "");
  on_one_gpu(world, options, "Tree");  // what the user set holds, and is shown
  world.expect_clean();
}

TEST(Nccl, VersionsMustBeOne) {
  FakeNccl old(22701);
  World world;
  const Failure failure = failure_of_run([&] {
    run_rank_threads(2, [&](const std::shared_ptr<LocalGroup>& group, int rank) {
      AsyncDevice device(7);
      FakeNccl& mine = rank == 1 ? old : world.nccl;
      const FakeNccl::Seat seat(mine, device, std::to_string(rank));
      (void)make_nccl(make_local(group, rank), device, mine.api(), options_of_a_test());
    });
  });
  EXPECT_EQ(failure.kind, ErrorKind::environment);
  EXPECT_THAT(failure.text, HasSubstr("has NCCL 2.28.9, rank 1"));
  EXPECT_THAT(failure.text, HasSubstr("has 2.27.1"));
}

TEST(NcclSettings, StagedSumsFitAndCoverEveryElementOnce) {
  for (const std::size_t ranks : {2U, 3U, 8U, 9U, 64U})
    for (const std::size_t longest : {1U, 255U, 256U, 100'000U, 1'000'003U})
      for (const DType dtype : {DType::f32, DType::bf16})
        for (const std::size_t bytes : {std::size_t{1} << 17, std::size_t{16} << 20}) {
          Parts parts(ranks);
          std::size_t at = 0;
          for (std::size_t r = 0; r < ranks; ++r) {
            const std::size_t length = r % 3 == 2 ? 0 : longest / (r + 1);
            parts[r] = {at, at + length};
            at += length;
          }
          const StagedSum plan = plan_staged_sum(parts, dtype, bytes);
          const std::size_t partials = ranks > 8 ? (ranks + 7) / 8 : 0;
          EXPECT_LE((ranks - 1) * plan.slot + partials * plan.partials, bytes);
          Parts reached = parts;
          for (Part& part : reached) part.end = part.begin;
          for (std::size_t p = 0; p < plan.pieces; ++p) {
            const Parts piece = piece_of(parts, p, plan.share);
            for (std::size_t r = 0; r < ranks; ++r) {
              EXPECT_LE(piece[r].size() * size_of(dtype), plan.slot);
              if (piece[r].size() == 0) continue;
              EXPECT_EQ(piece[r].begin, reached[r].end);
              reached[r].end = piece[r].end;
            }
          }
          EXPECT_EQ(reached, parts);
        }
  EXPECT_EQ(plan_staged_sum(Parts(4), DType::f32, 4096).pieces, 0U);
  EXPECT_THROW((void)plan_staged_sum(Parts(40, {0, 1000}), DType::f32, 4096), Error);
}

TEST(NcclSettings, EqualRunsAreFound) {
  EXPECT_TRUE(are_equal_runs({{0, 5}, {5, 10}, {10, 15}}));
  EXPECT_FALSE(are_equal_runs({{0, 5}, {5, 10}, {10, 14}}));
  EXPECT_FALSE(are_equal_runs({{0, 5}, {6, 11}}));
  EXPECT_EQ(even_parts(1000, 3, 128), (Parts{{0, 384}, {384, 768}, {768, 1000}}));
  EXPECT_EQ(even_parts(100, 3, 128), (Parts{{0, 100}, {100, 100}, {100, 100}}));
}

// What goes wrong.

constexpr const char* the_collective = "all_reduce (sum) of 1000 x fp32";

void all_reduce_1000(contract::Subject s) {
  contract::Data<float> data(s, contract::values_of<float>(s.comm.rank(), 1000));
  data.wait(s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after()));
  (void)data.read();
  s.comm.check();
}

NcclOptions impatient() {
  NcclOptions options = options_of_a_test();
  options.timeout = Seconds(0.3);
  return options;
}

TEST(NcclFailure, ARankThatDoesNotComeIsAHangThatNamesTheCollective) {
  World world;
  const Failure failure = failure_of_run([&] {
    world.run(2, impatient(), [](contract::Subject s) {
      if (s.comm.rank() == 0) return all_reduce_1000(s);
      std::this_thread::sleep_for(Seconds(1.0));
    });
  });
  EXPECT_EQ(failure.kind, ErrorKind::hang) << failure.text;
  EXPECT_THAT(failure.text, HasSubstr(the_collective));
  EXPECT_THAT(failure.text, HasSubstr("0.3 s"));
  EXPECT_THAT(failure.text, HasSubstr("comm.timeout_s"));
  EXPECT_EQ(world.nccl.alive(), 0);
  EXPECT_GE(world.nccl.aborted(), 1);
}

/// The host waits for its own stream, as the engine does, and asks the communicator meanwhile.
TEST(NcclFailure, WhoWaitsForTheDeviceHearsOfIt) {
  World world;
  const Failure failure = failure_of_run([&] {
    world.run(2, impatient(), [](contract::Subject s) {
      if (s.comm.rank() == 1) return std::this_thread::sleep_for(Seconds(1.0));
      s.device->set_wait_check([&s] { s.comm.check(); });
      const StreamRef stream = s.device->make_stream();
      const Arena data(*s.device, 4000);
      const Buffer buffer{data.data(), 1000, DType::f32, Memory::device};
      const Pending first = s.comm.start_all_reduce(buffer, Reduce::sum);
      const Pending second = s.comm.start_broadcast(buffer, 0);
      s.comm.wait(first, stream);
      s.comm.wait(second, stream);
      s.device->synchronize(stream);
      ADD_FAILURE() << "a collective without rank 1 was done";
    });
  });
  EXPECT_EQ(failure.kind, ErrorKind::hang) << failure.text;
  EXPECT_THAT(failure.text, HasSubstr(the_collective)) << "the oldest one is to blame";
}

TEST(NcclFailure, CheckMayBeCalledByAnotherThread) {
  World world;
  const Failure failure = failure_of_run([&] {
    world.run(2, impatient(), [](contract::Subject s) {
      std::string seen;
      std::jthread other([&] {
        try {
          for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
               std::chrono::steady_clock::now() < end;) {
            s.comm.check();
            std::this_thread::yield();
          }
        } catch (const std::exception& error) {
          seen = error.what();
        }
      });
      for (int i = 0; i < 20; ++i) all_reduce_1000(s);
      if (s.comm.rank() == 1) {
        std::this_thread::sleep_for(Seconds(1.0));
        s.comm.abort("rank 1 has had enough", exit_code(ErrorKind::data));
      } else {
        try {
          all_reduce_1000(s);
        } catch (...) {
          other.join();
          EXPECT_THAT(seen, HasSubstr(the_collective));
          throw;
        }
      }
      other.join();
    });
  });
  EXPECT_EQ(failure.kind, ErrorKind::hang) << failure.text;
}

TEST(NcclFailure, WhatNcclReportsIsAHangThatNamesTheCollective) {
  World world;
  world.faults = {{.error_after = 3}, {.error_after = 3}};  // the three of start-up go well
  const Failure failure = failure_of_run([&] { world.run(2, options_of_a_test(), all_reduce_1000); });
  EXPECT_EQ(failure.kind, ErrorKind::hang) << failure.text;
  EXPECT_THAT(failure.text, HasSubstr("nccl 2.28.9 " + std::string(the_collective) + ", collective number 2"));
  EXPECT_THAT(failure.text, HasSubstr("remote process exited or there was a network error: the stand-in's last words"));
  world.expect_clean(2);
}

TEST(NcclFailure, OtherErrorsOfNcclHaveTheirOwnKind) {
  for (const auto& [error, kind] : {std::pair(NcclResult::unhandled_cuda_error, ErrorKind::environment),
                                    std::pair(NcclResult::internal_error, ErrorKind::internal)}) {
    World world;
    world.faults = {{.error_after = 3, .error = error}, {.error_after = 3, .error = error}};
    const Failure failure = failure_of_run([&] { world.run(2, options_of_a_test(), all_reduce_1000); });
    EXPECT_EQ(failure.kind, kind) << failure.text;
    EXPECT_THAT(failure.text, HasSubstr(the_collective));
  }
}

TEST(NcclFailure, StartUpThatNeverEndsHasADeadline) {
  World world;
  world.faults = {{}, {.start_up_hangs = true}};
  const Failure failure = failure_of_run([&] { world.run(2, impatient(), [](contract::Subject) {}); });
  EXPECT_EQ(failure.kind, ErrorKind::hang) << failure.text;
  EXPECT_THAT(failure.text, HasSubstr("start-up (the ranks find one another)"));
  world.expect_clean(2);
}

/// Another rank ends the job: who waits for a collective of it does not wait until the deadline.
TEST(NcclFailure, ARankThatAbortsWakesTheOthers) {
  World world;
  const auto begin = std::chrono::steady_clock::now();
  const Failure failure = failure_of_run([&] {
    world.run(2, options_of_a_test(), [](contract::Subject s) {
      if (s.comm.rank() == 1) return s.comm.abort("sample 17 is not text", exit_code(ErrorKind::data));
      contract::Data<float> data(s, contract::values_of<float>(0, 1000));
      s.comm.wait(s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after()));
    });
  });
  EXPECT_EQ(failure.kind, ErrorKind::data) << failure.text;
  EXPECT_THAT(failure.text, HasSubstr("sample 17 is not text"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(25)) << "the deadline is 30 s";
}

/// Only what waits for other ranks has the deadline of other ranks.
TEST(NcclFailure, OwnWorkBeforeACollectiveIsNoHang) {
  World world;
  EXPECT_NO_THROW(world.run(2, impatient(), [](contract::Subject s) {
    contract::Data<float> data(s, contract::values_of<float>(s.comm.rank(), 1000));
    s.device->call_host([](void*) { std::this_thread::sleep_for(Seconds(1.0)); }, nullptr, data.after());
    data.wait(s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after()));
    contract::expect_reduced(s, data.read(), 0, 1000, Reduce::sum, "all_reduce");
  }));
  world.expect_clean();
}

/// The rank's thread is inside a call of the device's that waits for the collective: it comes back when NCCL is
/// stopped.
TEST(NcclFailure, AThreadThatIsStuckInTheDeviceIsFreed) {
  World world;
  const Failure failure = failure_of_run([&] {
    world.run(2, impatient(), [](contract::Subject s) {
      if (s.comm.rank() == 1) return std::this_thread::sleep_for(Seconds(1.0));
      contract::Data<float> data(s, contract::values_of<float>(0, 1000));
      data.wait(s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after()));
      (void)data.read();  // asks nobody meanwhile
      s.comm.progress();
    });
  });
  EXPECT_EQ(failure.kind, ErrorKind::hang) << failure.text;
  EXPECT_THAT(failure.text, HasSubstr(the_collective));
}

TEST(NcclFailure, AnExceptionWithCollectivesUnderWayEndsAtOnce) {
  World world;
  const auto begin = std::chrono::steady_clock::now();
  const Failure failure = failure_of_run([&] {
    world.run(2, options_of_a_test(), [](contract::Subject s) {
      if (s.comm.rank() == 1) {
        std::this_thread::sleep_for(Seconds(0.2));
        fail(ErrorKind::data, "no more data");
      }
      const auto data = std::make_unique<Arena>(*s.device, 4000);
      const Pending pending = s.comm.start_all_reduce({data->data(), 1000, DType::f32, Memory::device}, Reduce::sum);
      s.comm.wait(pending);
    });
  });
  EXPECT_EQ(failure.text, "no more data");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(25)) << "the deadline is 30 s";
}

/// Nobody waits for what was started, and the other rank has left it out: the end does not take for ever.
TEST(NcclFailure, TheDestructorGivesUpWhatOthersLeftOut) {
  NcclOptions options = options_of_a_test();
  options.grace = Seconds(0.5);
  World world;
  run_rank_threads(2, [&](const std::shared_ptr<LocalGroup>& group, int rank) {
    AsyncDevice device(7);
    const FakeNccl::Seat seat(world.nccl, device, std::to_string(rank));
    const Arena data(device, 4000);
    auto comm = make_nccl(make_local(group, rank), device, world.nccl.api(), options);
    if (rank == 0) (void)comm->start_all_reduce({data.data(), 1000, DType::f32, Memory::device}, Reduce::sum);
    comm = nullptr;
  });
  EXPECT_THAT(world.nccl.violations(), testing::IsEmpty());
  EXPECT_EQ(world.nccl.alive(), 0);
}

class NcclDeath : public testing::Test {
 protected:
  NcclDeath() { testing::GTEST_FLAG(death_test_style) = "threadsafe"; }
};

TEST_F(NcclDeath, NcclThatCannotBeStoppedEndsTheProcessAndNamesTheCollective) {
  NcclOptions options = impatient();
  options.grace = Seconds(0.5);
  const auto run = [&] {
    World world;
    world.faults = {{.abort_hangs = true}, {}};
    world.run(2, options, [](contract::Subject s) {
      if (s.comm.rank() == 1) return std::this_thread::sleep_for(Seconds(60));
      all_reduce_1000(s);
    });
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(6),
              "lockstep: rank 0: nccl 2.28.9 all_reduce \\(sum\\) of 1000 x fp32, collective number 2: .*"
              "NCCL could not be stopped within 0.5 s: this process ends now");
}

TEST_F(NcclDeath, ARankThatDoesNotComeBackEndsTheProcess) {
  NcclOptions options = impatient();
  options.grace = Seconds(0.5);
  const auto run = [&] {
    World world;
    world.run(2, options, [](contract::Subject s) {
      if (s.comm.rank() == 1) return std::this_thread::sleep_for(Seconds(60));
      contract::Data<float> data(s, contract::values_of<float>(0, 1000));
      data.wait(s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after()));
      std::this_thread::sleep_for(Seconds(60));
    });
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(6),
              "all_reduce \\(sum\\) of 1000 x fp32.*the rank's own thread did not come back within 0.5 s");
}

TEST(NcclLoader, SaysWhatIsMissing) {
  if (cuda_is_available()) GTEST_SKIP() << "there is a GPU here";
  const Failure failure = failure_of_run([] { (void)load_nccl(); });
  EXPECT_EQ(failure.kind, ErrorKind::environment);
  EXPECT_THAT(failure.text, HasSubstr("cuda"));
}

}  // namespace
}  // namespace lockstep::comm
