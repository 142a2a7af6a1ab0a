// The mutation gate over the dense kernels of sm_90a that ship: registers, waits and fences of wgmma and TMA.
#include "tests/layers/ops/cuda/kernel_cases.h"

namespace longreach::test {
namespace {

using ptx::Mutant;

constexpr double kLimit = 1e-2;  // as the tests of these kernels

constexpr const char* kForward = "interval_attention_dense_forward_bf16_64";
constexpr const char* kQueryGradient = "interval_attention_dense_query_gradient_bf16_64";
constexpr const char* kKeyGradient = "interval_attention_dense_key_gradient_bf16_64";

constexpr const char* kGiven = "(setmaxnreg\\.dec\\.sync\\.aligned\\.u32) 24;";
constexpr const char* kTooFew = "$1 40;";
constexpr const char* kWait = "mbarrier\\.try_wait.*";
constexpr const char* kNoWait = "setp.eq.u32 p, 0, 0;";

TEST(DenseMutants, Forward) {
  const AttentionLaunch launch(200, 200, 2);
  const Mutant mutants[] = {
      {"the producer keeps more registers than consumers leave", kForward, kGiven, kTooFew, 0,
       "for 240 registers a thread"},
      {"consumers lower their registers", kForward, "setmaxnreg\\.inc", "setmaxnreg.dec", 0,
       "setmaxnreg.dec to more registers"},
      {"wgmma is not waited for", kForward, "wgmma\\.wait_group.*", "", 0, "has not been waited for"},
      {"no wgmma.fence", kForward, "wgmma\\.fence.*", "", 0, "missing wgmma.fence"},
      {"no proxy fence before the TMA store", kForward, "fence\\.proxy\\.async.*", "", 0,
       "missing fence.proxy.async"},
      {"the values of the next product are not waited for", kForward, kWait, kNoWait, 6,
       "has not waited for"},
      {"no barrier after mbarrier.init", kForward, "bar\\.sync\\s+0;", "", 0, "mbarrier"},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit, [&](const Kernels& kernels) {
    return launch.forward(kernels, {.architecture = 90, .path = interval::ForwardPath::kTiles});
  });
}

TEST(DenseMutants, Backward) {
  const AttentionLaunch launch(200, 200, 2);
  const Mutant mutants[] = {
      {"dQ: the producer keeps more registers than consumers leave", kQueryGradient, kGiven, kTooFew, 0,
       "for 240 registers a thread"},
      {"dQ: the next stage is not waited for", kQueryGradient, kWait, kNoWait, 3, "has not waited for"},
      {"dK: the producer keeps more registers than consumers leave", kKeyGradient, kGiven, kTooFew, 0,
       "for 240 registers a thread"},
      {"dK: wgmma is not waited for", kKeyGradient, "wgmma\\.wait_group.*", "", 0, "has not been waited for"},
      {"dK: no wgmma.fence", kKeyGradient, "wgmma\\.fence.*", "", 0, "missing wgmma.fence"},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit, [&](const Kernels& kernels) {
    return launch.backward(kernels, {.architecture = 90});
  });
}

}  // namespace
}  // namespace longreach::test
