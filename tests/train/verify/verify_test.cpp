// The verifier over every vector in the tree, and proof that it notices what it should.
#include "train/verify/verify.h"

#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

#include "core/error.h"
#include "tests/train/verify/edited.h"
#include "train/verify/compare.h"
#include "train/verify/runners.h"
#include "train/verify/vector_file.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using namespace test;

std::string mechanism_of(const std::string& path) { return fs::path(path).parent_path().filename().string(); }

// Those whose inputs may be rounded: what they read is not chosen from scores.
std::vector<std::string> smooth_vector_files() {
  std::vector<std::string> paths = vector_files();
  std::erase_if(paths, [](const std::string& path) {
    const auto found = verify::runners().find(mechanism_of(path));
    return found == verify::runners().end() || found->second.chooses_from_scores;
  });
  return paths;
}

class EveryVector : public ::testing::TestWithParam<std::string> {};
class EverySmoothVector : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryVector, AgreesInFloat64AndFused) {
  const Outcome outcome = outcome_of({GetParam()});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.errors;
  EXPECT_THAT(outcome.last_line(), HasSubstr("1 files, "));
}

TEST_P(EverySmoothVector, AgreesFusedInBfloat16) {
  const Outcome outcome = outcome_of({GetParam()}, {Implementation::fused, at::kBFloat16});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.errors;
}

std::string name_of(const ::testing::TestParamInfo<std::string>& about) {
  return mechanism_of(about.param) + "_" + fs::path(about.param).stem().string();
}

INSTANTIATE_TEST_SUITE_P(Verify, EveryVector, ::testing::ValuesIn(vector_files()), name_of);
INSTANTIATE_TEST_SUITE_P(Verify, EverySmoothVector, ::testing::ValuesIn(smooth_vector_files()), name_of);

TEST(Verify, EveryNameThatItKnowsHasVectors) {
  std::set<std::string> have, known;
  for (const std::string& path : vector_files()) have.insert(verify::VectorFile(path).mechanism());
  for (const auto& [name, runner] : verify::runners()) known.insert(name);
  EXPECT_EQ(have, known);
}

TEST(Verify, NoticesASmallErrorInEveryComparedTensor) {
  const Edited good("simple_gla/adversarial");
  for (const auto& [name, tensor] : good.tensors) {
    if (!name.starts_with("out.") && !name.starts_with("grad.")) continue;
    Edited bad = good;
    bad[name] = tensor * (1 + 1e-7);
    const Outcome outcome = bad.verify({Implementation::reference, {}});
    EXPECT_EQ(outcome.code, 1) << name;
    EXPECT_THAT(outcome.out, HasSubstr("FAIL"));
    EXPECT_THAT(outcome.last_line(), HasSubstr("1 failed"));
    bad[name] = tensor * 1.01;
    EXPECT_EQ(bad.verify({Implementation::fused, {}}).code, 1) << name;
  }
}

