// Ranks over NCCL, as far as one device goes: a group of one. Without a device it is skipped and says why;
// that the plug-in has the class needs none.
#include "distributed/nccl.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "distributed/gloo.h"
#include "tests/support/device_fixture.h"
#include "tests/support/errors.h"

namespace longreach::test {
namespace {

// Numbers that every dtype holds.
at::Tensor numbers(int64_t rows, at::ScalarType dtype) {
  return at::arange(3 * rows, at::kDouble).remainder(128).view({rows, 3}).to(dtype);
}

void expect_every_operation(Communicator& group, const at::Tensor& x) {
  const int64_t rows = x.size(0);
  const at::Tensor out = at::empty_like(x), gathered = at::empty_like(x);
  group.all_to_all(out, x, {rows}, {rows}, "rows").wait();
  EXPECT_TRUE(at::equal(out, x));
  group.all_gather(gathered, x, "gather").wait();
  EXPECT_TRUE(at::equal(gathered, x));
  EXPECT_TRUE(at::equal(group.reduce_scatter(x, "part"), x.view({-1})));
  const at::Tensor sum = x.clone();
  group.all_reduce(sum, "sum");
  group.broadcast(sum, 0, "send");
  EXPECT_TRUE(at::equal(sum, x));
}

TEST(Nccl, ThePluginHasTheClass) {
  try {
    cuda::load();
  } catch (const UserError& error) {
    GTEST_SKIP() << "skipped: " << error.what();
  }
  EXPECT_NE(cuda::exported(kMakeNcclCommunicator), nullptr);
  expect_error<UserError>("liblongreach_cuda.so is not of this version: no longreach_other",
                          [] { cuda::exported("longreach_other"); });
}

TEST_F(Device, AGroupOfOneExchangesOverNccl) {
  const RendezvousServer server;
  const Environment environment{
      .master_host = "127.0.0.1", .master_port = server.port(), .store_is_held = true};
  const auto rendezvous = std::make_shared<Rendezvous>(environment, std::chrono::seconds(60));
  const CommConfig config{.check = true};
  const auto make = reinterpret_cast<MakeNcclCommunicator>(cuda::exported(kMakeNcclCommunicator));
  const Group world(make(rendezvous, gloo_communicator(rendezvous, {}), config));
  ASSERT_EQ(world->size(), 1);
  for (const Group& group : {world, world->split({0})}) {
    ASSERT_EQ(group->rank(), 0);
    group->barrier("barrier");
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kLong, at::kByte})
      for (const int64_t rows : {0, 1, 333})
        for (const at::Device device : {at::Device(at::kCUDA), at::Device(at::kCPU)})
          expect_every_operation(*group, numbers(rows, dtype).to(device));
    EXPECT_EQ(group->traffic().at("rows").bytes, 0);
  }
}

}  // namespace
}  // namespace longreach::test
