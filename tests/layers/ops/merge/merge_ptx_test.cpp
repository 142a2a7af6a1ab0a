// merge_attention on the device's path, its kernels run from their PTX, against the float64 reference.
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/layers/ops/cuda/interpreted_device.h"
#include "tests/layers/ops/merge/cases.h"

namespace longreach::test {
namespace {

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

double limit(at::ScalarType dtype) {
  return dtype == at::kFloat ? 5e-6 : dtype == at::kBFloat16 ? 1e-2 : 2e-3;
}

std::vector<at::Tensor> run_on_device(const Parts& parts) {
  const InterpretedDevice device;
  std::vector<at::Tensor> results = run(parts, true, false);
  EXPECT_EQ(device.runs().size(), 2u);  // the join and its gradient, nothing else
  return results;
}

void expect_matches(const Parts& parts) {
  const at::ScalarType dtype = parts[0].o.scalar_type();
  SCOPED_TRACE(::testing::Message() << dtype << " " << parts[0].o.sizes() << " parts " << parts.size());
  const auto exact = run(parts, false, true), found = run_on_device(parts);
  for (size_t i = 0; i < exact.size(); ++i) {
    EXPECT_EQ(found[i].sizes(), exact[i].sizes());
    EXPECT_TRUE((found[i].to(at::kDouble) == kEmpty).equal(exact[i] == kEmpty)) << i;
    EXPECT_LE(relative_error(finite(found[i]), finite(exact[i])), limit(i % 2 == 1 ? at::kFloat : dtype))
        << i;
  }
}

// Rows shorter and longer than a warp's quads, and some that begin on no multiple of four elements; more
// parts than lanes.
TEST(MergePtx, MatchesReference) {
  for (const auto dtype : kDtypes)
    for (const int64_t dim : {1, 7, 64, 300}) expect_matches(draw(dtype, dim));
  for (const auto dtype : kDtypes) expect_matches(draw(dtype, 16, 37));
}

TEST(MergePtx, AnyStrides) {
  for (const auto dtype : kDtypes) {
    Parts parts = draw(dtype, 12);
    parts[0].o = parts[0].o.transpose(1, 2).contiguous().transpose(1, 2);
    parts[1].o = normal({2, 5, 3, 14}, 30, dtype).narrow(3, 1, 12);
    parts[2].o = parts[2].o.transpose(2, 3).contiguous().transpose(2, 3);
    parts[0].lse = parts[0].lse.transpose(1, 2).contiguous().transpose(1, 2);
    expect_matches(parts);
  }
}

TEST(MergePtx, AnEmptyPartIsNeverRead) {
  Parts parts = draw(at::kFloat);
  const auto clean = run_on_device(parts);
  parts[0].o.select(1, 0).fill_(std::numeric_limits<float>::quiet_NaN());
  const auto poisoned = run_on_device(parts);
  for (size_t i = 0; i < clean.size(); ++i) EXPECT_TRUE(clean[i].equal(poisoned[i])) << i;
}

// A NaN in lse or o of a part reaches its row, also where every other part is empty, and no other row.
TEST(MergePtx, NaNStays) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Parts parts = draw(at::kFloat);
  const auto clean = run_on_device(parts);
  parts[1].lse.select(2, 2).fill_(nan);  // nothing else is seen by token 2
  parts[1].lse.select(2, 0).fill_(nan);  // token 0 sees parts 1 and 2
  parts[2].o.select(1, 4).fill_(nan);    // token 4, where the part's weight underflows
  const auto found = run_on_device(parts);
  for (const int64_t token : {0, 2}) {
    EXPECT_TRUE(found[0].select(1, token).isnan().all().item<bool>()) << token;
    EXPECT_TRUE(found[1].select(2, token).isnan().all().item<bool>()) << token;
  }
  EXPECT_TRUE(found[0].select(1, 4).isnan().all().item<bool>());
  for (const int64_t token : {1, 3}) {
    EXPECT_TRUE(found[0].select(1, token).equal(clean[0].select(1, token))) << token;
    EXPECT_TRUE(found[1].select(2, token).equal(clean[1].select(2, token))) << token;
  }
}

TEST(MergePtx, NoTokensAndNoGradientOfLse) {
  const InterpretedDevice device;
  const Parts none{{normal({1, 0, 2, 3}, 1, at::kFloat), normal({1, 2, 0}, 2, at::kFloat)}};
  EXPECT_EQ(merge_attention(none).o.numel(), 0);
  EXPECT_TRUE(device.runs().empty());
  Parts parts = draw(at::kFloat);
  for (auto& part : parts) part.o.requires_grad_(true), part.lse.requires_grad_(true);
  const auto [o, lse] = merge_attention(parts);
  const auto grads = torch::autograd::grad({o.sum()}, {parts[2].o, parts[2].lse});
  EXPECT_TRUE(grads[0].isfinite().all().item<bool>() && grads[1].isfinite().all().item<bool>());
  EXPECT_GT(grads[1].abs().max().item<float>(), 0);
}

TEST(MergePtx, RefusesFloat64) {
  const InterpretedDevice device;
  const Parts parts{{normal({1, 4, 2, 3}, 1), normal({1, 2, 4}, 2, at::kFloat)}};
  EXPECT_THROW(merge_attention(parts), DtypeError);
}

}  // namespace
}  // namespace longreach::test
