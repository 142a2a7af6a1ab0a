// The mutation gate over the join of partial attentions that ships.
#include <array>

#include "layers/ops/merge/cuda/plan.h"
#include "tests/layers/ops/cuda/kernel_cases.h"

namespace longreach::test {
namespace {

using merge_kernels::Merge;
using merge_kernels::MergeBackward;
using merge_kernels::Part;
using ptx::kEverywhere;
using ptx::kNumbers;
using ptx::Mutant;

constexpr float kEmpty = -INFINITY;
constexpr int64_t kTokens = 9, kHeads = 2, kSize = 136, kParts = 3;

// Three parts of bf16 rows that need more than one round of a warp's quads, three blocks of rows. Part 1 is
// empty for some tokens, and its o is NaN there; token 4 sees nothing.
class MergeLaunch {
 public:
  MergeLaunch() {
    std::mt19937 random(9);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < kParts; ++i) {
      for (float& x : lse_[i]) x = normal(random);
      for (int64_t h = 0; h < kHeads; ++h) {
        lse_[i][at(h, 4)] = kEmpty;
        if (i == 1) lse_[i][at(h, 2)] = lse_[i][at(h, 7)] = kEmpty;
      }
    }
    for (float& x : d_lse_) x = normal(random);
    for (int64_t h = 0; h < kHeads; ++h)
      for (int64_t t = 0; t < kTokens; ++t) solve(h, t);
  }

  Outcome run(const Kernels& kernels) const {
    ptx::Memory memory;
    Outcome outcome;
    std::vector<Part> parts, grads;
    for (int64_t i = 0; i < kParts; ++i) {
      parts.push_back(part(memory.upload("o", poisoned(i)), memory.upload("lse", lse_[i])));
      grads.push_back(part(memory.allocate("do_p", o_[0].bytes.size()),
                           memory.allocate_array<float>("dlse_p", lse_[i].size())));
    }
    Merge forward{.batch = 1, .tokens = kTokens, .heads = kHeads, .dim = kSize, .dtype = o_[0].dtype};
    forward.parts = parts.data(), forward.part_count = kParts;
    forward.result = part(memory.allocate("joined o", o_[0].bytes.size()),
                          memory.allocate_array<float>("joined lse", total_.size()));
    launch(outcome, kernels, memory, [&](void* space) { return plan_forward(forward, space); });
    compare(outcome, memory, forward.result.o, forward.dtype, joined_.values);
    compare_lse(outcome, memory, forward.result.lse, total_);
    forward.result.lse = memory.upload("lse given", total_);
    const MergeBackward backward{
        forward, part(memory.upload("do", d_o_.bytes), memory.upload("dlse", d_lse_)), grads.data()};
    launch(outcome, kernels, memory, [&](void* space) { return plan_backward(backward, space); });
    for (int64_t i = 0; i < kParts; ++i) {
      compare(outcome, memory, grads[i].o, forward.dtype, d_parts_[i].values);
      compare_lse(outcome, memory, grads[i].lse, d_lse_parts_[i]);
    }
    return outcome;
  }

 private:
  using Lse = std::vector<float>;

  static size_t at(int64_t head, int64_t token) { return static_cast<size_t>(head * kTokens + token); }

  void solve(int64_t h, int64_t t) {
    double sum = 0, joined = 0, dot[kParts] = {};
    for (int64_t i = 0; i < kParts; ++i) sum += std::exp(static_cast<double>(lse_[i][at(h, t)]));
    total_[at(h, t)] = sum > 0 ? static_cast<float>(std::log(sum)) : kEmpty;
    for (int64_t i = 0; i < kParts && sum > 0; ++i) {
      const double weight = std::exp(static_cast<double>(lse_[i][at(h, t)])) / sum;
      if (weight == 0) continue;
      joined_.add(t, h, weight, o_[i], t, h);
      d_parts_[i].add(t, h, weight, d_o_, t, h);
      joined += weight * (dot[i] = dot_of(i, h, t));
    }
    for (int64_t i = 0; i < kParts && sum > 0; ++i)
      d_lse_parts_[i][at(h, t)] = static_cast<float>(std::exp(static_cast<double>(lse_[i][at(h, t)])) / sum *
                                                     (dot[i] - joined + d_lse_[at(h, t)]));
  }

  double dot_of(int64_t i, int64_t h, int64_t t) const { return dot(d_o_, t, h, o_[i], t, h); }

