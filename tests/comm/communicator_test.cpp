#include "comm/communicator.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <ostream>
#include <thread>

#include "comm/local.hpp"
#include "comm/run_ranks.hpp"
#include "tests/comm/contract.hpp"
#include "tests/support/delayed_device.hpp"

namespace lockstep::comm {
namespace {

enum class Kind { single, single_device, host, device };

/// One promise on one backend and number of ranks.
struct Setting {
  Kind kind;
  int ranks;
  contract::Case one;
};

void PrintTo(const Setting& setting, std::ostream* out) { *out << setting.ranks << " ranks, " << setting.one.name; }

std::string name_of(const testing::TestParamInfo<Setting>& info) {
  const Setting& setting = info.param;
  const std::string_view kinds[] = {"single", "single_delayed", "local", "delayed"};
  const std::string_view kind = kinds[static_cast<std::size_t>(setting.kind)];
  return fmt::format("{}_{}_ranks_{}", kind, setting.ranks, setting.one.name);
}

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const contract::Case& one : contract::cases()) {
    all.push_back({Kind::single, 1, one});
    all.push_back({Kind::single_device, 1, one});
    for (const int ranks : {1, 2, 3, 4, 5, 6, 7, 8}) {
      all.push_back({Kind::host, ranks, one});
      all.push_back({Kind::device, ranks, one});
    }
  }
  return all;
}

void run_setting(Kind kind, int ranks, const std::function<void(contract::Subject)>& body, LocalOptions options = {}) {
  if (kind == Kind::single) {
    const auto comm = make_single();
    return body({*comm});
  }
  if (kind == Kind::single_device) {
    test::DelayedDevice device(99);
    const auto comm = make_single(&device);
    return body({*comm, &device});
  }
  run_rank_threads(ranks, [&](const std::shared_ptr<LocalGroup>& group, int rank) {
    LocalOptions mine = options;
    std::unique_ptr<DeviceApi> device;
    if (kind == Kind::device) {
      device = std::make_unique<test::DelayedDevice>(1234 + static_cast<std::uint64_t>(rank));
      mine.device = device.get();
    }
    const auto comm = make_local(group, rank, mine);
    body({*comm, device.get()});
  });
}

class Contract : public testing::TestWithParam<Setting> {};

TEST_P(Contract, IsKept) {
  const Setting& setting = GetParam();
  EXPECT_NO_THROW(run_setting(setting.kind, setting.ranks, setting.one.run, {.timeout = Seconds(30)}));
}

INSTANTIATE_TEST_SUITE_P(Backends, Contract, testing::ValuesIn(settings()), name_of);

TEST(Communicator, CutsLongBuffersIntoPieces) {
  for (const Kind kind : {Kind::host, Kind::device}) {
    const auto everything_cut = [](contract::Subject s) {
      contract::all_reduce<float>(s);
      contract::all_reduce<bf16>(s);
      contract::reduce_scatter<float>(s);
      contract::all_gather<float>(s);
      contract::broadcast<float>(s);
      contract::several_in_flight(s);
    };
    EXPECT_NO_THROW(run_setting(kind, 3, everything_cut, {.max_piece = 999}));
  }
}

TEST(Communicator, LongBuffersAreTheSameTree) {
  for (const int ranks : {3, 4}) EXPECT_NO_THROW(run_setting(Kind::host, ranks, contract::long_all_reduce));
}

TEST(Communicator, ContractNoticesAWrongSum) {
  const auto wrong = [](contract::Subject s) {
    std::vector<float> values = contract::values_of<float>(s.comm.rank(), 100);
    s.comm.all_reduce({values.data(), values.size(), DType::f32, Memory::host}, Reduce::sum);
    values[42] = std::nextafter(values[42], 1e9F);
    contract::expect_reduced(s, values, 0, values.size(), Reduce::sum, "all_reduce");
  };
  EXPECT_THROW(run_setting(Kind::host, 3, wrong), contract::Broken);
}

TEST(Communicator, SixteenBitSumsRoundOnce) {
  // 256 + 1 + 1 in bf16 (8 bits of precision): rounding after each addition loses both ones, rounding once gives 258.
  run_ranks(3, [](Communicator& comm) {
    bf16 value(comm.rank() == 0 ? 256.0F : 1.0F);
    comm.all_reduce({&value, 1, DType::bf16, Memory::host}, Reduce::sum);
    EXPECT_EQ(static_cast<float>(value), 258.0F);
  });
}

TEST(LocalGroup, DeadlineNamesTheRankThatIsMissing) {
  EXPECT_NO_THROW(run_ranks(
      3, [](Communicator& comm) { contract::late_rank({comm}, Seconds(4.0), contract::AfterDeadline::given_up); },
      {.timeout = Seconds(0.3)}));
}