TEST(Verify, NoticesNanUnusedInputsAndForeignTensors) {
  Edited nan("retention/plain");
  nan["in.q"] = nan["in.q"].clone();
  nan["in.q"].view({-1})[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(nan.verify().code, 1);
  for (const char* name : {"in.extra", "param.extra", "gout.extra"}) {
    Edited extra("retention/plain");
    extra[name] = at::tensor({1.0f});
    const Outcome outcome = extra.verify();
    EXPECT_EQ(outcome.code, 1) << name;
    EXPECT_THAT(outcome.out, HasSubstr(name));
  }
  Edited shape("retention/plain");
  shape["out.o"] = shape["out.o"].narrow(2, 0, 10).clone();
  EXPECT_THAT(shape.verify().out, HasSubstr("expected ["));
}

TEST(Verify, ATensorOfAnUnknownNameIsNotLeftUnchecked) {
  for (const char* name : {",", "o", "out.", "out.,", "out.o2", "Out.o", "grads.q", "grad.extra", "gouto"}) {
    SCOPED_TRACE(name);
    Edited renamed("retention/plain");
    for (auto& [key, tensor] : renamed.tensors)
      if (key == "out.o") key = name;
    const Outcome outcome = renamed.verify();
    EXPECT_EQ(outcome.code, 2);
    EXPECT_THAT(outcome.out, HasSubstr(text(" ", name, " error 0.00e+00")));
    EXPECT_THAT(outcome.out, HasSubstr("is unknown, so it was not compared"));
    EXPECT_THAT(outcome.out, HasSubstr("out.o"));
  }
}

TEST(Verify, TheFloorIsOfTheSizeOfWhatIsComparedAndSaysThatItApplied) {
  // Gradients of 1e-12 (by powers of two, which round nothing): numbers below 1e-6 are no rounding beside
  // them.
  const double tiny = std::exp2(-40), billionth = std::exp2(-30);
  Edited small("retention/plain");
  small["gout.o"] = small["gout.o"] * tiny;
  for (const char* name : {"grad.q", "grad.k", "grad.v"}) small[name] = small[name] * tiny;
  EXPECT_EQ(small.verify().code, 0) << small.verify().out;
  Edited wrong = small;
  wrong["grad.q"] = wrong["grad.q"] * billionth;
  const Outcome refused = wrong.verify({Implementation::fused, {}});
  EXPECT_EQ(refused.code, 1) << refused.out;
  EXPECT_THAT(refused.out, HasSubstr("grad.q error 1.07e+09 limit 1.00e-03: is too far"));
  // Beside gradients of size 1, others of 1e-9 pass by the floor, and their line says that it was this one.
  Edited beside("retention/plain");
  for (const char* name : {"in.q", "out.o", "grad.k", "grad.v"}) beside[name] = beside[name] * billionth;
  const Outcome exact = beside.verify();
  EXPECT_EQ(exact.code, 0) << exact.out;
  EXPECT_EQ(exact.out.find("floor"), std::string::npos) << exact.out;
  beside["grad.k"] = beside["grad.k"] * billionth;
  const Outcome passed = beside.verify({Implementation::fused, {}});
  EXPECT_EQ(passed.code, 0) << passed.out;
  EXPECT_THAT(passed.out, HasSubstr("grad.k error 1.07e+09 beyond 1.00e-03, but rms "));
  EXPECT_THAT(passed.out, HasSubstr("within the floor "));
}

TEST(Verify, AFolderStandsForItsFiles) {
  const std::string folder = vector_folder("lse_merge");
  const Outcome whole = outcome_of({folder});
  EXPECT_EQ(whole.code, 0) << whole.errors;
  EXPECT_EQ(whole.out, outcome_of(vector_files("lse_merge")).out);
  const TemporaryFolder empty;
  write_file(empty.path("readme.txt"), "nothing to run");
  EXPECT_THROW(outcome_of({folder, empty.path("")}), DataError);
}

TEST(Verify, AFileWithNothingToCompareFails) {
  Edited empty("retention/plain");
  empty.drop("out.");
  empty.drop("grad.");
  const Outcome outcome = empty.verify();
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("nothing to compare"));
}

TEST(Verify, SaysTwoForWhatItDoesNotKnow) {
  Edited mechanism("retention/plain");
  mechanism.metadata["mechanism"] = "retenton\n\x1B[31m";
  EXPECT_EQ(mechanism.verify().code, 2);
  mechanism.metadata["mechanism"] = "retenton";
  EXPECT_THAT(mechanism.verify().errors, HasSubstr("did you mean `retention`"));
  Edited config("retention/plain");
  config.metadata["config"] = R"json({"H": 4, "decay": "1-3^(-h)"})json";
  EXPECT_EQ(config.verify().code, 2);
  config.metadata["config"] = "{";
  EXPECT_EQ(config.verify().code, 2);
  Edited positions("sink_window/plain");
  positions.metadata["config"] =
      R"({"sink_size": 4, "recent_size": 16, "positions": "alibi", "scale": 0.25, "rope_theta": 10000.0})";
  EXPECT_EQ(positions.verify().code, 2);
  Edited lacking("retention/plain");
  lacking.drop("in.k");
  EXPECT_EQ(lacking.verify().code, 2);
  TemporaryFolder folder;
  EXPECT_EQ(outcome_of({folder.path("absent"), vector_path("retention/plain")}).code, 2);
  EXPECT_EQ(outcome_of({folder.write("torn.safetensors", "12345678901")}).code, 2);
}

