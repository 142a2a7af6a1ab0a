// The CUDA recurrence, run from its PTX, against the float64 reference: outputs, states and every gradient,
// with an interpreter that reports races, reads of what was never written, and waste.
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "core/error.h"
#include "layers/ops/cpu/parallel.h"
#include "tests/layers/ops/recurrence/cuda_run.h"

namespace longreach::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kHalf};
constexpr DecayKind kDecays[] = {DecayKind::kNone, DecayKind::kHead, DecayKind::kToken};

double limit(at::ScalarType dtype) {
  return dtype == at::kFloat ? 1e-5 : dtype == at::kBFloat16 ? 1e-2 : 2e-3;
}

void expect_near(const Named& found, const Named& exact, double limit) {
  ASSERT_EQ(found.size(), exact.size());
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(found[i].first, exact[i].first);
    ASSERT_EQ(found[i].second.sizes(), exact[i].second.sizes()) << exact[i].first;
    if (exact[i].second.numel() == 0) continue;
    // Where the true value is 0 everywhere (one token has no gradient through its decay), so must ours be.
    if (exact[i].second.abs().max().item<double>() == 0)
      EXPECT_EQ(found[i].second.abs().max().item<double>(), 0) << exact[i].first;
    else
      EXPECT_LE(relative_error(found[i].second, exact[i].second), limit) << exact[i].first;
  }
}

void expect_matches(const RecurrenceCase& c, at::ScalarType dtype, double factor = 1,
                    CudaRun::Placement placement = {}) {
  SCOPED_TRACE(::testing::Message() << c << " " << dtype);
  RecurrenceInputs inputs = draw(c, dtype);
  for (size_t i = 0; i < 3; ++i) inputs[i] = inputs[i] * factor;
  CudaRun gpu;
  expect_near(run_cuda(c, inputs, gpu, placement), run(c, inputs, recurrence_reference, true), limit(dtype));
}

// The reference goes token by token: threads would cost it more than they bring.
class RecurrencePtx : public ::testing::Test {
 protected:
  void SetUp() override { set_num_threads(1); }
};

void expect_every_length(at::ScalarType dtype) {
  for (const int64_t tokens : {1, 63, 64, 65, 200, 257})
    for (const auto decay : kDecays)
      expect_matches({.tokens = tokens,
                      .heads = 1,
                      .key_heads = 1,
                      .value_heads = 1,
                      .dk = 64,
                      .dv = 64,
                      .decay = decay},
                     dtype);
}

TEST_F(RecurrencePtx, EveryLengthInBFloat16) { expect_every_length(at::kBFloat16); }
TEST_F(RecurrencePtx, EveryLengthInFloat16) { expect_every_length(at::kHalf); }
TEST_F(RecurrencePtx, EveryLengthInFloat32) { expect_every_length(at::kFloat); }

// So slow that states of the first chunk still count in the last: the other cases forget within a chunk.
TEST_F(RecurrencePtx, SlowDecays) {
  for (const auto decay : {DecayKind::kHead, DecayKind::kToken})
    expect_matches({.tokens = 500, .dk = 32, .dv = 32, .decay = decay, .decay_scale = 0.005}, at::kFloat);
}

TEST_F(RecurrencePtx, EveryType) {
  for (const auto dtype : kDtypes)
    for (const auto decay : kDecays)
      expect_matches({.batch = 2, .tokens = 130, .dk = 32, .dv = 40, .decay = decay}, dtype);
}

TEST_F(RecurrencePtx, EveryKeyWidth) {
  for (const int64_t dk : {32, 64, 128, 256})
    for (const auto dtype : kDtypes)
      expect_matches({.tokens = 70,
                      .heads = 1,
                      .key_heads = 1,
                      .value_heads = 1,
                      .dk = dk,
                      .dv = 64,
                      .decay = DecayKind::kToken},
                     dtype);
}

TEST_F(RecurrencePtx, OddWidths) {
  for (const auto& [dk, dv] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {17, 33}, {48, 80}, {100, 70}})
    for (const auto dtype : kDtypes)
      expect_matches({.tokens = 67, .dk = dk, .dv = dv, .decay = DecayKind::kToken}, dtype);
}

TEST_F(RecurrencePtx, LargestHeads) {
  for (const auto dtype : {at::kBFloat16, at::kFloat})
    expect_matches({.tokens = 70,
                    .heads = 1,
                    .key_heads = 1,
                    .value_heads = 1,
                    .dk = 256,
                    .dv = 512,
                    .decay = DecayKind::kToken},
                   dtype);
}

