// What we write is read by PyTorch itself, by the loader that takes tensors alone.
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include "checkpoints/formats/torch_file.h"
#include "tests/support/files.h"
#include "tests/support/interop.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

using TorchFileInterop = Interop;

TEST_F(TorchFileInterop, TorchLoadsWhatIsWrittenAndWritesItBack) {
  const std::vector<std::pair<std::string, at::Tensor>> tensors = {
      {"model.layers.0.weight", normal({3, 5}, 1)},
      {"transposed", normal({4, 6}, 2).t()},
      {"empty", at::empty({0, 2})},
      {"one", at::tensor(2.5)},
      {"double", normal({2}, 3).to(at::kDouble)},
      {"half", normal({5}, 3).to(at::kHalf)},
      {"bfloat", normal({5}, 3).to(at::kBFloat16)},
      {"long", at::arange(5, at::kLong)},
      {"int", at::arange(5, at::kInt)},
      {"short", at::arange(5, at::kShort)},
      {"char", at::arange(5, at::kChar)},
      {"byte", at::arange(5, at::kByte)},
      {"truth", at::tensor({1, 0, 1}).to(at::kBool)}};
  const TemporaryFolder folder;
  write_torch_file(folder.path("ours.pth"), tensors);
  write_file(folder.path("again.py"),
             "import sys, torch, zipfile\n"
             "assert zipfile.ZipFile(sys.argv[1]).testzip() is None\n"
             "tensors = torch.load(sys.argv[1], weights_only=True)\n"
             "assert type(tensors) is dict and all(t.is_contiguous() for t in tensors.values())\n"
             "torch.save(tensors, sys.argv[2])\n");
  const ProgramResult result = run_command(
      {interop_python(), folder.path("again.py"), folder.path("ours.pth"), folder.path("theirs.pth")});
  ASSERT_EQ(result.code, 0) << result.err;
  const TorchFile theirs(folder.path("theirs.pth"));
  ASSERT_EQ(theirs.names().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(theirs.names()[i], tensors[i].first);
    EXPECT_TRUE(theirs.tensor(tensors[i].first).equal(tensors[i].second)) << tensors[i].first;
    EXPECT_EQ(theirs.tensor(tensors[i].first).scalar_type(), tensors[i].second.scalar_type());
  }
}

}  // namespace
}  // namespace longreach::test
