#include "core/host.hpp"

#include <gtest/gtest.h>
#include <sys/utsname.h>

namespace lockstep {
namespace {

TEST(Host, HasTheNameThatTheKernelGivesIt) {
  utsname system{};
  ASSERT_EQ(uname(&system), 0);
  EXPECT_EQ(host_name(), system.nodename);
}

}  // namespace
}  // namespace lockstep
