#include "comm/staged.hpp"

#include <gtest/gtest.h>

#include "comm/local.hpp"
#include "comm/run_ranks.hpp"
#include "kernels/emu/emu_device.hpp"
#include "tests/comm/contract.hpp"

namespace lockstep::comm {
namespace {

/// One promise on so many ranks.
struct Setting {
  int ranks;
  contract::Case one;
};

void PrintTo(const Setting& setting, std::ostream* out) { *out << setting.ranks << " ranks, " << setting.one.name; }

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const contract::Case& one : contract::cases())
    for (const int ranks : {1, 2, 3, 5}) all.push_back({ranks, one});
  return all;
}

/// Ranks on emulated devices whose communicator moves host memory only.
void run_staged(int ranks, const std::function<void(contract::Subject)>& body, const LocalOptions& options = {}) {
  run_rank_threads(ranks, [&](const std::shared_ptr<LocalGroup>& group, int rank) {
    const auto device = make_emulated_device(77 + static_cast<std::uint64_t>(rank));
    const auto host = make_local(group, rank, options);
    const auto comm = make_staged(*host, *device);
    body({*comm, device.get()});
  });
}

class StagedContract : public testing::TestWithParam<Setting> {};

TEST_P(StagedContract, IsKept) {
  EXPECT_NO_THROW(run_staged(GetParam().ranks, GetParam().one.run, {.timeout = Seconds(30)}));
}

INSTANTIATE_TEST_SUITE_P(Staged, StagedContract, testing::ValuesIn(settings()), [](const auto& test) {
  return fmt::format("{}_ranks_{}", test.param.ranks, test.param.one.name);
});

TEST(Staged, LongBuffersAreCutByTheHostsCommunicator) {
  EXPECT_NO_THROW(run_staged(3,
                             [](contract::Subject s) {
                               contract::all_reduce<float>(s);
                               contract::reduce_scatter<float>(s);
                               contract::all_gather<float>(s);
                               contract::broadcast<float>(s);
                               contract::several_in_flight(s);
                             },
                             {.max_piece = 999}));
}

/// A rank that polls starts a collective when it can, one that does not when it must: the others see the same order.
TEST(Staged, CollectivesOfHostAndDeviceKeepTheirOrderHoweverARankPolls) {
  run_staged(3, [](contract::Subject s) {
    DeviceApi& device = *s.device;
    const StreamRef stream = device.make_stream();
    for (int round = 0; round < 6; ++round) {
      const Arena first(device, 64 * sizeof(float)), second(device, 32 * sizeof(float));
      const Pending a = s.comm.start_all_reduce({first.data(), 64, DType::f32, Memory::device}, Reduce::sum, stream);
      for (int i = 0; i < s.comm.rank() * 4; ++i) s.comm.progress();
      std::vector<int> all(static_cast<std::size_t>(s.comm.size()));
      all[static_cast<std::size_t>(s.comm.rank())] = s.comm.rank() + round;
      const Pending b = s.comm.start_broadcast({second.data(), 32, DType::f32, Memory::device}, round % 3, stream);
      s.comm.all_gather_values(std::span(all));
      for (int r = 0; r < s.comm.size(); ++r) EXPECT_EQ(all[static_cast<std::size_t>(r)], r + round);
      s.comm.wait(b, stream);
      s.comm.wait(a, stream);
      device.synchronize(stream);
    }
    device.destroy(stream);
  });
}

TEST(Staged, IsForDevicesWithMemoryOfTheirOwn) {
  const auto host = make_single();
  const auto device = make_cpu_device();
  EXPECT_THROW((void)make_staged(*host, *device), Error);
}

}  // namespace
}  // namespace lockstep::comm
