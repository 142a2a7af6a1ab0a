// What must hold of the fused recurrence whatever its values: causality, pieces equal the whole, documents
// apart, any strides, and the same bits with any number of threads.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "layers/ops/cpu/parallel.h"
#include "tests/layers/ops/recurrence/cases.h"

namespace longreach::test {
namespace {

const RecurrenceOptions kOptions{.scale = 0.5};

TEST(RecurrenceProperties, TheFutureIsNotSeen) {
  const RecurrenceCase c{.tokens = 150, .decay = DecayKind::kToken};
  const RecurrenceInputs x = draw(c, at::kFloat);
  const at::Tensor before = recurrence(x[0], x[1], x[2], x[3], x[4]).o;
  for (const int64_t t : {1, 17, 64, 100}) {
    RecurrenceInputs y;
    for (size_t i = 0; i < 4; ++i) {
      y.push_back(x[i].clone());
      y[i].narrow(1, t, c.tokens - t).mul_(1.5).sub_(0.25);
    }
    const at::Tensor after = recurrence(y[0], y[1], y[2], y[3], x[4]).o;
    EXPECT_TRUE(at::equal(before.narrow(1, 0, t), after.narrow(1, 0, t))) << t;
    EXPECT_FALSE(at::equal(before.narrow(1, t, 1), after.narrow(1, t, 1))) << t;
  }
}

// One NaN at token t: outputs before t are what they were, and only those gradients are NaN that depend on
// it. `from`: NaN from t on; `until`: up to t; `at`: at t alone.
TEST(RecurrenceProperties, NanReachesNoEarlierToken) {
  enum class Reach { kNone, kFrom, kUntil, kAt };
  using enum Reach;
  struct Row {
    size_t input;
    Reach o, dq, dk, dv;
  };
  constexpr Row kRows[] = {{0, kAt, kNone, kUntil, kUntil},
                           {1, kFrom, kFrom, kNone, kAt},
                           {2, kFrom, kFrom, kAt, kNone},
                           {5, kNone, kAt, kUntil, kUntil}};
  constexpr int64_t kAtToken = 70;
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto decay : {DecayKind::kNone, DecayKind::kHead, DecayKind::kToken})
      for (const int64_t heads : {1, 12}) {  // segments side by side, and one after another
        const RecurrenceCase c{
            .tokens = 1100, .heads = heads, .key_heads = heads, .value_heads = heads, .decay = decay};
        const RecurrenceInputs clean = draw(c, dtype);
        const Named expected = run(c, clean, recurrence);
        for (const Row& row : kRows) {
          RecurrenceInputs x = clean;
          x[row.input] = x[row.input].clone();
          x[row.input].select(1, kAtToken).select(1, 0).select(1, 3).fill_(std::nan(""));
          const Named found = run(c, x, recurrence);
          const std::pair<size_t, Reach> checked[] = {{0, row.o}, {2, row.dq}, {3, row.dk}, {4, row.dv}};
          for (const auto& [i, reach] : checked) {
            SCOPED_TRACE(::testing::Message()
                         << c << ": " << found[i].first << " with NaN in input " << row.input);
            const at::Tensor nan = found[i].second.isnan().any(-1).select(2, 0)[0];
            const at::Tensor t = at::arange(c.tokens);
            const at::Tensor wanted = reach == kNone    ? t < 0
                                      : reach == kFrom  ? t >= kAtToken
                                      : reach == kUntil ? t <= kAtToken
                                                        : t == kAtToken;
            EXPECT_TRUE(nan.equal(wanted)) << nan.nonzero().squeeze(1);
            const at::Tensor kept = wanted.view({1, -1, 1, 1});
            EXPECT_LE(relative_error(found[i].second.masked_fill(kept, 0.0),
                                     expected[i].second.masked_fill(kept, 0.0)),
                      dtype == at::kFloat ? 1e-6 : 1e-3);
          }
        }
      }
}

// The final state of one piece is the initial state of the next, gradients included.
TEST(RecurrenceProperties, PiecesEqualTheWhole) {
  const RecurrenceCase c{.batch = 2, .tokens = 200, .decay = DecayKind::kToken};
  const RecurrenceInputs inputs = draw(c, at::kFloat);
  const Named whole = run(c, inputs, recurrence);
  RecurrenceInputs x = inputs;
  for (size_t i = 0; i < 5; ++i) x[i] = x[i].detach().requires_grad_(true);
  std::vector<at::Tensor> outputs;
  at::Tensor state = x[4];
  int64_t first = 0;
  for (const int64_t count : {1, 63, 64, 5, 3, 64}) {
    const auto piece = [&](const at::Tensor& t) { return t.narrow(1, first, count); };
    const auto [o, end] = recurrence(piece(x[0]), piece(x[1]), piece(x[2]), piece(x[3]), state, {}, kOptions);
    outputs.push_back(o);
    state = end;
    first += count;
  }
  ASSERT_EQ(first, c.tokens);
  const at::Tensor o = at::cat(outputs, 1);
  EXPECT_LE(relative_error(o, whole[0].second), 1e-6);
  EXPECT_LE(relative_error(state, whole[1].second), 1e-6);
  const auto grads = torch::autograd::grad({o, state}, {x[0], x[1], x[2], x[3], x[4]}, {x[5], x[6]});
  for (size_t i = 0; i < grads.size(); ++i)
    EXPECT_LE(relative_error(grads[i], whole[2 + i].second), 2e-6) << whole[2 + i].first;
}

TEST(RecurrenceProperties, DecodingEqualsTheWhole) {
  const at::NoGradGuard no_grad;
  for (const auto decay : {DecayKind::kNone, DecayKind::kHead, DecayKind::kToken}) {
    const RecurrenceCase c{
        .batch = 2, .tokens = 70, .heads = 4, .key_heads = 2, .dk = 20, .dv = 37, .decay = decay};
    const RecurrenceInputs x = draw(c, at::kFloat);
    const auto whole = recurrence(x[0], x[1], x[2], x[3], x[4], {}, kOptions);
    at::Tensor state = x[4];
    std::vector<at::Tensor> outputs;
    for (int64_t t = 0; t < c.tokens; ++t) {
      const auto token = [&](const at::Tensor& a) { return a.narrow(1, t, 1); };
      const auto step = recurrence(token(x[0]), token(x[1]), token(x[2]),
                                   decay == DecayKind::kToken ? token(x[3]) : x[3], state, {}, kOptions);
      outputs.push_back(step.o);
      state = step.final_state;
    }
    EXPECT_LE(relative_error(at::cat(outputs, 1), whole.o), 1e-6);
    EXPECT_LE(relative_error(state, whole.final_state), 1e-6);
  }
}

TEST(RecurrenceProperties, ChunkSizesAgree) {
  RecurrenceCase c{.tokens = 300, .decay = DecayKind::kToken};
  const RecurrenceInputs inputs = draw(c, at::kFloat);
  c.chunk = 16;
  const Named first = run(c, inputs, recurrence);
  for (const int64_t chunk : {32, 64, 128}) {
    c.chunk = chunk;
    const Named other = run(c, inputs, recurrence);
    for (size_t i = 0; i < first.size(); ++i)
      EXPECT_LE(relative_error(other[i].second, first[i].second), 1e-6) << chunk << first[i].first;
  }
}

// Packed documents give the very bits of each document alone.
TEST(RecurrenceProperties, DocumentsDoNotMix) {
  const at::NoGradGuard no_grad;
  const RecurrenceCase c{.tokens = 140, .decay = DecayKind::kToken, .bounds = {0, 1, 66, 66, 140}};
  const RecurrenceInputs x = draw(c, at::kFloat);
  const auto packed = recurrence(x[0], x[1], x[2], x[3], x[4], bounds_tensor(c), kOptions);
  for (int64_t n = 0; n < c.sequences(); ++n) {
    const auto own = [&](const at::Tensor& a) {
      return a.narrow(1, c.bounds[n], c.bounds[n + 1] - c.bounds[n]);
    };
    const auto alone =
        recurrence(own(x[0]), own(x[1]), own(x[2]), own(x[3]), x[4].narrow(0, n, 1), {}, kOptions);
    EXPECT_LE((alone.o - own(packed.o)).abs().sum().item<double>(), 1e-3) << n;
    EXPECT_LE(relative_error(alone.final_state, packed.final_state.narrow(0, n, 1)), 1e-6) << n;
  }
}

TEST(RecurrenceProperties, AnyStrides) {
  const RecurrenceCase c{.batch = 2, .tokens = 70, .decay = DecayKind::kToken};
  const RecurrenceInputs inputs = draw(c, at::kFloat);
  const Named expected = run(c, inputs, recurrence);
  RecurrenceInputs strided = inputs;
  for (const size_t i : {0, 1, 2, 5})
    strided[i] = inputs[i].transpose(1, 2).contiguous().transpose(1, 2);  // B H T D
  strided[3] = inputs[3].permute({2, 1, 0}).contiguous().permute({2, 1, 0});
  strided[4] = inputs[4].transpose(2, 3).contiguous().transpose(2, 3);
  strided[6] = inputs[6].transpose(2, 3).contiguous().transpose(2, 3);
  const Named results = run(c, strided, recurrence);
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_TRUE(at::equal(results[i].second, expected[i].second)) << expected[i].first;
  strided[2] = inputs[2].transpose(2, 3).contiguous().transpose(2, 3);  // last dimension not dense
  EXPECT_TRUE(at::equal(run(c, strided, recurrence)[0].second, expected[0].second));
}

// A gradient that arrives through one output alone.
TEST(RecurrenceProperties, OneOutputAlone) {
  const RecurrenceCase c{.tokens = 40};
  for (const bool through_state : {false, true}) {
    std::array<at::Tensor, 2> grads;
    for (const bool fused : {false, true}) {
      const RecurrenceInputs x = draw(c, at::kFloat);
      const at::Tensor v = x[2].requires_grad_(true);
      const auto r = (fused ? recurrence : recurrence_reference)(x[0], x[1], v, x[3], x[4], {}, kOptions);
      grads[fused] = torch::autograd::grad({(through_state ? r.final_state : r.o).sum()}, {v})[0];
    }
    EXPECT_LE(relative_error(grads[1], grads[0]), 1e-6);
  }
}

// Prints the number of threads and a hash of every bit; a child process per thread count runs this.
TEST(RecurrenceProperties, DISABLED_PrintBits) {
  uint64_t hash = 14695981039346656037u;
  for (const RecurrenceCase& c :
       {RecurrenceCase{
            .tokens = 700, .heads = 1, .key_heads = 1, .value_heads = 1, .decay = DecayKind::kToken},
        RecurrenceCase{
            .batch = 2, .tokens = 300, .heads = 6, .key_heads = 2, .value_heads = 3, .dk = 64, .dv = 64},
        RecurrenceCase{.tokens = 300, .bounds = {0, 7, 7, 200, 300}}}) {
    for (const auto& [name, tensor] : run(c, draw(c, at::kFloat), recurrence)) {
      const at::Tensor dense = tensor.contiguous();
      const auto* bytes = static_cast<const unsigned char*>(dense.const_data_ptr());
      for (size_t i = 0; i < dense.nbytes(); ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
    }
  }
  std::printf("bits %d %016llx\n", num_threads(), static_cast<unsigned long long>(hash));
}

std::string bits_with(int threads) {
  const std::string command =
      "OMP_NUM_THREADS=" + std::to_string(threads) + " MKL_NUM_THREADS=" + std::to_string(threads) + " '" +
      std::filesystem::read_symlink("/proc/self/exe").string() +
      "' --gtest_also_run_disabled_tests --gtest_filter=RecurrenceProperties.DISABLED_PrintBits";
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return "";
  std::string found;
  std::array<char, 256> line{};
  while (std::fgets(line.data(), line.size(), pipe) != nullptr)
    if (std::string(line.data()).starts_with("bits ")) found = line.data();
  pclose(pipe);
  return found;
}

TEST(RecurrenceProperties, SameBitsWithAnyNumberOfThreads) {
  const std::string one = bits_with(1);
  ASSERT_TRUE(one.starts_with("bits 1 ")) << one;
  const std::string two = bits_with(2);
  ASSERT_TRUE(two.starts_with("bits 2 ")) << two;
  EXPECT_EQ(one.substr(7), two.substr(7));
}

}  // namespace
}  // namespace longreach::test