  std::vector<std::byte> poisoned(int64_t i) const {
    std::vector<float> values = o_[i].values;
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t h = 0; h < kHeads; ++h)
        if (lse_[i][at(h, t)] == kEmpty) std::fill_n(values.begin() + (t * kHeads + h) * kSize, kSize, NAN);
    return Rows::encode(o_[i].dtype, values);
  }

  static Part part(void* o, float* lse) {
    return {o, kTokens * kHeads * kSize, kHeads * kSize, kSize, lse, kHeads * kTokens, kTokens, 1};
  }

  // -inf where it must be; numbers elsewhere.
  static void compare_lse(Outcome& outcome, const ptx::Memory& memory, const float* found, const Lse& exact) {
    std::vector<double> wanted;
    for (const float x : exact) wanted.push_back(x == kEmpty ? 3 : x);
    compare(
        outcome,
        [&] {
          Lse values = memory.download(found, exact.size());
          for (float& x : values) x = x == kEmpty ? 3 : x;
          return values;
        },
        wanted);
  }

  template <class Plan>
  static void launch(Outcome& outcome, const Kernels& kernels, ptx::Memory& memory, Plan plan) {
    const std::vector<std::byte> upload = plan(nullptr).upload;
    launch_all(outcome, kernels, plan(memory.upload("workspace", upload)).launches, memory);
  }

  std::array<Rows, kParts> o_{Rows{kTokens, kHeads, kSize, 1}, Rows{kTokens, kHeads, kSize, 2},
                              Rows{kTokens, kHeads, kSize, 3}};
  Rows d_o_{kTokens, kHeads, kSize, 4};
  std::array<Lse, kParts> lse_{Lse(kTokens * kHeads), Lse(kTokens* kHeads), Lse(kTokens* kHeads)};
  Lse d_lse_ = Lse(kTokens * kHeads), total_ = Lse(kTokens * kHeads);
  std::array<Lse, kParts> d_lse_parts_{Lse(kTokens * kHeads), Lse(kTokens* kHeads), Lse(kTokens* kHeads)};
  Exact joined_{d_o_};
  std::array<Exact, kParts> d_parts_{Exact{d_o_}, Exact{d_o_}, Exact{d_o_}};
};

std::string file_of_join(const std::string&) { return "merge_join"; }

TEST(MergeMutants, Join) {
  const MergeLaunch launch;
  constexpr const char* kJoin = "merge_join_bf16";
  constexpr const char* kGradient = "merge_join_gradient_bf16";
  const Mutant mutants[] = {
      {"all blocks work on the same rows", kJoin, "mov\\.u32(\\s+\\S+) %ctaid\\.x;", "mov.u32$1 1;", 0,
       "race between blocks"},
      {"an empty part is read", kJoin, "(setp\\.eq\\.f32\\s+\\S+ \\S+,) 0fFF800000;", "$1 0f7F800000;",
       kEverywhere, kNumbers},
      {"weights in base 2", kJoin, "0f3FB8AA3B", "0f3F800000", kEverywhere, kNumbers},
      {"lse in base 2", kJoin, "0f3F317218", "0f3F800000", kEverywhere, kNumbers},
      {"rows that see nothing get a number", kJoin, "setp\\.neu\\.f32", "setp.equ.f32", kEverywhere,
       kNumbers},
      {"lse is not stored", kJoin, "st\\.global\\.f32.*", "", 0, "was never written"},
      {"grad: all blocks work on the same rows", kGradient, "mov\\.u32(\\s+\\S+) %ctaid\\.x;", "mov.u32$1 1;",
       0, "race between blocks"},
      {"grad: a shuffle reaches too near", kGradient, "mov\\.u32(\\s+\\S+) 16;", "mov.u32$1 8;", 0, kNumbers},
      {"grad: an empty part gets a gradient", kGradient, "(setp\\.\\w+\\.f32\\s+\\S+ \\S+,) 0fFF800000;",
       "$1 0f7F800000;", kEverywhere, kNumbers},
      {"grad: weights in base 2", kGradient, "0f3FB8AA3B", "0f3F800000", kEverywhere, kNumbers},
      {"grad: the joined row is left out", kGradient, "fma\\.rn\\.f32(\\s+\\S+) \\S+, \\S+, (\\S+);",
       "mov.f32$1 $2;", 2, kNumbers},
      {"grad: the gradient of lse is left out", kGradient, "ld\\.global\\.f32(\\s+\\S+) .*",
       "mov.f32$1 0f00000000;", 1, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of_join), 1e-2,
                         [&](const Kernels& kernels) { return launch.run(kernels); });
}

}  // namespace
}  // namespace longreach::test
