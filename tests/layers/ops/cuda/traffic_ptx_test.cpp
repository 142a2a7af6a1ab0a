// Shared wavefronts and global sectors of kernels at sizes that the operators' own tests leave out: wide heads and the
// single step of the recurrence, decoding with small heads. Full tiles must waste nothing.
#include "tests/layers/ops/cuda/kernel_cases.h"

namespace longreach::test {
namespace {

void expect_no_waste(const Outcome& outcome) {
  EXPECT_TRUE(outcome.errors.empty()) << outcome.errors[0];
  EXPECT_LE(outcome.error, 1e-2);
  EXPECT_LE(outcome.wavefronts, 1.05);
  EXPECT_LE(outcome.sectors, 1.10);
}

TEST(Traffic, WideHeadsOfTheRecurrence) {
  for (const auto& [dk, dv] : std::vector<std::pair<int64_t, int64_t>>{{128, 128}, {256, 64}, {64, 256}}) {
    SCOPED_TRACE(text(dk, '/', dv));
    expect_no_waste(RecurrenceLaunch(128, dk, dv).run(Kernels(file_of), true));
  }
}

TEST(Traffic, DecodingWithSmallHeads) {
  const AttentionLaunch launch(1, 512, 16);
  for (const int splits : {1, 2})
    expect_no_waste(
        launch.forward(Kernels(file_of), {.path = interval::ForwardPath::kDecode, .splits = splits}));
}

// One token: o = scale q^T (exp(decay) S + k v^T), two heads with one key.
TEST(Traffic, OneStepOfTheRecurrence) {
  namespace rc = recurrence_cuda;
  constexpr int64_t kSize = 128, kHeads = 2;
  const Rows q(1, kHeads, kSize, 1), k(1, 1, kSize, 2), v(1, 1, kSize, 3);
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> state(kHeads * kSize * kSize), decay{-0.5f, -0.25f};
  for (float& x : state) x = normal(random);
  Exact o(q);
  std::vector<double> exact_state;
  for (int64_t h = 0; h < kHeads; ++h)
    for (int64_t r = 0; r < kSize; ++r)
      for (int64_t c = 0; c < kSize; ++c) {
        exact_state.push_back(std::exp(static_cast<double>(decay[h])) * state[exact_state.size()] +
                              k(0, 0, r) * v(0, 0, c));
        o.row(0, h)[c] += 0.5 * q(0, h, r) * exact_state.back();
      }
  ptx::Memory memory;
  const auto view = [](void* data, const Rows& rows) {
    return rc::View{data, rows.heads * rows.size, 0, rows.size};
  };
  rc::Step step{.batch = 1, .heads = kHeads, .key_heads = 1, .value_heads = 1, .dk = kSize, .dv = kSize};
  step.dtype = DType::kBFloat16, step.scale = 0.5f;
  step.q = view(memory.upload("q", q.bits), q), step.k = view(memory.upload("k", k.bits), k);
  step.v = view(memory.upload("v", v.bits), v);
  step.o = view(memory.allocate("o", q.bits.size() * 2), q);
  step.log_decay = memory.upload("log_decay", decay);
  step.decay_row = kHeads, step.decay_head = 1;
  step.state = memory.upload("state", state);
  step.new_state = memory.allocate_array<float>("new_state", state.size());
  Outcome outcome;
  launch_all(outcome, Kernels(file_of), rc::plan_step(step), memory);
  compare(outcome, memory, step.o.data, o.values);
  compare(
      outcome, [&] { return memory.download(step.new_state, state.size()); }, exact_state);
  expect_no_waste(outcome);
}

}  // namespace
}  // namespace longreach::test