TEST(LocalGroup, ARankThatGivesUpTakesItsBufferBack) {
  std::atomic<bool> freed{false};
  try {
    run_ranks(2,
              [&](Communicator& comm) {
                auto values = std::make_unique<std::vector<float>>(100'000, 1.0F);
                const Buffer buffer{values->data(), values->size(), DType::f32, Memory::host};
                if (comm.rank() == 1) {
                  while (!freed) std::this_thread::yield();
                  EXPECT_THROW((void)comm.start_all_reduce(buffer, Reduce::sum), AbortedByPeer)
                      << "rank 0's memory is gone";
                  return;
                }
                try {
                  comm.all_reduce(buffer, Reduce::sum);
                } catch (const Error& error) {
                  EXPECT_EQ(error.kind(), ErrorKind::hang) << error.what();
                  values.reset();
                  freed = true;
                  throw;
                }
              },
              {.timeout = Seconds(0.1)});
    FAIL() << "the deadline passed unnoticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::hang) << error.what();
  }
}

TEST(LocalGroup, DeadlineHoldsOnADevice) {
  const auto late = [](contract::Subject s) {
    contract::Data<float> data(s, contract::values_of<float>(s.comm.rank(), 10));
    if (s.comm.rank() == 1) std::this_thread::sleep_for(Seconds(1.5));
    data.wait(s.comm.start_all_reduce(data.buffer(), Reduce::sum, data.after()));
    (void)data.read();
    s.comm.progress();
  };
  try {
    run_setting(Kind::device, 2, late, {.timeout = Seconds(0.1)});
    FAIL() << "the deadline passed unnoticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::hang) << error.what();
    EXPECT_NE(std::string_view(error.what()).find("rank 1 did not arrive"), std::string_view::npos) << error.what();
  }
}

TEST(LocalGroup, AbortWakesEveryRankWithTheReason) {
  std::atomic<int> woken{0};
  run_ranks(4,
            [&](Communicator& comm) {
              if (comm.rank() == 2) return comm.abort("sample 17 is not text", exit_code(ErrorKind::data));
              try {
                comm.barrier();
                ADD_FAILURE() << "rank " << comm.rank() << " passed a barrier that rank 2 never reached";
              } catch (const AbortedByPeer& error) {
                // Where rank 2 is gone before this rank looks, the reason is still the abort.
                EXPECT_EQ(error.kind(), ErrorKind::data);
                EXPECT_NE(std::string_view(error.what()).find("rank 2 ended the job: sample 17 is not text"),
                          std::string_view::npos)
                    << error.what();
                ++woken;
              }
            },
            {.timeout = Seconds(30)});
  EXPECT_EQ(woken, 3);
}

TEST(LocalGroup, ARankThatReturnsEarlyIsNotWaitedFor) {
  const auto begin = std::chrono::steady_clock::now();
  try {
    run_ranks(3, [](Communicator& comm) {
      if (comm.rank() != 1) comm.barrier();
    });
    FAIL() << "a barrier without rank 1 was passed";
  } catch (const Error& error) {
    EXPECT_NE(std::string_view(error.what()).find("rank 1 ended without taking part"), std::string_view::npos)
        << error.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(LocalGroup, DifferentCollectivesAreToldApart) {
  try {
    run_ranks(2, [](Communicator& comm) {
      std::vector<float> values(8);
      const std::size_t count = comm.rank() == 0 ? 8 : 4;
      comm.all_reduce({values.data(), count, DType::f32, Memory::host}, Reduce::sum);
    });
    FAIL() << "8 elements were added to 4";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::desync);
    const std::string_view text(error.what());
    EXPECT_NE(text.find("8 x fp32"), std::string_view::npos) << text;
    EXPECT_NE(text.find("4 x fp32"), std::string_view::npos) << text;
  }
}

TEST(LocalGroup, PartsOfAllToAllMustFit) {
  const auto mismatch = [](Communicator& comm) {
    std::vector<float> out(4), in(4);
    const std::vector<std::size_t> sends =
        comm.rank() == 0 ? std::vector<std::size_t>{0, 1, 4} : std::vector<std::size_t>{0, 2, 4};
    const std::vector<std::size_t> receives =
        comm.rank() == 0 ? std::vector<std::size_t>{0, 1, 3} : std::vector<std::size_t>{0, 2, 4};
    comm.wait(comm.start_all_to_all({out.data(), 4, DType::f32, Memory::host}, sends,
                                    {in.data(), 4, DType::f32, Memory::host}, receives));
  };
  EXPECT_THROW(run_ranks(2, mismatch), Error);
}

TEST(RunRanks, ThrowsTheRootCause) {
  const auto body = [](Communicator& comm) {
    if (comm.rank() == 3) fail(ErrorKind::checkpoint, "step-7 is torn");
    comm.barrier();
  };
  for (int i = 0; i < 20; ++i) {
    try {
      run_ranks(5, body);
      FAIL() << "the error was lost";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::checkpoint);
      EXPECT_STREQ(error.what(), "step-7 is torn");
    }
  }
}

TEST(LocalArena, OutlivesARankThatUnwinds) {
  // Rank 1 fails with its arena in a collective; rank 0 may still be reading it.
  const auto body = [](Communicator& comm) {
    const auto cpu = make_cpu_device();
    constexpr std::size_t count = std::size_t{1} << 20;
    const auto arena = comm.make_arena(*cpu, count * sizeof(float));
    const Pending pending = comm.start_all_reduce({arena->data(), count, DType::f32, Memory::host}, Reduce::sum);
    if (comm.rank() == 1) fail(ErrorKind::data, "no more data");
    comm.wait(pending);
    comm.barrier();
  };
  for (int i = 0; i < 10; ++i) EXPECT_THROW(run_ranks(2, body), Error);
}

}  // namespace
}  // namespace lockstep::comm