TEST_F(RecurrencePtx, SharedHeads) {
  for (const auto& [hk, hv] : std::vector<std::pair<int64_t, int64_t>>{{1, 6}, {6, 1}, {2, 3}, {1, 1}})
    expect_matches({.tokens = 70,
                    .heads = 6,
                    .key_heads = hk,
                    .value_heads = hv,
                    .dk = 32,
                    .dv = 32,
                    .decay = DecayKind::kToken},
                   at::kHalf);
}

TEST_F(RecurrencePtx, PackedDocuments) {
  for (const auto& bounds :
       std::vector<std::vector<int32_t>>{{0, 150}, {0, 0, 1, 1, 65, 66, 130, 150, 150}, {0, 64, 150}})
    for (const auto decay : kDecays)
      expect_matches({.tokens = 150, .dk = 32, .dv = 48, .decay = decay, .bounds = bounds}, at::kBFloat16);
}

TEST_F(RecurrencePtx, NoTokens) {
  expect_matches({.tokens = 0, .dk = 8, .dv = 8, .decay = DecayKind::kToken}, at::kBFloat16);
  expect_matches({.tokens = 0, .dk = 8, .dv = 8, .decay = DecayKind::kToken, .bounds = {0, 0, 0}},
                 at::kFloat);
}

TEST_F(RecurrencePtx, NoInitialState) {
  expect_matches({.tokens = 100, .dk = 32, .dv = 32, .decay = DecayKind::kToken, .initial = false},
                 at::kBFloat16);
}

TEST_F(RecurrencePtx, LargeValues) {
  for (const auto dtype : kDtypes)
    expect_matches({.tokens = 200,
                    .heads = 1,
                    .key_heads = 1,
                    .value_heads = 1,
                    .dk = 64,
                    .dv = 64,
                    .decay = DecayKind::kToken},
                   dtype, 8);
}

TEST_F(RecurrencePtx, HardDecaysPerHead) {
  for (const double step : {0.0, -1e-6, -1e-4, -30.0, -kInfinity})
    expect_matches({.tokens = 150, .dk = 32, .dv = 32, .steps = {step}}, at::kFloat);
}

TEST_F(RecurrencePtx, HardDecaysPerToken) {
  for (const auto& steps : std::vector<std::vector<double>>{{-30.0},
                                                            {0.0, -1e-4, -30.0},
                                                            {0.0, -1e-6, -5.0, -30.0, -kInfinity},
                                                            {-kInfinity},
                                                            {-1e30, -1e-3},
                                                            {0.0}})
    for (const auto dtype : {at::kFloat, at::kBFloat16})
      expect_matches({.tokens = 150, .dk = 32, .dv = 32, .decay = DecayKind::kToken, .steps = steps}, dtype);
}

// Rows that are not 16-byte aligned go by single elements; aligned ones with gaps do not.
TEST_F(RecurrencePtx, AnyStrides) {
  for (const auto dtype : kDtypes)
    for (const auto& placement : {CudaRun::Placement{.gap = 1, .offset = 3}, CudaRun::Placement{.gap = 8}})
      expect_matches({.batch = 2, .tokens = 66, .dk = 32, .dv = 40, .decay = DecayKind::kToken}, dtype, 1,
                     placement);
}

TEST_F(RecurrencePtx, RandomShapes) {
  std::mt19937_64 random(20);
  const auto pick = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int i = 0; i < 16; ++i) {
    RecurrenceCase c{.batch = pick(1, 2), .tokens = pick(1, 140), .seed = random()};
    c.key_heads = pick(1, 2), c.value_heads = pick(1, 2), c.heads = 2 * pick(1, 2);
    c.dk = pick(1, 90), c.dv = pick(1, 140), c.decay = kDecays[pick(0, 2)], c.initial = pick(0, 1) == 1;
    if (pick(0, 2) == 0) {
      c.batch = 1;
      const int32_t middle = static_cast<int32_t>(pick(0, c.tokens));
      c.bounds = {0, middle, middle, static_cast<int32_t>(c.tokens)};
    }
    expect_matches(c, kDtypes[pick(0, 2)]);
  }
}

// States that were not kept are computed again, to the same bits.
TEST_F(RecurrencePtx, StatesComputedAgain) {
  for (const auto& bounds : std::vector<std::vector<int32_t>>{{}, {0, 0, 70, 130}}) {
    const RecurrenceCase c{.tokens = 130, .dk = 40, .dv = 72, .decay = DecayKind::kToken, .bounds = bounds};
    const RecurrenceInputs inputs = draw(c, at::kBFloat16);
    CudaRun one, other;
    const Named a = run_cuda(c, inputs, one), b = run_cuda(c, inputs, other, {}, false);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i].second, b[i].second)) << a[i].first;
  }
}