TEST(Verify, OtherCasesOfAKind) {
  // A file may leave an output out; its gradients stay what the output gradients make them.
  Edited state("simple_gla/adversarial");
  state.drop("out.final_state");
  EXPECT_EQ(state.verify().code, 0);
  state.drop("gout.final_state");
  EXPECT_EQ(state.verify().code, 1);
  Edited turned("retention/plain");
  for (auto& [name, tensor] : turned.tensors) tensor = tensor.transpose(1, 2).contiguous();
  EXPECT_EQ(turned.verify().code, 1) << "the layout entry decides";
  turned.metadata["layout"] = "B T H D";
  EXPECT_EQ(turned.verify().code, 0);
  turned.metadata["layout"] = R"({"q,k": "B T H D", "v,o": "B T H D"})";
  EXPECT_EQ(turned.verify().code, 0);
}

TEST(Compare, KnowsLimitsAndSpecialValues) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  using verify::difference;
  EXPECT_EQ(difference(at::tensor({1.0, -inf}), at::tensor({1.0, -inf})).relative(), 0);
  EXPECT_FALSE(difference(at::tensor({1.0, inf}), at::tensor({1.0, -inf})).broken.empty());
  EXPECT_FALSE(difference(at::tensor({1.0, 2.0}), at::tensor({1.0, -inf})).broken.empty());
  EXPECT_FALSE(difference(at::tensor({1.0, nan}), at::tensor({1.0, 2.0})).broken.empty());
  EXPECT_TRUE(difference(at::tensor({1.0, nan}), at::tensor({1.0, nan})).broken.empty());
  EXPECT_FALSE(difference(at::tensor({1.0}), at::tensor({1.0}).view({1, 1})).broken.empty());
  EXPECT_NEAR(difference(at::tensor({3.0, 4.0}), at::tensor({3.0, 5.0})).relative(), 1 / std::sqrt(34.0),
              1e-12);
  EXPECT_EQ(difference(at::tensor({1e-30}), at::tensor({0.0})).relative(), inf);
  EXPECT_EQ(verify::relative_limit(at::kDouble, 1.0), 1e-9);
  EXPECT_EQ(verify::relative_limit(at::kFloat, 0), 5e-6);
  EXPECT_EQ(verify::relative_limit(at::kFloat, 1e-4), 2e-4);
  EXPECT_EQ(verify::relative_limit(at::kFloat, inf), 1e-3);
  EXPECT_EQ(verify::relative_limit(at::kBFloat16, 1e-3), 1e-2);
  EXPECT_EQ(verify::relative_limit(at::kBFloat16, 1.0), 1e-1);
  EXPECT_DOUBLE_EQ(verify::absolute_floor(at::kFloat, 1e-3, 30, 2), 3e-5);
  EXPECT_DOUBLE_EQ(verify::absolute_floor(at::kFloat, 1e-3, 0.1, 2), 1e-6);
  EXPECT_DOUBLE_EQ(verify::absolute_floor(at::kFloat, 2e-3, 30, 2), 2e-6);
  EXPECT_DOUBLE_EQ(verify::absolute_floor(at::kDouble, 1, 30, 100), 3e-11);
}

TEST(Compare, ComparesIntegersExactlyAndIndexListsAsSets) {
  const at::Tensor wanted = at::tensor({3, 1, -1, 5, 5, 2}, at::kLong).view({2, 3});
  EXPECT_TRUE(verify::difference(wanted.to(at::kInt), wanted).broken.empty());
  EXPECT_FALSE(verify::difference(wanted + 1, wanted).broken.empty());
  const at::Tensor shuffled = at::tensor({1, 3, 5, 2}, at::kLong).view({2, 2});
  EXPECT_TRUE(verify::difference(shuffled, wanted, true).broken.empty());
  EXPECT_FALSE(verify::difference(shuffled, wanted, false).broken.empty());
  EXPECT_FALSE(
      verify::difference(at::tensor({1, 4, 5, 2}, at::kLong).view({2, 2}), wanted, true).broken.empty());
}

}  // namespace
}  // namespace longreach