// Results that nobody asked for leave the others as they are.
TEST_F(RecurrencePtx, OptionalResults) {
  namespace rc = recurrence_cuda;
  const RecurrenceCase c{.tokens = 100,
                         .heads = 1,
                         .key_heads = 1,
                         .value_heads = 1,
                         .dk = 24,
                         .dv = 40,
                         .decay = DecayKind::kNone};
  RecurrenceInputs x = draw(c, at::kFloat);
  x[4] = at::Tensor();
  x[6] = x[6] * 0;
  const Named exact = run(c, x, recurrence_reference, true);
  CudaRun gpu;
  CudaShape s(c, at::kFloat);
  const auto lists = gpu.memory().upload("lists", rc::make_lists(s.shape));
  rc::Forward forward{.shape = s.shape,
                      .q = gpu.upload("q", x[0], {}),
                      .k = gpu.upload("k", x[1], {}),
                      .v = gpu.upload("v", x[2], {}),
                      .o = gpu.place("o", x[5], {})};
  gpu.launch(rc::plan_forward(
      forward, {lists, gpu.memory().allocate("workspace", rc::forward_workspace_bytes(forward))}));
  rc::Backward backward{.shape = s.shape,
                        .q = forward.q,
                        .k = forward.k,
                        .v = forward.v,
                        .grad_o = gpu.upload("grad", x[5], {}),
                        .dq = gpu.place("dq", x[0], {}),
                        .dk = gpu.place("dk", x[1], {}),
                        .dv = gpu.place("dv", x[2], {})};
  gpu.launch(rc::plan_backward(
      backward, {lists, gpu.memory().allocate("workspace", rc::backward_workspace_bytes(backward))}));
  EXPECT_LE(relative_error(gpu.download(forward.o, x[5]), exact[0].second), 1e-5);
  EXPECT_LE(relative_error(gpu.download(backward.dq, x[0]), exact[2].second), 1e-5);
  EXPECT_LE(relative_error(gpu.download(backward.dk, x[1]), exact[3].second), 1e-5);
  EXPECT_LE(relative_error(gpu.download(backward.dv, x[2]), exact[4].second), 1e-5);
}

// Empty tensors have no memory; the initial state becomes the final one all the same.
TEST_F(RecurrencePtx, NoTokensNoMemory) {
  namespace rc = recurrence_cuda;
  const RecurrenceCase c{.tokens = 0, .dk = 8, .dv = 8, .decay = DecayKind::kNone};
  CudaRun gpu;
  CudaShape s(c, at::kFloat);
  const at::Tensor start = normal({1, 2, 8, 8}, 1, at::kFloat);
  rc::Forward forward{.shape = s.shape};
  forward.initial_state = gpu.array<float>("initial_state", start);
  forward.final_state = gpu.array<float>("final_state", start.numel());
  gpu.launch(rc::plan_forward(forward, {gpu.memory().upload("lists", rc::make_lists(s.shape)), nullptr}));
  EXPECT_TRUE(at::equal(gpu.download(forward.final_state, start.sizes()), start));
  s.shape.sequence_count = 0;
  EXPECT_TRUE(rc::plan_forward({.shape = s.shape}, {}).empty());
}

// No reduction depends on the order in which blocks and warps run.
TEST_F(RecurrencePtx, SameBitsInAnyOrder) {
  const RecurrenceCase c{.tokens = 200,
                         .heads = 4,
                         .key_heads = 2,
                         .value_heads = 1,
                         .dk = 72,
                         .dv = 80,
                         .decay = DecayKind::kToken};
  const RecurrenceInputs inputs = draw(c, at::kBFloat16);
  CudaRun one, other({.schedule = 7});
  const Named a = run_cuda(c, inputs, one), b = run_cuda(c, inputs, other);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i].second, b[i].second)) << a[i].first;
}

// Full tiles waste neither shared wavefronts nor global sectors.
TEST_F(RecurrencePtx, FullTilesWasteNothing) {
  for (const auto dtype : kDtypes) {
    const RecurrenceCase c{.tokens = 256,
                           .heads = 8,
                           .key_heads = 8,
                           .value_heads = 8,
                           .dk = 64,
                           .dv = 64,
                           .decay = DecayKind::kToken};
    CudaRun gpu({.profile = true});
    run_cuda(c, draw(c, dtype), gpu);
    for (const ptx::Report& report : gpu.reports()) {
      EXPECT_LE(report.shared_wavefront_ratio(), 1.05) << report.text();
      EXPECT_LE(report.sector_ratio(), 1.10) << report.text();
    }
  }
}

// Steps one by one equal the reference over the whole.
void expect_steps_match(const RecurrenceCase& c, at::ScalarType dtype) {
  namespace rc = recurrence_cuda;
  SCOPED_TRACE(::testing::Message() << c << " " << dtype);
  const RecurrenceInputs x = draw(c, dtype);
  const Named exact = run(c, x, recurrence_reference, true);
  CudaRun gpu;
  float* state = gpu.array<float>("state", x[4]);
  std::vector<at::Tensor> outputs;
  for (int64_t t = 0; t < c.tokens; ++t) {
    const auto piece = [&](size_t i) { return x[i].slice(1, t, t + 1); };
    rc::Step step{.batch = c.batch,
                  .heads = c.heads,
                  .key_heads = c.key_heads,
                  .value_heads = c.value_heads,
                  .dk = c.dk,
                  .dv = c.dv,
                  .dtype = kernel_dtype(dtype),
                  .scale = 0.5f};
    step.q = gpu.upload("q", piece(0), {}), step.k = gpu.upload("k", piece(1), {}),
    step.v = gpu.upload("v", piece(2), {});
    step.o = gpu.place("o", piece(5), {});
    if (c.decay != DecayKind::kNone) {
      step.log_decay = gpu.array<float>("log_decay", c.decay == DecayKind::kHead ? x[3] : piece(3));
      step.decay_row = c.decay == DecayKind::kHead ? 0 : c.heads, step.decay_head = 1;
    }
    step.state = state, step.new_state = state;
    gpu.launch(rc::plan_step(step));
    outputs.push_back(gpu.download(step.o, piece(5)));
  }
  const at::Tensor o = at::cat(outputs, 1), end = gpu.download(state, x[4].sizes());
  EXPECT_LE(relative_error(o, exact[0].second), limit(dtype));
  EXPECT_LE(relative_error(end, exact[1].second), limit(dtype));
}

TEST_F(RecurrencePtx, Steps) {
  for (const auto dtype : kDtypes)
    for (const auto decay : kDecays)
      expect_steps_match({.batch = 2,
                          .tokens = 4,
                          .heads = 4,
                          .key_heads = 2,
                          .value_heads = 1,
                          .dk = 40,
                          .dv = 68,
                          .decay = decay},
                         dtype);
  expect_steps_match({.tokens = 2, .dk = 256, .dv = 512}, at::kBFloat16);
  expect_steps_match({.tokens = 3, .dk = 17, .dv = 33, .steps = {-kInfinity, -0.1}}, at::kFloat);
}

TEST_F(RecurrencePtx, RefusesWhatIsNotBuilt) {
  namespace rc = recurrence_cuda;
  const RecurrenceCase c{.tokens = 64, .dk = 32, .dv = 32, .decay = DecayKind::kNone};
  CudaShape s(c, at::kBFloat16);
  alignas(256) static std::byte memory[256];
  const Strided view{memory, 0, 64, 32};
  rc::Forward forward{.shape = s.shape, .q = view, .k = view, .v = view, .o = view};
  const rc::DeviceMemory device{memory, memory};
  EXPECT_EQ(rc::plan_forward(forward, device).size(), 4u);
  const auto refuses = [&](auto change, const char* words) {
    rc::Forward changed = forward;
    change(changed);
    try {
      rc::plan_forward(changed, device);
      ADD_FAILURE() << "accepted: " << words;
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  refuses([](rc::Forward& f) { f.shape.dk = 257; }, "Dk = 257; built for CUDA: 1 to 256");
  refuses([](rc::Forward& f) { f.shape.dv = 513; }, "Dv = 513; built for CUDA: 1 to 512");
  refuses([](rc::Forward& f) { f.shape.chunk = 128; }, "built for CUDA: 64");
  refuses([](rc::Forward& f) { f.shape.dtype = static_cast<DType>(9); }, "built: float32, bfloat16, float16");
  refuses([](rc::Forward& f) { f.q.data = memory + 1; }, "is not a multiple of 2 bytes");
  refuses([](rc::Forward& f) { f.shape.key_heads = 3; }, "expected a divisor of the 2 of q");
}

}  // namespace
}  // namespace longreach::test
